"""Sets of field paths: what a value has, what changed, and the ``fieldsV1`` form of a set.

A path is a tuple of elements written as Kubernetes writes them: ``f:name`` a field, ``k:{"name":"a"}`` an item of a
list-map, ``v:"a"`` an item of a set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson

from fairlead.localcluster.schema.tree import MISSING, Schema
from fairlead.localcluster.schema.validating import default_of, same

Json = dict[str, Any]
Path = tuple[str, ...]
FieldSet = frozenset[Path]

NOTHING: Final[FieldSet] = frozenset()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Where two values differ."""

    added: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)


def element(schema: Schema | None, item: Any) -> str | None:
    """Return the path element of an item of an associative list, or None when the list is atomic."""
    if schema is None or schema.list_type == "atomic":
        return None
    if schema.list_type == "set":
        return "v:" + orjson.dumps(item).decode()
    if not isinstance(item, dict):
        return None
    keys = {name: item.get(name, default_of(schema, name)) for name in sorted(schema.list_keys)}
    return "k:" + orjson.dumps({name: value for name, value in keys.items() if value is not MISSING}).decode()


def is_granular(schema: Schema | None, value: Any) -> bool:
    """Return whether ownership goes below *value*."""
    if isinstance(value, dict):
        return schema is None or schema.map_type != "atomic"
    if isinstance(value, list):
        return (
            all(element(schema, item) is not None for item in value)
            and schema is not None
            and schema.list_type != "atomic"
        )
    return False


def children(schema: Schema | None, value: Any) -> Iterator[tuple[str, Schema | None, Any]]:
    """Yield what is directly in a granular map or list: element, schema, value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"f:{key}", schema.child(key) if schema is not None else None, item
    elif isinstance(value, list):
        items = schema.items if schema is not None else None
        for item in value:
            name = element(schema, item)
            if name is not None:
                yield name, items, item


def _declared(schema: Schema | None, name: str) -> bool:
    return schema is not None and name.startswith("f:") and name[2:] in schema.properties


def paths_of(schema: Schema | None, value: Any) -> FieldSet:
    """Return the fields that applying *value* owns."""
    found: set[Path] = set()
    _collect(schema, value, (), found)
    return frozenset(found)


def _collect(schema: Schema | None, value: Any, path: Path, found: set[Path]) -> None:
    if not is_granular(schema, value):
        found.add(path)
        return
    for name, child_schema, child in children(schema, value):
        where = (*path, name)
        _collect(child_schema, child, where, found)
        if not _declared(schema, name) or child is None or child == {}:
            found.add(where)


def compare(schema: Schema | None, old: Any, new: Any) -> Comparison:
    """Return which fields are new, changed or gone."""
    result = Comparison()
    _compare(schema, old, new, (), result)
    return result


def _compare(schema: Schema | None, old: Any, new: Any, path: Path, result: Comparison) -> None:
    if old is MISSING:
        _whole(schema, new, path, result.added)
    elif new is MISSING:
        _whole(schema, old, path, result.removed)
    elif same(old, new):
        return
    elif _comparable(schema, old, new):
        before = {name: child for name, _, child in children(schema, old)}
        after = {name: (child_schema, child) for name, child_schema, child in children(schema, new)}
        for name, (child_schema, child) in after.items():
            _compare(child_schema, before.get(name, MISSING), child, (*path, name), result)
        for name, child_schema, child in children(schema, old):
            if name not in after:
                _compare(child_schema, child, MISSING, (*path, name), result)
    else:
        result.modified.add(path)


def _comparable(schema: Schema | None, old: Any, new: Any) -> bool:
    if type(old) is not type(new) or not (old or new):
        return False
    return is_granular(schema, old) and is_granular(schema, new)


def _whole(schema: Schema | None, value: Any, path: Path, found: set[Path]) -> None:
    if not is_granular(schema, value):
        found.add(path)
        return
    if not value or not _is_always_there(schema, path):
        found.add(path)
    for name, child_schema, child in children(schema, value):
        where = (*path, name)
        if name[:2] != "f:":
            found.add(where)
        _whole(child_schema, child, where, found)


_STRUCTS: Final = frozenset(
    f"f:{name}"
    for name in (
        "containers",
        "involvedObject",
        "jobTemplate",
        "lastState",
        "metadata",
        "names",
        "regarding",
        "resources",
        "roleRef",
        "rules",
        "source",
        "spec",
        "state",
        "status",
        "strategy",
        "template",
        "updateStrategy",
        "versions",
    )
)
"""Fields of built-in kinds that Go writes even when they are empty, so that nobody ever adds them."""


def _is_always_there(schema: Schema | None, path: Path) -> bool:
    return schema is not None and schema.lenient and bool(path) and path[-1] in _STRUCTS


def prefixes(paths: Iterable[Path]) -> FieldSet:
    """Return *paths* and everything above them."""
    found: set[Path] = set()
    for path in paths:
        end = len(path)
        while end and path[:end] not in found:
            found.add(path[:end])
            end -= 1
    return frozenset(found)


def encode(paths: FieldSet) -> Json:
    """Return the ``fieldsV1`` form."""
    root: Json = {}
    inner = {path[:end] for path in paths for end in range(1, len(path))}
    for path in sorted(paths):
        node = root
        for name in path:
            node = node.setdefault(name, {})
        if path in inner:
            node["."] = {}
    return root


def decode(fields: Any) -> FieldSet:
    """Read the ``fieldsV1`` form; what is malformed is left out."""
    return _decoded(orjson.dumps(fields))


@lru_cache(maxsize=512)
def _decoded(fields: bytes) -> FieldSet:
    found: set[Path] = set()

    def walk(node: Any, path: Path) -> None:
        if not isinstance(node, dict):
            return
        if path and (not node or "." in node):
            found.add(path)
        for name, child in node.items():
            if name != ".":
                walk(child, (*path, name))

    walk(orjson.loads(fields), ())
    return frozenset(found)


def show(path: Path) -> str:
    """Return the path as conflict messages name it: ``.spec.containers[name="a"].image``."""
    parts = []
    for name in path:
        kind, text = name[:2], name[2:]
        if kind == "f:":
            parts.append(f".{text}")
        elif kind == "k:":
            keys = ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in orjson.loads(text).items())
            parts.append(f"[{keys}]")
        else:
            parts.append(f"[={text}]")
    return "".join(parts)
