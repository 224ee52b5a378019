"""Strategic merge patch: a merge patch that knows which lists are merged, and by which key.

Source: the Kubernetes documentation of strategic merge patches and their directives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fairlead.localcluster.patching.errors import PatchError
from fairlead.localcluster.schema.errors import text
from fairlead.localcluster.schema.filling import copied
from fairlead.localcluster.schema.tree import Schema

Json = dict[str, Any]

_DIRECTIVE: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_ORDER: Final = "$setElementOrder/"
_DELETE: Final = "$deleteFromPrimitiveList/"


def strategic_merge_patch(obj: Json, patch: Json, *, schema: Schema | None) -> Json:
    """Return *obj* with *patch* merged in.

    Raises:
        PatchError: a directive is unknown, or an item lacks its merge key.
    """
    merged = _merge_map(obj, patch, schema)
    return {} if merged is None else merged


def _merge_map(target: Json, patch: Json, schema: Schema | None) -> Json | None:
    """Merge; None when the patch says to delete the whole map."""
    directive = patch.get(_DIRECTIVE)
    if directive == "delete":
        return None
    if directive == "replace":
        return copied({key: value for key, value in patch.items() if key != _DIRECTIVE})
    if directive not in {None, "merge"}:
        raise PatchError(f"Unknown patch type found: {directive}", status=400)
    retained = patch.get(_RETAIN)
    result = dict(target) if retained is None else {key: value for key, value in target.items() if key in retained}
    for key, value in patch.items():
        if key in {_DIRECTIVE, _RETAIN} or key.startswith((_ORDER, _DELETE)):
            continue
        _merge_field(result, key, value, schema, patch.get(_ORDER + key))
    _apply_list_directives(result, patch, schema)
    return result


def _merge_field(result: Json, key: str, value: Any, schema: Schema | None, order: list[Any] | None) -> None:
    child = schema.child(key) if schema is not None else None
    if value is None:
        result.pop(key, None)
    elif isinstance(value, dict):
        before = result.get(key)
        merged = _merge_map(before if isinstance(before, dict) else {}, value, child)
        if merged is None:
            result.pop(key, None)
        else:
            result[key] = merged
    elif isinstance(value, list) and child is not None and "merge" in child.merge_strategy:
        before = result.get(key)
        result[key] = _merge_list(before if isinstance(before, list) else [], value, child, order)
    else:
        result[key] = copied(value)


def _apply_list_directives(result: Json, patch: Json, schema: Schema | None) -> None:
    """Delete from primitive lists, and order lists that the patch does not change otherwise."""
    for directive, wanted in patch.items():
        if directive.startswith(_DELETE):
            key = directive.removeprefix(_DELETE)
            if isinstance(result.get(key), list):
                result[key] = [item for item in result[key] if item not in wanted]
    for directive, wanted in patch.items():
        key = directive.removeprefix(_ORDER)
        if directive.startswith(_ORDER) and key not in patch and isinstance(result.get(key), list):
            child = schema.child(key) if schema is not None else None
            result[key] = _ordered(result[key], wanted, _identify(child), result[key])


def _identify(schema: Schema | None) -> Callable[[Any], str]:
    key = schema.merge_key if schema is not None else ""
    if not key:
        return text

    def identity(item: Any) -> str:
        if not isinstance(item, dict) or key not in item:
            raise PatchError(f"map: {text(item)} does not contain declared merge key: {key}", status=400)
        return text(item[key])

    return identity


def _merge_list(live: list[Any], patch: list[Any], schema: Schema, order: list[Any] | None) -> list[Any]:
    if not schema.merge_key:
        merged = live + [item for item in patch if item not in live]
        return _ordered(merged, order, text, live) if order is not None else merged
    identity = _identify(schema)
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" and len(item) == 1 for item in patch):
        return copied([item for item in patch if item.get(_DIRECTIVE) != "replace"])
    result = {identity(item): item for item in live}
    for item in patch:
        name = identity(item)
        if item.get(_DIRECTIVE) == "delete":
            result.pop(name, None)
            continue
        merged_item = _merge_map(result.get(name, {}), item, schema.items)
        result[name] = merged_item if merged_item is not None else {}
    merged = list(result.values())
    return _ordered(merged, order, identity, live) if order is not None else merged


def _ordered(items: list[Any], order: list[Any], identity: Callable[[Any], str], live: list[Any]) -> list[Any]:
    """Put *items* in the wanted order; those it does not name stay where the live list had them among the others."""
    wanted = {identity(item): index for index, item in enumerate(order)}
    served = {identity(item): index for index, item in enumerate(live)}
    named = sorted((item for item in items if identity(item) in wanted), key=lambda item: wanted[identity(item)])
    others = [item for item in items if identity(item) not in wanted]
    result: list[Any] = []
    while named and others:
        left, right = served.get(identity(named[0])), served.get(identity(others[0]))
        first = left is not None and right is not None and left < right
        result.append((named if first else others).pop(0))
    return [*result, *named, *others]
