"""Ages as kubectl prints them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from fairlead.localcluster.schema.formats import parse_time

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_YEAR: Final = 365 * _DAY

_STEPS: Final = (
    (2 * _MINUTE, 1, "s", 0, ""),
    (10 * _MINUTE, _MINUTE, "m", 1, "s"),
    (3 * _HOUR, _MINUTE, "m", 0, ""),
    (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
    (2 * _DAY, _HOUR, "h", 0, ""),
    (8 * _DAY, _DAY, "d", _HOUR, "h"),
    (2 * _YEAR, _DAY, "d", 0, ""),
    (8 * _YEAR, _YEAR, "y", _DAY, "d"),
)
"""Below the limit: whole units, and the rest in a smaller unit where there is one."""


def age(since: str, now: str) -> str:
    """Return the time from *since* to *now* (RFC 3339), ``<invalid>`` when one is no time."""
    start, end = parse_time(since), parse_time(now)
    if start is None or end is None:
        return "<invalid>"
    return human(_seconds(start, end))


def _seconds(start: datetime, end: datetime) -> int:
    return int((end - start).total_seconds())


def human(seconds: int) -> str:
    """Return a duration with the precision its size deserves: 45s, 5m10s, 15m, 3h5m, 2d3h, 10d, 2y45d."""
    if seconds < 0:
        return "0s" if seconds >= -1 else "<invalid>"
    for limit, unit, name, part, part_name in _STEPS:
        if seconds < limit:
            rest = seconds % unit // part if part else 0
            return f"{seconds // unit}{name}" + (f"{rest}{part_name}" if rest else "")
    return f"{seconds // _YEAR}y"
