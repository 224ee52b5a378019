"""Answers: objects, lists, tables and metadata, as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fairlead.localcluster.apiserver.errors import ApiError, Json
from fairlead.localcluster.apiserver.negotiation import JSON, Form
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.store import Stored
from fairlead.localcluster.printing import builtin_columns, crd_columns, to_table

OBJECT_FORMS = frozenset({"Table", "PartialObjectMetadata"})
LIST_FORMS = frozenset({"Table", "PartialObjectMetadataList"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer; with `stream`, the body comes in pieces."""

    code: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a client wants objects of one resource."""

    resource: Resource
    form: Form
    include_object: str = "Metadata"
    now: str = ""

    def view(self, stored: Stored) -> Json:
        """Return the object in the version asked for."""
        return self.resource.from_stored(stored.obj)

    def raw(self, stored: Stored) -> bytes:
        """Return the object as JSON."""
        view = self.view(stored)
        return stored.raw if view is stored.obj else orjson.dumps(view)

    def one(self, stored: Stored) -> bytes:
        """Return one object in the wanted form."""
        match self.form.kind:
            case "Table":
                version = self.view(stored)["metadata"].get("resourceVersion", "")
                return orjson.dumps(self.table([self.view(stored)], {"resourceVersion": version}))
            case "PartialObjectMetadata":
                return orjson.dumps(_partial(self.view(stored)))
            case _:
                return self.raw(stored)

    def many(self, items: Sequence[Stored], metadata: Json) -> bytes:
        """Return a list in the wanted form."""
        match self.form.kind:
            case "Table":
                return orjson.dumps(self.table([self.view(each) for each in items], metadata))
            case "PartialObjectMetadataList":
                partial = [_partial(self.view(each)) for each in items]
                head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
                return orjson.dumps({**head, "items": partial})
            case _:
                return self._plain_list(items, metadata)

    def _plain_list(self, items: Sequence[Stored], metadata: Json) -> bytes:
        resource = self.resource
        head = {"kind": resource.kinds, "apiVersion": resource.api_version, "metadata": metadata}
        return b"".join((orjson.dumps(head)[:-1], b',"items":[', b",".join(map(self.raw, items)), b"]}"))

    def table(self, objects: Sequence[Json], metadata: Json) -> Json:
        """Return a Table."""
        resource = self.resource
        columns = (
            crd_columns([dict(each) for each in resource.columns])
            if resource.custom
            else builtin_columns(resource.api_version, resource.kind)
        )
        table = to_table(columns, objects, include_object=self.include_object, now=self.now)
        return {**table, "metadata": metadata}


def _partial(obj: Json) -> Json:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def json_response(document: Any, *, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a JSON document."""
    return Response(code=code, body=orjson.dumps(document), headers=headers or {})


def error_response(error: ApiError) -> Response:
    """Answer with a Status."""
    headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
    return json_response(error.status(), code=error.code, headers=headers)


def success_status(details: Json) -> Json:
    """Return the Status of something that is done."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
