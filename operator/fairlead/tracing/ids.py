"""Ids of traces and spans, as OpenTelemetry has them: 16 and 8 bytes in hexadecimal."""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import lru_cache
from typing import Final

SUSPENSION: Final = "suspension"
"""The kind of the span of a time that a run was suspended."""


def trace_id(run_uid: str) -> str:
    """Return the id of a run's trace."""
    return hashlib.sha256(run_uid.encode()).hexdigest()[:32]


def span_id(run_uid: str, *parts: str | int) -> str:
    """Return the id of a part of a run: of its root without *parts*, of a node, an item or a call with them."""
    text = "\x00".join((run_uid, *map(str, parts)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def node_span_id(run_uid: str, node: str, item: str | None, iteration: int) -> str:
    """Return the id of a node's span, or of one of its items'."""
    return span_id(run_uid, "node", node, iteration, *(() if item is None else ("item", item)))


def turn_span_id(run_uid: str, task_id: str) -> str:
    """Return the id of the span of an agent's turn, which is a task of its own."""
    return span_id(run_uid, "turn", task_id)


def suspension_span_id(run_uid: str, since: datetime) -> str:
    """Return the id of the span of a time that a run was suspended."""
    return span_id(run_uid, "suspension", since.isoformat())


def call_span_id(run_uid: str, key: str, turn: str = "") -> str:
    """Return the id of a call's span; *turn* is the id of the task of an agent's turn that made it."""
    return span_id(run_uid, "call", key, *((turn,) if turn else ()))
