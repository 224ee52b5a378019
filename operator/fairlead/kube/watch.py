"""List and watch, for ever: lost connections, silence and expired versions are mended here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from fairlead.errors import RetryableError
from fairlead.kube.errors import HTTP_OK_LIMIT, Expired, to_error
from fairlead.kube.resources import Resource
from fairlead.kube.transport import CONNECT_SECONDS, Request, Transport

if TYPE_CHECKING:
    from fairlead.kube.client import KubeClient

Event = tuple[str, dict[str, Any]]
_SILENCE_SECONDS: Final = 70
"""A server that says nothing for this long, not even a bookmark, is gone."""
_SERVER_SECONDS: Final = 240
_MAX_PAUSE: Final = 30.0


class _Seen:
    """Which objects the reader knows of: so that a list after a gap tells what was added, changed or deleted."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[str, dict[str, Any]]] = {}

    def difference(self, items: list[dict[str, Any]]) -> list[Event]:
        """Return the events that lead from what the reader knows to *items*."""
        found = {item["metadata"]["uid"] for item in items}
        gone = [stub for uid, (_, stub) in self._objects.items() if uid not in found]
        events: list[Event] = [("DELETED", stub) for stub in gone]
        for item in items:
            version, _ = self._objects.get(item["metadata"]["uid"], ("", {}))
            if version != item["metadata"]["resourceVersion"]:
                events.append(("MODIFIED" if version else "ADDED", item))
        return events

    def note(self, event: Event) -> None:
        """Remember an event that the reader got."""
        kind, obj = event
        meta = obj["metadata"]
        if kind == "DELETED":
            self._objects.pop(meta["uid"], None)
        else:
            kept = {key: meta[key] for key in ("name", "namespace", "uid", "labels", "ownerReferences") if key in meta}
            stub = {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": kept}
            self._objects[meta["uid"]] = (meta["resourceVersion"], stub)


async def watch(
    client: KubeClient,
    transport: Transport,
    which: tuple[str, str],
    *,
    namespace: str,
    selectors: Mapping[str, str],
) -> AsyncIterator[Event]:
    """Yield what there is, then every change. See `KubeClient.watch`."""
    seen = _Seen()
    pause = 0.0
    while True:
        try:
            resource = await client.resource(*which)
            items, version = await client.list_from(resource, namespace=namespace, selectors=selectors)
            for event in seen.difference(items):
                seen.note(event)
                yield event
            pause = 0.0
            async for event in _follow(transport, resource, namespace, selectors=selectors, version=version):
                seen.note(event)
                yield event
        except Expired:
            pause = 0.1
        except RetryableError as error:
            pause = min(max(pause * 2, 0.5, error.retry_after if pause else 0), _MAX_PAUSE)
        await asyncio.sleep(pause)


async def _follow(
    transport: Transport, resource: Resource, namespace: str, *, selectors: Mapping[str, str], version: str
) -> AsyncIterator[Event]:
    """Yield events from *version* on, over as many connections as it takes, until one fails."""
    query = {key: value for key, value in selectors.items() if value}
    query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(_SERVER_SECONDS)}
    path = resource.path(namespace=namespace)
    while True:
        async for line in _lines(transport, path, query=query | {"resourceVersion": version}):
            event = orjson.loads(line)
            kind, obj = event["type"], event["object"]
            if kind == "ERROR":
                raise to_error(int(obj.get("code") or 500), {}, orjson.dumps(obj), what=f"watch {resource.plural}")
            version = obj["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                yield kind, obj
        await asyncio.sleep(0.05)  # a server that closes at once must not make this loop hot


async def _lines(transport: Transport, path: str, *, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in stream(transport, path, query=query, silence=_SILENCE_SECONDS):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield line


async def stream(
    transport: Transport, path: str, *, query: Mapping[str, str], silence: float | None = None
) -> AsyncIterator[bytes]:
    """Yield an answer piece by piece. *silence*: seconds without one that mean the server is gone; None: never."""
    limits = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=silence)
    async with transport.open(Request("GET", path, query), limits) as answer:
        if answer.status >= HTTP_OK_LIMIT:
            raise to_error(answer.status, answer.headers, await answer.read(), what=f"GET {path}")
        async for piece in answer.content.iter_any():
            yield piece
