"""CEL functions that Kubernetes offers and the library does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

import cel
from cel.stdlib import add_stdlib_to_context

from fairlead.localcluster.schema.errors import text

SIZE: Final = "size_in_characters"
"""Our name for ``size``: the library counts the bytes of a text, CEL its characters."""


def _index_of(value: Any, wanted: Any, start: int = 0) -> int:
    if isinstance(value, str):
        return value.find(wanted, start)
    return next((index for index, item in enumerate(value) if item == wanted), -1)


def _last_index_of(value: Any, wanted: Any, start: int | None = None) -> int:
    if isinstance(value, str):
        return value.rfind(wanted) if start is None else value.rfind(wanted, 0, start + len(wanted))
    return next((index for index in range(len(value) - 1, -1, -1) if value[index] == wanted), -1)


def _is_sorted(values: list[Any]) -> bool:
    return all(left <= right for left, right in pairwise(values))


def _find(value: str, pattern: str) -> str:
    hit = re.search(pattern, value, re.ASCII)
    return hit[0] if hit else ""


def _find_all(value: str, pattern: str, limit: int = -1) -> list[str]:
    hits = [hit[0] for hit in re.finditer(pattern, value, re.ASCII)]
    return hits if limit < 0 else hits[:limit]


def _format(template: str, values: list[Any]) -> str:
    rest = iter(values)

    def show(hit: re.Match[str]) -> str:
        if hit[0] == "%%":
            return "%"
        value = next(rest)
        if hit[2] == "f":
            return f"{value:.{hit[1] or 6}f}"
        if hit[2] in "xXob" and isinstance(value, int):
            return format(value, hit[2])
        return _string(value)

    return re.sub(r"%%|%(?:\.(\d+))?([sdfeboxX])", show, template)


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float | dict | list) or value is None:
        return text(value) if value is not None else "null"
    return str(value)


def _url(value: str) -> SplitResult | None:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return None
    absolute = bool(parts.scheme) and bool(parts.netloc or parts.path)
    return parts if absolute or value.startswith("/") else None


def _is_url(value: str) -> bool:
    return _url(value) is not None


def _checked_url(value: str) -> dict[str, Any]:
    parts = _url(value)
    if parts is None:
        raise ValueError(f"URL parse error during conversion from string: {value}")
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = str(parts.port) if parts.port is not None else ""
    return {
        "scheme": parts.scheme,
        "host": f"{host}:{port}" if port else host,
        "hostname": parts.hostname or "",
        "port": port,
        "path": parts.path,
        "query": parse_qs(parts.query),
    }


def _part(name: str) -> Callable[[Any], Any]:
    return lambda parsed: parsed[name]


OWN_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        SIZE: len,
        "string": _string,
        "indexOf": _index_of,
        "lastIndexOf": _last_index_of,
        "isSorted": _is_sorted,
        "find": _find,
        "findAll": _find_all,
        "format": _format,
        "isURL": _is_url,
        "url": _checked_url,
        "getScheme": _part("scheme"),
        "getHost": _part("host"),
        "getHostname": _part("hostname"),
        "getPort": _part("port"),
        "getEscapedPath": _part("path"),
        "getQuery": _part("query"),
    }
)


@cache
def kubernetes_functions() -> Mapping[str, Callable[..., Any]]:
    """Return all functions a rule may call besides those built into the library."""
    whole = cel.Context()
    add_stdlib_to_context(whole)
    return MappingProxyType(dict(whole.functions) | dict(OWN_FUNCTIONS))
