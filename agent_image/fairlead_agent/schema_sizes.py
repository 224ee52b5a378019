"""How much work a JSON Schema can make, for whoever unfolds its references or checks a value against it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Iterator
from typing import Any, Final

MAX_STEPS: Final = 10_000
_PATTERN_STEPS: Final = 100
"""A regular expression takes milliseconds to compile."""
_LARGEST_PATTERN: Final = 20_000
"""States of a regular expression; larger ones are refused when they are compiled."""
_COUNTED: Final = re.compile(r"\{(\d{1,6})(?:,(\d{0,6}))?\}")
_TEXT_STEP: Final = 64
"""Characters that count as much as a subschema does."""
_MAPS: Final = frozenset({"dependentSchemas", "dependencies"})
_SAME_PLACE: Final = _MAPS | {"$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else"}
"""Keywords whose schemas apply to the same value."""
_UNEVALUATED: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_AGAIN: Final = 3
"""How often what applies to the same value is looked at where one of those is set."""
Schema = dict[str, Any]
_Wild = tuple[Container[str | int], Schema]
"""What applies to every place but some."""


class SchemaRefused(ValueError):
    """The schema makes too much work, or refers to what cannot be counted."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or f"it unfolds to more than {MAX_STEPS} parts: use fewer references and patterns, and let no reference "
            "lead back twice to the same place"
        )


def weigh(schema: Any) -> int:
    """Return how many steps the check of a value takes, at most, for each byte of it.

    Regular expressions do not backtrack; for a character they look at each of their states.

    Raises:
        SchemaRefused: there are more than can be looked at while others wait, or they cannot be counted.
    """
    _Unfolding(schema).walk()
    return _Applying(schema).walk()


class _Fuel:
    """Counts steps and ends the walk when there were too many."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._spent = 0

    def _spend(self, steps: int) -> None:
        self._spent += steps
        if self._spent > MAX_STEPS:
            raise SchemaRefused


class _Unfolding(_Fuel):
    """Writes what is referred to in the place of each reference, as some providers want it, unless it leads back."""

    def walk(self) -> None:
        waiting: list[tuple[Any, tuple[str, ...]]] = [(self._root, ())]
        while waiting:
            node, chain = waiting.pop()
            self._spend(1 + (len(node) + len(chain)) // _TEXT_STEP)
            if isinstance(node, str):
                continue
            if isinstance(node, dict):
                waiting += self._referred(node, chain)
                self._check_base(node)
            parts = node.values() if isinstance(node, dict) else node
            waiting += [(part, chain) for part in parts if _has_parts(part)]

    def _referred(self, node: Schema, chain: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
        ref = node.get("$ref")
        if isinstance(ref, str) and ref not in chain:
            target = _find(self._root, ref)
            if _has_parts(target):
                yield target, (*chain, ref)

    def _check_base(self, node: Schema) -> None:
        """Refuse what gives references another meaning than a place in the whole schema."""
        words = ["$dynamicRef", "$recursiveRef"]
        if node is not self._root:
            words += ["$id", "$schema", *(["id"] if "draft-04" in str(self._root.get("$schema")) else [])]
        wrong = next((word for word in words if isinstance(node.get(word), str)), None)
        if wrong is not None:
            raise SchemaRefused(
                f"{wrong} is not supported{'' if wrong.endswith('Ref') else ' within a schema'}: remove it"
            )


class _Applying(_Fuel):
    """Follows every way down a value, with the subschemas that apply there, each as often as it does.

    What applies at a place is a multiset of subschemas. Where a schema leads back to itself once, the same multiset
    comes again, and the walk ends; where it leads back twice to the same place, the multisets grow until the fuel is
    out, as a validator's work would with the depth of the value.
    """

    def __init__(self, root: Any) -> None:
        super().__init__(root)
        self._states = 0

    def walk(self) -> int:
        waiting, seen = [_schemas([self._root])], set[tuple[int, ...]]()
        while waiting:
            applied = self._applied(waiting.pop())
            for below in self._below(applied):
                self._spend(len(below))
                key = tuple(sorted(map(id, below)))
                if key not in seen:
                    seen.add(key)
                    waiting.append(below)
        return self._spent + self._states

    def _applied(self, start: list[Any]) -> list[Schema]:
        found, waiting = list[Schema](), start
        while waiting:
            schema = waiting.pop()
            patterns = [*_map(schema, "patternProperties"), *([schema["pattern"]] if "pattern" in schema else [])]
            self._spend(1 + _PATTERN_STEPS * len(patterns))
            self._states += sum(map(_states, patterns))
            found.append(schema)
            again = _AGAIN ** len(_UNEVALUATED & schema.keys())
            waiting += [sub for word in _SAME_PLACE & schema.keys() for sub in self._here(schema, word)] * again
        return found

    def _here(self, schema: Schema, word: str) -> list[Schema]:
        value = schema[word]
        if word == "$ref":
            return _schemas([_find_strictly(self._root, value)])
        if word in _MAPS:
            return _schemas(_map(schema, word).values())
        return _schemas(value if isinstance(value, list) else [value])

    def _below(self, applied: list[Schema]) -> Iterator[list[Schema]]:
        yield _schemas(schema.get("propertyNames") for schema in applied)
        for places in (_members, _entries):
            named: dict[str | int, list[Schema]] = {}
            wild: list[_Wild] = []
            for schema in applied:
                exact, others = places(schema)
                wild += others
                for name, sub in exact.items():
                    named.setdefault(name, []).extend(_schemas([sub]))
            for name, subs in named.items():
                self._spend(1 + len(wild))
                yield subs + [sub for covered, sub in wild if name not in covered]
            yield [sub for _, sub in wild]


def _members(schema: Schema) -> tuple[Schema, list[_Wild]]:
    """Return what applies to an object's members: by their names, and to all but those of some names."""
    named = _map(schema, "properties")
    wild: list[_Wild] = [(named, sub) for sub in _schemas([schema.get("additionalProperties")])]
    everywhere = [*_map(schema, "patternProperties").values(), schema.get("unevaluatedProperties")]
    return named, wild + [((), sub) for sub in _schemas(everywhere)]


def _entries(schema: Schema) -> tuple[dict[int, Any], list[_Wild]]:
    """Return what applies to a list's entries: by their index, and to those after."""
    named = dict(enumerate(_list(schema, "items") or _list(schema, "prefixItems")))
    after = _schemas(map(schema.get, ("items", "additionalItems")))
    everywhere = _schemas(map(schema.get, ("contains", "unevaluatedItems")))
    return named, [(named, sub) for sub in after] + [((), sub) for sub in everywhere]


def _schemas(values: Iterable[Any]) -> list[Schema]:
    """Return those of *values* that are objects: true and false are schemas, too, that make no work."""
    return [each for each in values if isinstance(each, dict)]


def _states(pattern: Any) -> int:
    """Return how many states a regular expression has, at most; repeats may be within repeats."""
    text = str(pattern)
    repeats = (max(int(least), int(most or 0)) for least, most in _COUNTED.findall(text))
    return min(math.prod((len(text), *(max(each, 1) for each in repeats))), _LARGEST_PATTERN)


def _map(schema: Schema, word: str) -> Schema:
    value = schema.get(word)
    return value if isinstance(value, dict) else {}


def _list(schema: Schema, word: str) -> list[Any]:
    value = schema.get(word)
    return value if isinstance(value, list) else []


def _has_parts(value: Any) -> bool:
    return isinstance(value, dict | list | str)


def _find(root: Any, ref: str) -> Any:
    """Return what a reference within the schema leads to, or None."""
    node = root
    for part in ref.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node


def _find_strictly(root: Any, ref: Any) -> Any:
    if not isinstance(ref, str) or "%" in ref or not (ref == "#" or ref.startswith("#/")):
        raise SchemaRefused(f"write the reference {str(ref)[:100]!r} as a place in this schema, such as #/$defs/name")
    found = _find(root, ref)
    if found is None:
        raise SchemaRefused(f"the reference {ref[:100]!r} leads nowhere: there is no such place in this schema")
    return found
