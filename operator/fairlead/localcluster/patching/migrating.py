"""From kubectl's client-side apply to server-side apply, without conflicts.

Source: the Kubernetes documentation, "Upgrading from client-side apply to server-side apply".
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from fairlead.localcluster.patching.fieldset import NOTHING, FieldSet, compare, paths_of
from fairlead.localcluster.schema.tree import Schema

Json = dict[str, Any]

KUBECTL: Final = "kubectl"
"""The manager that takes over from client-side apply; with another name there is no take-over."""
_ANNOTATION: Final = "kubectl.kubernetes.io/last-applied-configuration"


def _annotations(obj: Json) -> Json:
    return (obj.get("metadata") or {}).get("annotations") or {}


def client_side_fields(live: Json, schema: Schema | None) -> FieldSet:
    """Return the fields that were last applied on the client's side and are still as they were."""
    try:
        last = orjson.loads(_annotations(live).get(_ANNOTATION, ""))
    except orjson.JSONDecodeError:
        return NOTHING
    if not isinstance(last, dict) or last.get("apiVersion") != live.get("apiVersion"):
        return NOTHING
    change = compare(schema, last, live)
    return paths_of(schema, last) - change.modified - change.added - change.removed


def with_last_applied(obj: Json, applied: Json) -> Json:
    """Keep the annotation of client-side apply true, where there is one."""
    annotations = _annotations(obj)
    if _ANNOTATION not in annotations:
        return obj
    metadata = dict(applied.get("metadata") or {})
    metadata["annotations"] = {key: value for key, value in _annotations(applied).items() if key != _ANNOTATION}
    said = orjson.dumps(applied | {"metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    changed = annotations | {_ANNOTATION: said}
    return obj | {"metadata": obj["metadata"] | {"annotations": changed}}
