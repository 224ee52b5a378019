"""The pod's own log: one JSON object a line on standard output. What is passed in must not be secret."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any


def now() -> datetime:
    """Return the wall-clock time, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the agent's one place


def write(event: str, *, level: str = "info", **keys: Any) -> None:
    """Write one line. *event* is a constant; empty keys are left out."""
    line = {"at": now().isoformat(timespec="milliseconds").replace("+00:00", "Z"), "level": level, "event": event}
    line |= {key: value for key, value in keys.items() if value not in (None, "")}
    sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()
