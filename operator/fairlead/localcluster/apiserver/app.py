"""The ASGI application: reads a request, finds out who asks, whether they may, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import structlog

from fairlead.localcluster.apiserver.audit import AuditLog
from fairlead.localcluster.apiserver.authn import authenticate, impersonate
from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import ApiError, bad_request, forbidden, internal
from fairlead.localcluster.apiserver.output import Response, error_response
from fairlead.localcluster.apiserver.rbac import denial
from fairlead.localcluster.apiserver.requests import Call, attributes_of, check_length, parse_query
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.routes import route

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LISTED = frozenset({"impersonate-group"})


class ClientGoneError(Exception):
    """The client hung up before its request was complete."""


class Application:
    """One server's ASGI callable."""

    def __init__(self, cluster: Cluster, audit: AuditLog) -> None:
        self._cluster = cluster
        self._audit = audit
        self._log = structlog.get_logger("fairlead.apiserver")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = self._cluster.clock.monotonic()
        call = _call(scope)
        try:
            response = await self._answer(call, receive)
        except ApiError as error:
            response = error_response(error)
        except ClientGoneError:
            return
        except (RecursionError, orjson.JSONEncodeError):
            response = error_response(bad_request("the object is nested too deeply"))
        except Exception:  # noqa: BLE001 - a bug answers 500, and the server goes on
            self._log.exception("request failed", method=call.method, path=call.path)
            response = error_response(internal("see the log of the API server"))
        self._record(call, response.code, started)
        await _send(response, call, send)

    async def _answer(self, call: Call, receive: Receive) -> Response:
        user = authenticate(self._cluster, call.headers)
        call.user = impersonate(self._cluster, user, call.headers)
        decision = self._cluster.authorizer.decide(call.user, call.attributes)
        if not decision.allowed:
            raise self._forbidden(call)
        call.body = await _body(receive, call)
        return await route(self._cluster, call)

    def _forbidden(self, call: Call) -> ApiError:
        asked = call.attributes
        why = denial(call.user, asked)
        if not asked.is_resource:
            return forbidden(None, "", why)
        known = self._cluster.registry.find(asked.group, asked.version, asked.resource)
        named = known or Resource(
            group=asked.group, version=asked.version, plural=asked.resource, kind="", namespaced=bool(asked.namespace)
        )
        return forbidden(named, asked.name, why)

    def _record(self, call: Call, code: int, started: float) -> None:
        asked = call.attributes
        self._audit.write(
            {
                "time": self._cluster.clock.now().isoformat(timespec="milliseconds"),
                "user": call.user.name,
                "userAgent": call.headers.get("user-agent", ""),
                "verb": asked.verb,
                "group": asked.group,
                "resource": asked.resource,
                "subresource": asked.subresource,
                "namespace": asked.namespace,
                "name": asked.name,
                **({} if asked.is_resource else {"path": call.path}),
                "code": code,
                "ms": round((self._cluster.clock.monotonic() - started) * 1000, 1),
            }
        )


def _call(scope: Message) -> Call:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:
            separator = "\n" if name in _LISTED or name.startswith("impersonate-extra-") else ", "
            value = f"{headers[name]}{separator}{value}"
        headers[name] = value
    method, path, query = scope["method"], scope["path"], parse_query(scope["query_string"])
    return Call(method, path, query, headers, attributes_of(method, path, query))


async def _body(receive: Receive, call: Call) -> bytes:
    """Read the body.

    Raises:
        ApiError: 413, it is too large.
    """
    declared = call.headers.get("content-length", "")
    check_length(int(declared) if declared.isdigit() else 0)
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        check_length(size)
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _send(response: Response, call: Call, send: Send) -> None:
    headers = [(b"content-type", response.content_type.encode()), (b"cache-control", b"no-cache, private")]
    headers += [(name.encode(), value.encode()) for name, value in response.headers.items()]
    headers += [(b"warning", _warning(text)) for text in dict.fromkeys(call.warnings)]
    if response.stream is None:
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.code, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if call.method == "HEAD" else response.body})
        return
    await send({"type": "http.response.start", "status": response.code, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    async for piece in response.stream:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _warning(text: str) -> bytes:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'299 - "{escaped}"'.encode("latin-1", "replace")
