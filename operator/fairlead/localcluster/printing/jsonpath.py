"""The JSONPath of printer columns and selectable fields: fields, indexes, slices, filters; no functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

Step = Callable[[Any], Iterator[Any]]

_FIELD = re.compile(r"\.((?:[A-Za-z0-9_\-$]|\\.)+)")
_QUOTED = re.compile(r"""\[\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*\]""")
_INDEX = re.compile(r"\[\s*(-?\d+)\s*\]")
_SLICE = re.compile(r"\[\s*(-?\d*)\s*:\s*(-?\d*)\s*(?::\s*(-?\d+)\s*)?\]")
_ALL = re.compile(r"\.\*|\[\s*\*\s*\]")
_DEEP = re.compile(r"\.\.((?:[A-Za-z0-9_\-]|\\.)+|\*)")
_FILTER = re.compile(r"\[\?\(\s*@((?:\.[A-Za-z0-9_\-]+|\[[^\]]+\])*)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?))?\s*\)\]")
_LITERAL: Final = {"true": True, "false": False, "null": None}
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


class JSONPathError(ValueError):
    """The text is no JSONPath of the kind printer columns may use."""


@lru_cache(maxsize=2048)
def parse(path: str) -> tuple[Step, ...]:
    """Compile a path such as ``.status.conditions[?(@.type=="Ready")].status``.

    Raises:
        JSONPathError: with the place that cannot be read.
    """
    if not path.startswith((".", "[")):
        raise JSONPathError(f"is not a valid json path: {path!r} must start with '.'")
    steps: list[Step] = []
    position = 0
    while position < len(path):
        step, position = _next(path, position)
        steps.append(step)
    return tuple(steps)


def find(path: str, value: Any) -> list[Any]:
    """Return all values at *path*; absent fields give none."""
    values = [value]
    for step in parse(path):
        values = [found for item in values for found in step(item)]
    return values


def _next(path: str, position: int) -> tuple[Step, int]:
    for pattern, build in _STEPS:
        hit = pattern.match(path, position)
        if hit is not None:
            return build(hit), hit.end()
    raise JSONPathError(f"is not a valid json path: unexpected {path[position:]!r}")


def _field(hit: re.Match[str]) -> Step:
    name = next(group for group in hit.groups() if group is not None)
    key = re.sub(r"\\(.)", r"\1", name)
    return lambda value: iter([value[key]] if isinstance(value, dict) and key in value else [])


def _index(hit: re.Match[str]) -> Step:
    index = int(hit[1])

    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _slice(hit: re.Match[str]) -> Step:
    part = slice(*(int(group) if group else None for group in hit.groups()))
    return lambda value: iter(value[part] if isinstance(value, list) else [])


def _everything(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _descendants(value: Any) -> Iterator[Any]:
    yield value
    for child in _everything(value):
        yield from _descendants(child)


def _deep(hit: re.Match[str]) -> Step:
    name = hit[1]

    def step(value: Any) -> Iterator[Any]:
        for node in _descendants(value):
            if name == "*":
                yield from _everything(node)
            elif isinstance(node, dict) and name in node:
                yield node[name]

    return step


def _filter(hit: re.Match[str]) -> Step:
    inner, operator, literal = hit.groups()
    left = parse(inner) if inner else ()
    wanted = _literal(literal) if operator else None

    def fits(item: Any) -> bool:
        values = [item]
        for one in left:
            values = [found for value in values for found in one(value)]
        if not operator:
            return bool(values)
        try:
            return any(_COMPARE[operator](value, wanted) for value in values)
        except TypeError:
            return False

    return lambda value: (item for item in _everything(value) if fits(item))


def _literal(text: str) -> Any:
    if text in _LITERAL:
        return _LITERAL[text]
    if text[:1] in {'"', "'"} and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise JSONPathError(f"is not a valid json path: unrecognized character in action: {text!r}") from None


_STEPS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Step]], ...]] = (
    (_ALL, lambda _: _everything),
    (_DEEP, _deep),
    (_FIELD, _field),
    (_QUOTED, _field),
    (_INDEX, _index),
    (_SLICE, _slice),
    (_FILTER, _filter),
)
