"""The OpenAPI v3 documents that kubectl explains and validates by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fairlead.localcluster.schema.tree import Json


def openapi_index(group_versions: Iterable[str]) -> Json:
    """Return ``/openapi/v3``."""
    return {
        "paths": {_path(item): {"serverRelativeURL": f"/openapi/v3/{_path(item)}?hash=0"} for item in group_versions}
    }


def _path(group_version: str) -> str:
    return f"apis/{group_version}" if "/" in group_version else f"api/{group_version}"


def openapi_document(group_version: str, resources: Sequence[Any]) -> Json:
    """Return ``/openapi/v3/<path>``."""
    del group_version, resources
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.33"},
        "paths": {},
        "components": {"schemas": {}},
    }
