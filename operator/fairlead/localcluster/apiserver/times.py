"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import datetime

from fairlead.clock import Clock


def now_text(clock: Clock) -> str:
    """Return the present second in RFC 3339."""
    return to_text(clock.now())


def to_text(moment: datetime) -> str:
    """Return a UTC time in RFC 3339."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Parse RFC 3339, with or without a fraction."""
    return datetime.fromisoformat(text)
