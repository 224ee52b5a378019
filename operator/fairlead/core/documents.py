"""Strict YAML: every value with its place, and nothing that reads differently than it looks.

Values are JSON's. Plain words resolve as kubectl resolves them (``on`` is true), and the place keeps what was written,
so that a message can say so. Duplicate keys, alias bombs, tags and tabs are refused, size and depth are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from fairlead.core.mistakes import Path, Problem, to_text

MAX_BYTES: Final = 256 * 1024
"""Client-side `kubectl apply` keeps a copy in an annotation, which may not be larger."""
MAX_TEXT_BYTES: Final = 8 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 100_000
"""Values in one document, those that aliases repeat included."""

_TRUE: Final = frozenset(["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"])
_FALSE: Final = frozenset(["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"])
_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_OTHER_BASE: Final = re.compile(r"([-+]?)0(x[0-9a-fA-F]{1,15}|o?[0-7]{1,20}|b[01]{1,60})")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MOST_DIGITS: Final = 20
_LARGEST: Final = 2**63 - 1
_BASES: Final = {"x": 16, "o": 8, "b": 2}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is, counted from 1, and how a plain word was written that is no text."""

    line: int
    column: int
    written: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file. *keys* and *values* have the places of keys and values by their path."""

    value: Any
    file: str = ""
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Return where *path* is, or the nearest thing around it that is there."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Place(0, 0))

    def written(self, path: Path) -> str:
        """Return the plain word that stands at *path*, when it is no text; else an empty text."""
        place = self.values.get(path)
        return place.written if place else ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a text holds: its documents up to the first mistake, and the mistakes."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...] = ()


class _Mistake(Exception):
    """A mistake in the text; ends the loading."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def load_documents(text: str, file: str = "") -> Loaded:
    """Read every document of *text*. Empty documents are left out."""
    if len(text.encode()) > MAX_TEXT_BYTES:
        message = f"the file has {len(text.encode()) // 1024} KiB, at most {MAX_TEXT_BYTES // 1024} are read"
        return Loaded((), (Problem("", message, "split it, or keep data elsewhere", file=file),))
    documents: list[Document] = []
    try:
        documents.extend(document for document in _Reader(text, file).documents() if document.value is not None)
    except _Mistake as mistake:
        return Loaded(tuple(documents), (mistake.problem,))
    except yaml.YAMLError as error:
        return Loaded(tuple(documents), (_syntax(error, text, file),))
    return Loaded(tuple(documents))


def _syntax(error: yaml.YAMLError, text: str, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    lines = text.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return Problem("", "a tab cannot indent YAML", "use spaces", file=file, line=line, column=column)
    fix = "put the text in quotes if it holds `: `, `#`, `{`, `*` or `&`" if here.strip() else ""
    return Problem("", f"not YAML: {said}", fix, file=file, line=line, column=column)


class _Reader:
    """Builds values from the parser's events, so that nothing is built that was not counted first."""

    def __init__(self, text: str, file: str) -> None:
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        self._events: Iterator[Any] = yaml.parse(text, Loader=loader)
        self._file = file
        self._text = text

    def documents(self) -> Iterator[Document]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._document = Document(None, self._file)
                self._anchors: dict[str, tuple[Any, int]] = {}
                self._count = 0
                self._flow = 0
                first = next(self._events)
                value = self._value(first, ())
                self._check_size(first.start_mark, next(self._events).end_mark)
                yield Document(value, self._file, self._document.keys, self._document.values)

    def _check_size(self, start: Any, end: Any) -> None:
        size = len(self._text[start.index : end.index].encode())
        if size > MAX_BYTES:
            self._fail(
                start,
                f"the document has {size // 1024} KiB, at most {MAX_BYTES // 1024} can be applied",
                "use forEach instead of many similar nodes, and keep data in a ConfigMap or behind a URL",
            )

    def _fail(self, mark: Any, message: str, fix: str, path: Path = ()) -> NoReturn:
        problem = Problem(to_text(path), message, fix, file=self._file, line=mark.line + 1, column=mark.column + 1)
        raise _Mistake(problem)

    def _value(self, event: Any, path: Path) -> Any:
        before = self._count
        self._add(1, event)
        if len(path) > MAX_DEPTH:
            self._fail(event.start_mark, f"values are nested more than {MAX_DEPTH} deep", "make it flatter", path[:5])
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        tag = getattr(event, "tag", None)
        if tag and tag not in _TAGS:
            self._fail(event.start_mark, f"the tag {tag} is not read", "remove it", path)
        mark = event.start_mark
        self._document.values[path] = Place(mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        else:
            self._flow += bool(event.flow_style)
            value = self._list(path) if isinstance(event, yaml.SequenceStartEvent) else self._map(path)
            self._flow -= bool(event.flow_style)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._count - before)
        return value

    def _add(self, count: int, event: Any) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            fix = "write less, or fewer aliases of aliases"
            self._fail(event.start_mark, f"the document has more than {MAX_VALUES} values with its aliases", fix)

    def _alias(self, event: Any, path: Path) -> Any:
        if event.anchor not in self._anchors:
            self._fail(event.start_mark, f"*{event.anchor} refers to nothing before it", "set the anchor first", path)
        value, size = self._anchors[event.anchor]
        self._add(size, event)
        self._document.values[path] = Place(event.start_mark.line + 1, event.start_mark.column + 1)
        return value

    def _list(self, path: Path) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*path, len(found))))
        return found

    def _map(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            if key == "<<" and event.implicit[0]:
                merged = self._merge(next(self._events), path) | merged
                continue
            if key in found:
                line = self._document.keys[(*path, key)].line
                message = f'the key "{key}" is there twice (before in line {line}); the first would be lost'
                self._fail(event.start_mark, message, "remove one of them", (*path, key))
            self._document.keys[(*path, key)] = Place(event.start_mark.line + 1, event.start_mark.column + 1)
            found[key] = self._value(next(self._events), (*path, key))
        return merged | found

    def _key(self, event: Any, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            fix = "put a text that begins with { or [ in quotes"
            self._fail(event.start_mark, "a key must be a text", fix, path)
        self._add(1, event)
        self._check_flow(event, path)
        plain = event.implicit[0]
        if plain and event.value in (_TRUE | _FALSE | _NULL):
            message = f"the key {event.value or '(nothing)'} is no text in YAML, it means {_word(event.value)}"
            self._fail(event.start_mark, message, f'write it in quotes: "{event.value}"', path)
        return str(event.value)

    def _check_flow(self, event: Any, path: Path) -> None:
        """Refuse what kubectl's YAML library cannot read, though ours can."""
        if self._flow and event.implicit[0] and "?" in event.value:
            message = "kubectl cannot read a plain text with ? between { } or [ ]"
            self._fail(event.start_mark, message, f'put it in quotes: "{event.value}"', path)

    def _merge(self, event: Any, path: Path) -> dict[str, Any]:
        value = self._value(event, (*path, "<<"))
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            self._fail(event.start_mark, "<< merges mappings", "let it refer to a mapping", path)
        return {key: item for part in reversed(parts) for key, item in part.items()}

    def _scalar(self, event: Any, path: Path) -> Any:
        text = event.value
        if not event.implicit[0]:
            return text
        self._check_flow(event, path)
        if _NOT_FINITE.fullmatch(text):
            self._fail(event.start_mark, f"{text} is a number that JSON does not have", "put it in quotes", path)
        value = _resolve(text)
        if not isinstance(value, str):
            mark = event.start_mark
            self._document.values[path] = Place(mark.line + 1, mark.column + 1, text)
        return value


_TAGS: Final = frozenset(("!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))))


def _word(text: str) -> str:
    return "true" if text in _TRUE else "false" if text in _FALSE else "null"


def _resolve(text: str) -> Any:
    """Return what a plain word means, as kubectl reads it."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _DECIMAL.fullmatch(text):
        number = int(text.replace("_", "")) if len(text) <= _MOST_DIGITS else None
        # as kubectl does: what does not fit into 64 bits becomes floating point
        return number if number is not None and -_LARGEST <= number <= _LARGEST else _float(text)
    if other := _OTHER_BASE.fullmatch(text):
        digits = other[2].replace("_", "")
        base = _BASES.get(digits[0], 8)
        return int(f"{other[1]}{digits[1:] if digits[0] in _BASES else digits}", base)
    return _float(text) if _FLOAT.fullmatch(text) else text


def _float(text: str) -> float | str:
    number = float(text.replace("_", ""))
    return number if math.isfinite(number) else text
