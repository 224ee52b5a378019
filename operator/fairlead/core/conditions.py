"""Builds and merges status conditions the way kstatus and `kubectl wait` read them. Time is passed in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason

MAX_MESSAGE: Final = 2000
"""Characters of a condition's message: three of them fit well into a status of 8 KiB."""
_ONLY_WHILE_TRUE: Final = frozenset(
    {ConditionType.WAITING_FOR_APPROVAL, ConditionType.RECONCILING, ConditionType.STALLED}
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition as the operator decides it: without the time, which `merge` knows."""

    type: str
    status: str
    reason: str
    message: str
    generation: int


def ready(reason: Reason, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Return the conditions of an object that can be used."""
    return (Condition(ConditionType.READY, "True", reason, message, generation),)


def progressing(summary: ConditionType, reason: Reason, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Return the conditions of an object that gets there by itself: Ready is False then, Succeeded is Unknown."""
    status = "Unknown" if summary is ConditionType.SUCCEEDED else "False"
    return (
        Condition(summary, status, reason, message, generation),
        *_finished(summary, "False", reason, generation=generation),
        Condition(ConditionType.RECONCILING, "True", reason, message, generation),
    )


def stalled(summary: ConditionType, reason: str, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Return the conditions of an object that stays as it is until a person changes something."""
    return (
        Condition(summary, "False", reason, message, generation),
        *_finished(summary, "True", reason, generation=generation),
        Condition(ConditionType.STALLED, "True", reason, message, generation),
    )


def succeeded(message: str, *, generation: int, reason: str = Reason.SUCCEEDED) -> tuple[Condition, ...]:
    """Return the conditions of a run that ended as it should."""
    return (
        Condition(ConditionType.SUCCEEDED, "True", reason, message, generation),
        *_finished(ConditionType.SUCCEEDED, "True", reason, generation=generation),
    )


def waiting_for_approval(message: str, *, generation: int) -> Condition:
    """Return the condition of a run that people have to decide about."""
    kind = ConditionType.WAITING_FOR_APPROVAL
    return Condition(kind, "True", Reason.APPROVAL_PENDING, message, generation)


def _finished(summary: ConditionType, status: str, reason: str, *, generation: int) -> tuple[Condition, ...]:
    if summary is not ConditionType.SUCCEEDED:
        return ()
    message = "The run has ended." if status == "True" else "The run has not ended yet."
    return (Condition(ConditionType.FINISHED, status, reason, message, generation),)


def merge(existing: Sequence[dict[str, Any]], wanted: Iterable[Condition], *, now: datetime) -> list[dict[str, Any]]:
    """Return the conditions to write: *wanted* over *existing*, with `lastTransitionTime` moved only with `status`.

    *existing* are the object's conditions on the wire. Those that are not wanted stay, but for WaitingForApproval,
    Reconciling and Stalled, which are only there while they are True. *now* has a time zone.
    """
    before = {condition.get("type"): condition for condition in existing}
    changed = {condition.type: _wire(condition, before.get(condition.type), now=now) for condition in wanted}
    kept = {
        str(name): condition
        for name, condition in before.items()
        if name not in changed and name not in _ONLY_WHILE_TRUE
    }
    merged = kept | {name: c for name, c in changed.items() if name not in _ONLY_WHILE_TRUE or c["status"] == "True"}
    return [merged[name] for name in sorted(merged, key=_rank)]


def _rank(name: str) -> tuple[int, str]:
    order = list(ConditionType)
    return (order.index(ConditionType(name)) if name in order else len(order), name)


def _wire(condition: Condition, before: dict[str, Any] | None, *, now: datetime) -> dict[str, Any]:
    moved = before is None or before.get("status") != condition.status or not before.get("lastTransitionTime")
    return {
        "type": str(condition.type),
        "status": condition.status,
        "reason": str(condition.reason),
        "message": shortened(condition.message),
        "observedGeneration": condition.generation,
        "lastTransitionTime": rfc3339(now) if moved or before is None else before["lastTransitionTime"],
    }


def shortened(message: str) -> str:
    """Return *message*, cut to what a condition may hold."""
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 2]} …"


def rfc3339(time: datetime) -> str:
    """Return *time* as Kubernetes writes it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find(conditions: Iterable[dict[str, Any]], condition_type: str) -> dict[str, Any] | None:
    """Return the condition of a type, or None."""
    return next((condition for condition in conditions if condition.get("type") == condition_type), None)


def is_true(conditions: Iterable[dict[str, Any]], condition_type: str) -> bool:
    """Return whether a condition is there and True."""
    found = find(conditions, condition_type)
    return found is not None and found.get("status") == "True"
