"""The string formats a CRD may ask for. Formats that are not here are not checked, as in Kubernetes."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Final

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_LONG_DURATION = re.compile(r"\s*(\d+)\s*(ns|us|ms|s|sec|secs|min|h|hr|hour|hours|d|day|days|w|week|weeks)\s*")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_URI = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*:|/)\S+")
_HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)([A-Za-z0-9_]([A-Za-z0-9\-_]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9\-_]{0,61}[A-Za-z0-9_])?)*\.?"
)
_EMAIL = re.compile(r"[^@\s<>]+@[^@\s<>]+|[^<>]*<[^@\s<>]+@[^@\s<>]+>")
_QUANTITY = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_UUID = re.compile(r"(?i)[0-9A-F]{8}-?[0-9A-F]{4}-?[0-9A-F]{4}-?[0-9A-F]{4}-?[0-9A-F]{12}")
_MAC = re.compile(r"(?i)([0-9a-f]{2}[:-]){5}[0-9a-f]{2}|([0-9a-f]{4}\.){2}[0-9a-f]{4}")


def parse_duration(text: str) -> timedelta | None:
    """Return what Go's ParseDuration makes of *text*, or None."""
    if text in {"0", "+0", "-0"}:
        return timedelta()
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    seconds, end = 0.0, 0
    for hit in _DURATION.finditer(rest):
        if hit.start() != end or rest[hit.start()] in "+-":
            return None
        seconds, end = seconds + float(hit[1]) * _SECONDS[hit[3]], hit.end()
    return timedelta(seconds=sign * seconds) if end and end == len(rest) else None


def parse_time(text: str) -> datetime | None:
    """Return the RFC 3339 time *text*, or None."""
    if not _DATE_TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper()))
    except ValueError:
        return None


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _is_duration(text: str) -> bool:
    return parse_duration(text) is not None or _LONG_DURATION.fullmatch(text) is not None


FORMATS: Final[dict[str, Callable[[str], bool]]] = {
    "date-time": lambda text: parse_time(text) is not None,
    "datetime": lambda text: parse_time(text) is not None,
    "date": _parses(lambda text: date.fromisoformat(text) if len(text) == len("2006-01-02") else int("x")),
    "duration": _is_duration,
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "uri": lambda text: _URI.fullmatch(text) is not None,
    "email": lambda text: _EMAIL.fullmatch(text) is not None,
    "hostname": lambda text: _HOSTNAME.fullmatch(text) is not None,
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(lambda text: ipaddress.ip_network(text, strict=False) if "/" in text else int("x")),
    "mac": lambda text: _MAC.fullmatch(text) is not None,
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
    "quantity": lambda text: _QUANTITY.fullmatch(text) is not None,
}
