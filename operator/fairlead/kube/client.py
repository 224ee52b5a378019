"""The asyncio client of a Kubernetes API: any kind, objects as plain dicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from fairlead.errors import Refused
from fairlead.kube import watch as watching
from fairlead.kube.errors import HTTP_NOT_FOUND, HTTP_OK_LIMIT, Expired, to_error
from fairlead.kube.resources import KNOWN, Ref, Resource, parse_discovery
from fairlead.kube.reviews import (
    TokenIdentity,
    build_access_review,
    build_token_review,
    parse_token_review,
)
from fairlead.kube.transport import Answer, Credentials, Request, Transport, load_configuration

Object = dict[str, Any]
Objects = list[Object]
_PAGE: Final = 500
_MAY_MISS: Final = frozenset({"GET", "PATCH", "DELETE"})
_PARENTS: Final = {"token": ("v1", "ServiceAccount"), "binding": ("v1", "Pod"), "eviction": ("v1", "Pod")}
"""Where a subresource lives whose own kind (``TokenRequest``) is another one."""
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}
_JSON_PATCH: Final = {"Content-Type": "application/json-patch+json"}
_METADATA: Final = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"}
_APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}


class KubeClient:
    """Speaks to one API server.

    Foreign errors become `Unavailable` (no answer, 429, 5xx), `Conflict` (409) or `Refused` (any other refusal, with
    the server's message); an object that is not there is None.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._resources: dict[tuple[str, str], Resource] = dict(KNOWN)

    @classmethod
    async def connect(cls, *, kubeconfig: Path | None, user_agent: str, context: str = "") -> KubeClient:
        """Read the configuration and return a client; nothing is sent yet.

        Args:
            kubeconfig: None: the service account of the pod that this process runs in.
            user_agent: what the server's audit log shows.
            context: a context of the kubeconfig; empty: its current one.
        """
        return cls(Transport(await load_configuration(kubeconfig, context=context), user_agent))

    @property
    def server(self) -> str:
        """The server's URL."""
        return self._transport.server

    async def credentials(self) -> Credentials:
        """Return what another client (Kopf's own) needs to reach the same server as the same user."""
        return await self._transport.credentials()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def get(self, ref: Ref) -> Object | None:
        """Return an object, or None."""
        return await self._call(Request("GET", await self._path(ref)), f"get {_text(ref)}")

    async def list(
        self, api_version: str, kind: str, *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Objects:
        """Return all objects of a kind, read page by page. *namespace* empty: of all namespaces."""
        resource = await self.resource(api_version, kind)
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        try:
            items, _ = await self.list_from(resource, namespace=namespace, selectors=selectors)
        except Expired:  # the pages' snapshot is gone: once more, from the start
            items, _ = await self.list_from(resource, namespace=namespace, selectors=selectors)
        return items

    async def versions(self, api_version: str, kind: str, *, namespace: str = "", label_selector: str = "") -> Objects:
        """Return the metadata of all objects of a kind and nothing else of them: cheap, to compare versions."""
        resource = await self.resource(api_version, kind)
        query = {"labelSelector": label_selector} if label_selector else {}
        path, what = resource.path(namespace=namespace), f"list metadata of {resource.plural}"
        page = await self._must(Request("GET", path, query, headers=_METADATA), what)
        return list(page.get("items") or ())

    async def list_from(
        self, resource: Resource, *, namespace: str, selectors: Mapping[str, str]
    ) -> tuple[Objects, str]:
        """Return all objects and the resource version that a watch goes on from."""
        query = {key: value for key, value in selectors.items() if value} | {"limit": str(_PAGE)}
        items: Objects = []
        path = resource.path(namespace=namespace)
        while True:
            page = await self._must(Request("GET", path, query), f"list {resource.plural}")
            items += page.get("items") or ()
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return items, page["metadata"].get("resourceVersion", "")

    async def create(
        self, obj: Mapping[str, Any], *, subresource: str = "", name: str = "", dry_run: bool = False
    ) -> Object:
        """Create an object, or post to a subresource of the object *name* (``token``, ``binding``, ``eviction``).

        Raises:
            Conflict: with reason ``AlreadyExists``: there is one of that name.
        """
        ref = Ref.of(obj)
        resource = await self.resource(*_PARENTS.get(subresource, (ref.api_version, ref.kind)))
        path = resource.path(namespace=ref.namespace, name=name, subresource=subresource)
        request = Request("POST", path, _dry(dry_run), obj)
        return await self._must(request, f"create {_text(ref)}")

    async def replace(self, obj: Mapping[str, Any], *, subresource: str = "") -> Object:
        """Replace an object as a whole; with its ``resourceVersion`` only if nobody changed it (`Conflict`)."""
        ref = Ref.of(obj)
        path = await self._path(ref, subresource)
        return await self._must(Request("PUT", path, body=obj), f"replace {_text(ref)}")

    async def merge_patch(self, ref: Ref, patch: Mapping[str, Any], *, subresource: str = "") -> Object | None:
        """Merge *patch* into an object; None if it is not there."""
        path = await self._path(ref, subresource)
        return await self._call(Request("PATCH", path, body=patch, headers=_MERGE), f"patch {_text(ref)}")

    async def write_status(self, obj: Mapping[str, Any], changes: Mapping[str, Any]) -> Object | None:
        """Change fields of the status of the very object that was observed; None: it is gone, whoever has its name.

        A status endpoint of a custom kind takes over nothing of the metadata in a patch and so compares no uid: only
        the test of a JSON patch is heeded.
        """
        ref, uid = Ref.of(obj), obj["metadata"]["uid"]
        merged = {**(obj.get("status") or {}), **changes}
        status = {key: value for key, value in merged.items() if value is not None}
        operations = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        request = Request("PATCH", await self._path(ref, "status"), body=operations, headers=_JSON_PATCH)
        try:
            return await self._call(request, f"patch the status of {_text(ref)}")
        except Refused:
            found = await self.get(ref)
            if found is None or found["metadata"]["uid"] != uid:
                return None
            raise

    async def apply(
        self, obj: Mapping[str, Any], *, manager: str, force: bool = False, dry_run: bool = False
    ) -> Object:
        """Apply an object on the server's side, as the field manager *manager*."""
        ref = Ref.of(obj)
        query = {"fieldManager": manager, "force": str(force).lower(), **_dry(dry_run)}
        path = await self._path(ref)
        return await self._must(Request("PATCH", path, query, obj, _APPLY), f"apply {_text(ref)}")

    async def delete(
        self, ref: Ref, *, uid: str = "", propagation: str = "Background", grace_seconds: int | None = None
    ) -> None:
        """Delete an object; it is no error if it is gone.

        With *uid* only this very object and not a later one of the same name (`Conflict`).
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        path = await self._path(ref)
        await self._call(Request("DELETE", path, body=options), f"delete {_text(ref)}")

    def watch(
        self, api_version: str, kind: str, *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield ``ADDED``, ``MODIFIED`` and ``DELETED`` with the object: what there is, then every change, for ever.

        Lost connections and expired resource versions are mended; what was deleted meanwhile is yielded as deleted.

        Raises:
            Refused: the kind is unknown, or watching it is not allowed.
        """
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        return watching.watch(self, self._transport, (api_version, kind), namespace=namespace, selectors=selectors)

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send any request; return status, headers and body as they are (tables, logs, health)."""
        return await self._transport.send(Request(method, path, query or {}, body, headers or {}))

    def stream(self, path: str, *, query: Mapping[str, str] | None = None) -> AsyncIterator[bytes]:
        """Yield an answer's pieces as they come (a log that is followed); raises as every other call does."""
        return watching.stream(self._transport, path, query=query or {})

    async def review_token(self, token: str, *, audiences: Sequence[str] = ()) -> TokenIdentity | None:
        """Return whose token it is, or None if it is not valid for one of *audiences* (empty: for the API server)."""
        path = KNOWN["authentication.k8s.io/v1", "TokenReview"].path()
        request = Request("POST", path, body=build_token_review(token, audiences))
        return parse_token_review(await self._must(request, "review a token"), audiences)

    async def review_access(  # noqa: PLR0913 - the parts of the question
        self,
        who: TokenIdentity,
        *,
        verb: str,
        group: str,
        resource: str,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
    ) -> bool:
        """Return whether *who* may do this."""
        attributes = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "namespace": namespace,
            "name": name,
            "subresource": subresource,
        }
        path = KNOWN["authorization.k8s.io/v1", "SubjectAccessReview"].path()
        request = Request("POST", path, body=build_access_review(who, attributes))
        review = await self._must(request, "review an access")
        return bool((review.get("status") or {}).get("allowed"))

    async def resource(self, api_version: str, kind: str) -> Resource:
        """Return where a kind lives; asks the server once for what is not well known.

        Raises:
            Refused: with reason ``KindNotFound``.
        """
        known = self._resources.get((api_version, kind))
        if known is not None:
            return known
        prefix = "/apis/" if "/" in api_version else "/api/"
        document = await self._call(Request("GET", prefix + api_version), f"discover {api_version}")
        self._resources.update(parse_discovery(api_version, document or {}))
        if (api_version, kind) not in self._resources:
            raise Refused(
                f"the server knows no {kind} in {api_version}; is its CustomResourceDefinition installed?",
                reason="KindNotFound",
            )
        return self._resources[api_version, kind]

    async def _path(self, ref: Ref, subresource: str = "") -> str:
        resource = await self.resource(ref.api_version, ref.kind)
        return resource.path(namespace=ref.namespace, name=ref.name, subresource=subresource)

    async def _must(self, request: Request, what: str) -> Object:
        found = await self._call(request, what)
        if found is None:
            raise Refused(f"{what}: not found", reason="NotFound")
        return found

    async def _call(self, request: Request, what: str) -> Object | None:
        status, headers, body = await self._transport.send(request)
        if status < HTTP_OK_LIMIT:
            parsed: Object = orjson.loads(body)
            return parsed
        if status == HTTP_NOT_FOUND and request.method in _MAY_MISS:
            return None
        raise to_error(status, headers, body, what=what)


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _text(ref: Ref) -> str:
    return f"{ref.kind} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind} {ref.name}"
