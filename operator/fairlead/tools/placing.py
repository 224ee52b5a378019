"""Where the arguments of an HTTP Tool go: into the address, the query or the body, by their names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import orjson

from fairlead.api.v1alpha1.tool import HttpCall, ToolSpec
from fairlead.tools.base import ToolFailed

_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")
_IN_QUERY: Final = frozenset({"GET", "HEAD", "DELETE"})
"""Methods whose arguments go into the query unless the Tool says otherwise."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A request, but for its headers."""

    url: str
    body: bytes | None


def parameters_of(spec: ToolSpec) -> Mapping[str, Any]:
    """Return the JSON Schema of the arguments of an HTTP Tool: as written, or a text for every name in it."""
    if spec.parameters is not None:
        return spec.parameters
    call = spec.http
    known = [] if call is None else [*_PLACE.findall(call.url), *(call.query or ()), *(call.body or ())]
    names = list(dict.fromkeys(known))
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": names,
        "additionalProperties": False,
    }


def place(call: HttpCall, arguments: Mapping[str, Any]) -> Placed:
    """Return the request that a Tool makes of *arguments*.

    Raises:
        ToolFailed: an argument has no place, or would lead to another one.
    """
    parts = urlsplit(call.url)
    if _PLACE.search(parts.netloc):
        raise ToolFailed("the host of http.url cannot be an argument: write it out", reason="InvalidArguments")
    path = "/".join(_segment(segment, arguments) for segment in parts.path.split("/"))
    fixed = _PLACE.sub(lambda found: quote(_text(arguments.get(found[1])), safe=""), parts.query)
    used = set(_PLACE.findall(call.url))
    in_query, in_body = _split(call, [name for name in arguments if name not in used])
    asked = urlencode([(name, text) for name in in_query for text in _texts(arguments[name])])
    body = orjson.dumps({name: arguments[name] for name in in_body}) if in_body else None
    return Placed(urlunsplit((parts.scheme, parts.netloc, path, "&".join(filter(None, (fixed, asked))), "")), body)


def _split(call: HttpCall, names: Iterable[str]) -> tuple[list[str], list[str]]:
    query, body, lost = list[str](), list[str](), list[str]()
    for name in names:
        if name in (call.query or ()):
            query.append(name)
        elif name in (call.body or ()):
            body.append(name)
        elif call.method in _IN_QUERY and call.query is None:
            query.append(name)
        elif call.method not in _IN_QUERY and call.body is None:
            body.append(name)
        else:
            lost.append(name)
    if lost:
        raise ToolFailed(
            f"the Tool has no place for {', '.join(lost)}: name them in http.query or http.body",
            reason="InvalidArguments",
        )
    return query, body


def _segment(segment: str, arguments: Mapping[str, Any]) -> str:
    """Fill in a part of the path; it stays one part, and never one that leads up."""
    names = _PLACE.findall(segment)
    filled = _PLACE.sub(lambda found: _text(arguments.get(found[1])), segment)
    if names and filled in ("", ".", ".."):
        raise ToolFailed(f"the argument {names[0]} cannot be a part of the address", reason="InvalidArguments")
    return _PLACE.sub(lambda found: quote(_text(arguments.get(found[1])), safe=""), segment)


def _texts(value: Any) -> list[str]:
    """Return a value of the query: none for null, one for each entry of a list."""
    if value is None:
        return []
    return [_text(part) for part in value] if isinstance(value, list) else [_text(value)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
