"""Writes the summary of a run: its status, under 8 KiB, from what storage knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson

from fairlead.api.conditions import ConditionType, EventReason, Reason
from fairlead.core import conditions, names
from fairlead.core.actions import Obj, Plan, meta, spec_of, status_of
from fairlead.core.conditions import Condition, rfc3339

_RESULT_BYTES: Final = 1024
_MESSAGE_BYTES: Final = 1000
_CURRENT: Final = 10
_PATH_BYTES: Final = 128
_ASKS: Final = 3
_ASK_BYTES: Final = 250
_REASON: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""What JSON would write in six characters each; line breaks and tabs stay."""
_PICO: Final = Decimal(10) ** 12


class Record(Protocol):
    """What storage knows of a run; `fairlead.storage.Run` is one."""

    # fmt: off
    @property
    def workflow(self) -> str: """The name of the Workflow, or empty."""
    @property
    def state(self) -> str: """``Queued``, ``Running``, ``Succeeded``, ``Failed`` or ``Cancelled``."""
    @property
    def reason(self) -> str: """Why it ended."""
    @property
    def message(self) -> str: """The same, for people."""
    @property
    def output(self) -> Any: """What it gave."""
    @property
    def cancel_reason(self) -> str: """Not empty: it is being cancelled."""
    @property
    def revision(self) -> str: """The digest of what was frozen."""
    @property
    def created_at(self) -> datetime: """When it was accepted."""
    @property
    def finished_at(self) -> datetime | None: """When it ended."""
    @property
    def done(self) -> int: """Finished nodes."""
    @property
    def total(self) -> int: """All nodes."""
    @property
    def current(self) -> tuple[str, ...]: """Nodes that run."""
    @property
    def attempt(self) -> int: """How often it was claimed."""
    @property
    def pod(self) -> str: """Who has it, or had it last."""
    @property
    def input_tokens(self) -> int: """Tokens sent."""
    @property
    def output_tokens(self) -> int: """Tokens received."""
    @property
    def cost(self) -> int: """Picodollars."""
    @property
    def unpriced_calls(self) -> int: """Calls without a price."""
    @property
    def scripted_calls(self) -> int: """Calls that a scripted model answered."""
    @property
    def suspended(self) -> bool: """Whether it pauses."""
    @property
    def parked(self) -> str: """Why nobody holds it although it is active."""
    @property
    def pending_approvals(self) -> int: """Questions that nobody has answered."""
    @property
    def reused(self) -> int: """Nodes that took the result of an earlier run."""
    # fmt: on


def pending(run: Obj, reason: Reason, message: str, *, workflow: str = "") -> Plan:
    """Return the status of a run that waits for something to appear, or for others of its *workflow* to end."""
    found = conditions.progressing(ConditionType.SUCCEEDED, reason, cut(message), generation=meta(run)["generation"])
    named = {"workflow": workflow} if workflow else _named(run)
    return Plan((), found, named | {"givenDigest": _given(run)})


def is_changed(run: Obj) -> bool:
    """Return whether a run that waits is not any more what it was when it was first seen."""
    return status_of(run).get("givenDigest") not in (None, "", _given(run))


def _given(run: Obj) -> str:
    """Return the digest of the fields in which an API server may miss a change.

    Two objects without a schema are the same to CEL if they have as many keys and agree in those that both have.
    Source: k8s.io/apiserver, pkg/cel/common/values.go, ``unstructuredMap.Equal``.
    """
    spec = spec_of(run)
    return names.digest([spec.get("inputs"), spec.get("workflow")])


def rejected(run: Obj, reason: str, message: str, *, at: datetime) -> Plan:
    """Return the status of a run that never started."""
    found = conditions.stalled(ConditionType.SUCCEEDED, reason, cut(message), generation=meta(run)["generation"])
    return Plan((), found, _named(run) | {"completionTime": rfc3339(at)})


def stopped(run: Obj, message: str, *, at: datetime) -> Plan:
    """Return the status of a run that was stopped before it started."""
    found = _cancelled(Reason.CANCELLED, message, generation=meta(run)["generation"])
    return Plan((), found, _named(run) | {"completionTime": rfc3339(at)})


def _named(run: Obj) -> dict[str, Any]:
    name = (spec_of(run).get("workflowRef") or {}).get("name") or status_of(run).get("workflow")  # a rerun names none
    return {"workflow": name} if name else {}


@dataclass(frozen=True, slots=True)
class Around:
    """What belongs to a run's summary besides its record."""

    agent: str
    """The Agent whose pool it is for; empty: a pod of its own."""
    waits_for: str = ""
    """Why no pod has taken it yet, in a sentence."""
    asks: tuple[str, ...] = ()
    """The nodes of pending approvals, each with its question."""
    budget: Mapping[str, Any] | None = None
    """The most that it may spend."""


def summarize(record: Record, around: Around, *, generation: int) -> Plan:
    """Return the status that follows from a run's record. *generation* is that of its object."""
    found = _conditions(record, generation=generation, waits_for=around.waits_for)
    if record.pending_approvals and record.finished_at is None:
        found = (*found, conditions.waiting_for_approval(cut(_question(record, around)), generation=generation))
    return Plan((), found, _fields(record, around))


def _question(record: Record, around: Around) -> str:
    """Return what people have to decide, and how."""
    shown = "; ".join(cut(ask, _ASK_BYTES) for ask in around.asks[:_ASKS])
    more = record.pending_approvals - min(len(around.asks), _ASKS)
    rest = f" (and {more} more)" if shown and more > 0 else ""
    return f"{shown or 'A person has to decide'}{rest}: see `fairlead approvals`, then approve or reject."


def _conditions(record: Record, *, generation: int, waits_for: str) -> tuple[Condition, ...]:
    message = cut(record.message)
    match str(record.state):
        case "Succeeded":
            reason = _reason(record, Reason.SUCCEEDED)
            return conditions.succeeded(message or _good_end(record), generation=generation, reason=reason)
        case "Cancelled":
            reason = _reason(record, Reason.CANCELLED)
            return _cancelled(reason, message or "The run was stopped.", generation=generation)
        case "Failed":
            reason = _reason(record, Reason.INTERNAL_ERROR)
            return conditions.stalled(ConditionType.SUCCEEDED, reason, message, generation=generation)
        case state:
            reason, text = _activity(record, state, waits_for)
            return conditions.progressing(ConditionType.SUCCEEDED, reason, cut(text), generation=generation)


def _reason(record: Record, otherwise: Reason) -> str:
    """Return why the run ended, if it is what a condition's reason may be."""
    return record.reason if _REASON.fullmatch(record.reason) else otherwise


def _cancelled(reason: str, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Return the conditions of a run that somebody ended: over, but nothing that anyone has to mend."""
    ended = conditions.stalled(ConditionType.SUCCEEDED, reason, message, generation=generation)
    return tuple(condition for condition in ended if condition.type != ConditionType.STALLED)


def _activity(record: Record, state: str, waits_for: str) -> tuple[Reason, str]:
    if record.cancel_reason:
        return Reason.STOPPING, f"The run is being stopped. {waits_for}".strip()
    if record.parked or (record.suspended and state == "Queued"):
        return _pause(record, waits_for)
    if state == "Running":
        pauses = " It is suspended: nothing new starts, and it pauses after what runs now." if record.suspended else ""
        return Reason.RUNNING, f"Pod {record.pod} has the run.{pauses}"
    if record.attempt:
        return Reason.RECOVERING, f"The run goes on from its journal as soon as a pod takes it. {waits_for}".strip()
    return Reason.QUEUED, waits_for or "The run waits for a pod to take it."


def _pause(record: Record, waits_for: str) -> tuple[Reason, str]:
    """Return why nobody holds an active run."""
    if record.suspended:
        return Reason.SUSPENDED, "The run is suspended: set spec.suspend to false to go on."
    if record.parked == "Approval":
        return Reason.WAITING_FOR_APPROVAL, "The run waits for a person's decision; no pod is held."
    what = {"Turn": "an agent's answer", "Time": "its time to come"}.get(record.parked, "something to come")
    return Reason.WAITING, f"The run waits for {what}; no pod is held. {waits_for}".strip()


def _fields(record: Record, around: Around) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "workflow": record.workflow or None,
        "revision": record.revision,
        "attempt": record.attempt,
        "agent": around.agent,
        "agentPod": record.pod,
        "progress": f"{record.done}/{record.total}" if record.total else None,
        "currentNodes": None if record.finished_at else _current(record),
        "usage": {"inputTokens": record.input_tokens, "outputTokens": record.output_tokens},
        "cost": {"total": "n/a" if record.unpriced_calls else dollars(record.cost), "currency": "USD"},
        "budget": dict(around.budget) if around.budget else None,
        "reused": record.reused or None,
        "pendingApprovals": (record.pending_approvals or None) if record.finished_at is None else None,
        "startTime": rfc3339(record.created_at),
    }
    if record.finished_at is not None:
        fields["completionTime"] = rfc3339(record.finished_at)
        fields["duration"] = duration(record.finished_at - record.created_at)
        fields["result"] = preview(record.output)
    return fields


def _current(record: Record) -> list[str] | None:
    """Return the nodes that run now; None, which is not there, when there are none."""
    if record.finished_at is not None:
        return None
    return [cut(path, _PATH_BYTES) for path in record.current[:_CURRENT]] or None


def _good_end(record: Record) -> str:
    """Return how a run ended that succeeded, and whether its answers are a model's."""
    scripted = " Its answers are scripted: no model was asked." if record.scripted_calls else ""
    return f"The run ended as it should.{scripted}"


def event_of(record: Record) -> tuple[EventReason, str, bool]:
    """Return reason, text and whether it is a warning, of the one Event about a run that has ended."""
    match str(record.state):
        case "Succeeded":
            return EventReason.RUN_SUCCEEDED, record.message or _good_end(record), False
        case "Cancelled":
            return EventReason.RUN_CANCELLED, record.message or "The run was stopped.", False
        case _:
            return EventReason.RUN_FAILED, f"{record.reason}: {record.message}", True


def dollars(picodollars: int) -> str:
    """Return an amount as an exact decimal."""
    text = format(Decimal(picodollars) / _PICO, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(length: timedelta) -> str:
    """Return a length of time as `kubectl` writes one: ``850ms``, ``12s``, ``3m5s``, ``2h10m``."""
    seconds = max(length.total_seconds(), 0)
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if minutes else f"{hours}h"


def preview(output: Any) -> str:
    """Return the beginning of a run's output as text."""
    if output is None:
        return ""
    text = output if isinstance(output, str) else orjson.dumps(output, option=orjson.OPT_NON_STR_KEYS).decode()
    return cut(text, _RESULT_BYTES)


def cut(text: str, limit: int = _MESSAGE_BYTES) -> str:
    """Return *text* without control characters, cut to *limit* bytes in UTF-8."""
    raw = _CONTROL.sub(" ", text).encode(errors="replace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 4].decode(errors="ignore") + " …"
