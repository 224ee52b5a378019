"""JSON patch (RFC 6902) and merge patch (RFC 7386)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fairlead.localcluster.patching.errors import PatchError
from fairlead.localcluster.schema.filling import copied
from fairlead.localcluster.schema.validating import same

Json = dict[str, Any]

MAX_OPERATIONS: Final = 10_000
"""Kubernetes refuses longer JSON patches."""


def merge_patch(obj: Json, patch: Json) -> Json:
    """Return *obj* with *patch* merged in: null removes, maps merge, everything else replaces.

    Source: RFC 7386.
    """
    merged: Json = _merged(obj, patch)
    return merged


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copied(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def json_patch(obj: Json, operations: Any) -> Json:
    """Return *obj* with the operations applied in order.

    Source: RFC 6902.

    Raises:
        PatchError: a failed ``test``, a path that is not there (422), or no patch at all (400).
    """
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise PatchError("the patch must be a list of operations", status=400)
    if len(operations) > MAX_OPERATIONS:
        raise PatchError(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}", status=413
        )
    result: Any = copied(obj)
    for operation in operations:
        name = operation.get("op")
        apply = _OPERATIONS.get(name) if isinstance(name, str) else None
        if apply is None:
            raise PatchError(f"Unexpected kind: {name}", status=400)
        result = apply(result, operation)
    if not isinstance(result, dict):
        raise PatchError("the patched document is no object")
    return result


def _tokens(operation: Json, key: str = "path") -> list[str]:
    path = operation.get(key)
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise PatchError(f"{operation.get('op')} operation has no valid {key!r}: {path!r}", status=400)
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _value(operation: Json) -> Any:
    if "value" not in operation:
        raise PatchError(f"{operation['op']} operation has no value", status=400)
    return copied(operation["value"])


def _missing(operation: Json, tokens: list[str]) -> PatchError:
    path = "/" + "/".join(tokens)
    return PatchError(f'{operation["op"]} operation does not apply: doc is missing path: "{path}": missing value')


def _index(token: str, length: int) -> int:
    if not (token.isascii() and token.isdigit()) or (len(token) > 1 and token[0] == "0") or int(token) >= length:
        raise KeyError(token)
    return int(token)


def _step(node: Any, token: str) -> Any:
    if isinstance(node, dict):
        return node[token]
    if isinstance(node, list):
        return node[_index(token, len(node))]
    raise KeyError(token)


def _find(document: Any, tokens: list[str], operation: Json) -> Any:
    node = document
    try:
        for token in tokens:
            node = _step(node, token)
    except KeyError:
        raise _missing(operation, tokens) from None
    return node


def _put(document: Any, tokens: list[str], value: Any, operation: Json) -> Any:
    if not tokens:
        return value
    parent = _find(document, tokens[:-1], operation)
    last = tokens[-1]
    if isinstance(parent, dict):
        parent[last] = value
        return document
    if not isinstance(parent, list):
        raise _missing(operation, tokens)
    try:
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    except KeyError:
        raise _missing(operation, tokens) from None
    return document


def _take(document: Any, tokens: list[str], operation: Json) -> Any:
    if not tokens:
        raise PatchError(f"{operation['op']} operation cannot take the whole document")
    parent = _find(document, tokens[:-1], operation)
    value = _find(document, tokens, operation)
    if isinstance(parent, list):
        del parent[_index(tokens[-1], len(parent))]
    else:
        del parent[tokens[-1]]
    return value


def _add(document: Any, operation: Json) -> Any:
    return _put(document, _tokens(operation), _value(operation), operation)


def _remove(document: Any, operation: Json) -> Any:
    _take(document, _tokens(operation), operation)
    return document


def _replace(document: Any, operation: Json) -> Any:
    tokens = _tokens(operation)
    if tokens:
        parent = _find(document, tokens[:-1], operation)
        _find(document, tokens, operation)
        if isinstance(parent, list):
            parent[_index(tokens[-1], len(parent))] = _value(operation)
        else:
            parent[tokens[-1]] = _value(operation)
        return document
    return _value(operation)


def _move(document: Any, operation: Json) -> Any:
    source, target = _tokens(operation, "from"), _tokens(operation)
    if target[: len(source)] == source and len(target) > len(source):
        raise PatchError("move operation: a value cannot move into itself")
    return _put(document, target, _take(document, source, operation), operation)


def _copy(document: Any, operation: Json) -> Any:
    return _put(document, _tokens(operation), copied(_find(document, _tokens(operation, "from"), operation)), operation)


def _test(document: Any, operation: Json) -> Any:
    tokens = _tokens(operation)
    wanted = operation.get("value")
    try:
        found = _find(document, tokens, operation)
    except PatchError:
        if wanted is None:
            return document
        raise
    if not same(found, wanted):
        raise PatchError(f"testing path {operation['path']} failed: test failed")
    return document


_OPERATIONS: Final[dict[str, Callable[[Any, Json], Any]]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
