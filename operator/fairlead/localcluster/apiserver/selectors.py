"""Label and field selectors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fairlead.localcluster.apiserver.errors import Json, bad_request

_NAME = r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9]?[A-Za-z0-9._-]*"
_SET = re.compile(rf"^(?P<key>{_NAME})\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_COMPARE = re.compile(rf"^(?P<key>{_NAME})\s*(?P<op>==|=|!=|>|<)\s*(?P<value>{_VALUE})$")
_EXISTS = re.compile(rf"^(?P<op>!?)\s*(?P<key>{_NAME})$")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a label selector, in the operators of ``matchExpressions`` plus Gt and Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether *labels* satisfy it."""
        value = labels.get(self.key)
        match self.operator:
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case _:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        if value is None or not value.lstrip("-").isdigit():
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator == "Gt" else int(value) < bound


def parse_labels(selector: str) -> tuple[Requirement, ...]:
    """Parse ``a=b,c!=d,e in (x,y),!f``.

    Raises:
        ApiError: 400.
    """
    terms = [term.strip() for term in re.split(r",(?![^()]*\))", selector)]
    return tuple(_requirement(term) for term in terms if term)


_OPERATORS = {"=": "In", "==": "In", "!=": "NotIn", "in": "In", "notin": "NotIn", ">": "Gt", "<": "Lt"}


def _requirement(term: str) -> Requirement:
    if found := _SET.match(term):
        values = tuple(value.strip() for value in found["values"].split(","))
        return Requirement(found["key"], _OPERATORS[found["op"]], values)
    if found := _COMPARE.match(term):
        if found["op"] in "<>" and not found["value"].isdigit():
            raise bad_request(
                f"unable to parse requirement: for 'Gt', 'Lt' operators, the value must be an integer: {term}"
            )
        return Requirement(found["key"], _OPERATORS[found["op"]], (found["value"],))
    if found := _EXISTS.match(term):
        return Requirement(found["key"], "DoesNotExist" if found["op"] else "Exists")
    raise bad_request(f"unable to parse requirement: {term!r} is not a label selector")


def requirements_of(selector: Json) -> tuple[Requirement, ...]:
    """Return the terms of a ``LabelSelector`` object."""
    plain = [Requirement(key, "In", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    expressions = [
        Requirement(each["key"], each["operator"], tuple(each.get("values") or ()))
        for each in selector.get("matchExpressions") or []
    ]
    return tuple(plain + expressions)


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One term of a field selector."""

    path: str
    equal: bool
    value: str

    def matches(self, obj: Json) -> bool:
        """Tell whether the object's field is (not) the value."""
        return (field_text(obj, self.path) == self.value) is self.equal


def field_text(obj: Json, path: str) -> str:
    """Return a field as a selector sees it: absent is empty, booleans are words."""
    value: Any = obj
    if path == "source" and isinstance(obj.get("source"), dict):
        path = "source.component"
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return "false" if path in {"spec.hostNetwork", "spec.unschedulable"} else ""
    return str(value).lower() if isinstance(value, bool) else str(value)


_FIELD_TERM = re.compile(r"^(?P<path>[^=!]+)(?P<op>==|!=|=)(?P<value>.*)$")


def parse_fields(selector: str) -> tuple[FieldTerm, ...]:
    """Parse ``metadata.name=x,spec.nodeName!=y``.

    Raises:
        ApiError: 400.
    """
    terms = []
    for term in re.split(r"(?<!\\),", selector):
        if not term:
            continue
        found = _FIELD_TERM.match(term)
        if found is None:
            raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
        value = re.sub(r"\\([\\,=])", r"\1", found["value"])
        terms.append(FieldTerm(found["path"], found["op"] != "!=", value))
    return tuple(terms)


@dataclass(frozen=True, slots=True)
class Selection:
    """Both selectors of a list or watch."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldTerm, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, obj: Json) -> bool:
        """Tell whether the object is selected."""
        labels = obj["metadata"].get("labels") or {}
        return all(term.matches(labels) for term in self.labels) and all(term.matches(obj) for term in self.fields)


def parse_selection(labels: str, fields: str, *, known: tuple[str, ...]) -> Selection:
    """Parse both selectors; *known* are the fields that may be named besides name and namespace.

    Raises:
        ApiError: 400.
    """
    terms = parse_fields(fields)
    for term in terms:
        if term.path not in {"metadata.name", "metadata.namespace", *known}:
            raise bad_request(_unknown_field(term.path, labels, fields, known=known))
    return Selection(parse_labels(labels), terms)


def _unknown_field(path: str, labels: str, fields: str, *, known: tuple[str, ...]) -> str:
    problem = (
        f"field label not supported: {path}"
        if known
        else f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'
    )
    return f'Unable to find objects that match label selector "{labels}", field selector "{fields}": {problem}'
