"""What storage keeps: records of runs, tasks, what they wait for, calls, sessions. Plain values without behaviour.

Money is whole picodollars (10⁻¹² USD). Times are aware datetimes in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from fairlead.errors import Conflict
from fairlead.storage.money import Payment, Reservation

EMPTY_ITEM = '""'
"""How a record names the item whose key is empty; an empty item is the node itself."""


class Fenced(Conflict):
    """The writer's claim is over: another attempt owns the task, or the run has ended."""

    reason = "Fenced"


class RunState(StrEnum):
    """Where a run is. Only the last three are final."""

    QUEUED = "Queued"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more can happen to the run."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class TaskState(StrEnum):
    """Where a task is in the work queue."""

    QUEUED = "Queued"
    CLAIMED = "Claimed"
    PARKED = "Parked"
    """Nobody holds it: it waits for a signal, a time, or the end of a suspension."""
    DONE = "Done"


@dataclass(frozen=True, slots=True)
class Revision:
    """A Workflow with the Agents, Models and Tools it uses, frozen together."""

    digest: str
    document: Mapping[str, Any]
    """``{"workflow": {name, uid, generation, spec}, "workflows": {name: spec}, "agents": {name: spec},
    "models": {name: spec}, "tools": {name: spec}}``; *workflows* are those that ``workflow`` nodes run."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution."""

    uid: str
    cluster: str
    namespace: str
    name: str
    workflow: str
    revision: str
    inputs: Mapping[str, Any]
    created_at: datetime
    state: RunState = RunState.QUEUED
    reason: str = ""
    """PascalCase, set when it ended: ``Succeeded``, ``NodeFailed``, ``Timeout``, ``Stopped``, …"""
    message: str = ""
    output: Any = None
    cancel_reason: str = ""
    """Not empty: somebody wants it to end; the reason it will have."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    done: int = 0
    total: int = 0
    current: tuple[str, ...] = ()
    attempt: int = 0
    pod: str = ""
    """The name of the pod that has it now, or had it last."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    """Picodollars, of the calls whose price is known."""
    unpriced_calls: int = 0
    """Calls whose price is unknown: while there are any, the total is ``n/a``."""
    scripted_calls: int = 0
    """Calls that a scripted model answered: no model was asked."""
    priority: int = 0
    suspended: bool = False
    parked: str = ""
    """Why nobody holds it although it is active (``Approval``, ``Turn``, ``Time``, ``Suspended``), or empty."""
    pending_approvals: int = 0
    """Questions that nobody has answered."""
    budget: Mapping[str, Any] | None = None
    """``WorkflowRun.spec.budget``, as on the wire."""
    rerun_of: str = ""
    """The uid of the earlier run whose results are used again."""
    rerun_from: str = ""
    reused: int = 0
    """Nodes whose result is that of the earlier run."""
    exported: bool = False
    """Whether the finished trace was exported."""


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task to put on the work queue. That of a suspended run is parked until it is resumed."""

    id: str
    run_uid: str
    pool: str
    priority: int = 0
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What a pool has to do."""

    queued: int
    """Tasks that wait."""
    held: Mapping[str, int]
    """How many tasks each pod works on, by its uid."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it stands."""

    id: str
    run_uid: str
    pool: str
    state: TaskState
    attempt: int
    pod_uid: str
    session: str
    """The id of the session that holds the claim, or empty."""
    journal_length: int
    deadline: datetime | None
    available_at: datetime
    kind: str = "run"
    """``run`` or ``turn``."""
    parent: str = ""
    """Of a turn: the task that waits for its answer."""
    key: str = ""
    """Of a turn: the key of the signal that its answer is."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """Of a turn: the `fairlead_agent.protocol.StartTurn` as JSON."""
    wake_at: datetime | None = None
    """When a parked task goes on whatever comes."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that a task waits for has come. The first of a key stays."""

    task_id: str
    key: str
    value: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task with all that its next attempt needs."""

    task: Task
    run: Run
    revision: Revision
    journal: tuple[Mapping[str, Any], ...]
    signals: tuple[Signal, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of an agent that a task hands to another pool."""

    id: str
    key: str
    pool: str
    request: Mapping[str, Any]
    deadline: datetime | None = None


class ApprovalState(StrEnum):
    """How an approval stands."""

    PENDING = "Pending"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    CANCELLED = "Cancelled"
    """The try that asked, or its run, ended before anybody decided."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A question to people, and what became of it."""

    task_id: str
    key: str
    run_uid: str
    cluster: str
    namespace: str
    run_name: str
    node: str
    item: str
    message: str
    requested_at: datetime
    deadline: datetime
    on_timeout: str = "Reject"
    approvers: tuple[str, ...] = ()
    tool: Mapping[str, Any] | None = None
    """The tool call to approve (`fairlead_agent.protocol.ToolRequest` as JSON), or None."""
    state: ApprovalState = ApprovalState.PENDING
    decided_by: str = ""
    decided_at: datetime | None = None
    comment: str = ""
    via: str = ""
    """``api``, ``annotation``, ``timeout``, a channel."""
    verified: bool = True
    """Whether `decided_by` was authenticated."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision about an approval."""

    approved: bool
    by: str
    at: datetime
    comment: str = ""
    via: str = "api"
    verified: bool = True


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A node's output, kept for later runs of the same namespace."""

    digest: str
    output: Any
    run_uid: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Fence:
    """Who writes. It must still hold the claim when the transaction commits."""

    task_id: str
    session: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of a run, or one item or iteration of it, as it stands. Replaces the record of the same key."""

    run_uid: str
    node: str
    item: str = ""
    iteration: int = 1
    state: str = "Running"
    reason: str = ""
    message: str = ""
    output: Any = None
    tries: int = 1
    attempt: int = 1
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reused: str = ""
    """The uid of the run whose result this is."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    unpriced_calls: int = 0
    """Tokens and money of its calls are summed by storage when they are answered, for the item's record and the node's;
    whoever writes a record leaves them alone."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a trace. Attributes are bounded and redacted by whoever makes the span."""

    run_uid: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    """``run``, ``node``, ``item``, ``call``, ``turn`` or ``suspension``."""
    started_at: datetime
    finished_at: datetime | None = None
    status: str = "unset"
    """``unset``, ``ok`` or ``error``."""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended."""

    state: RunState
    reason: str
    message: str
    output: Any
    at: datetime


@dataclass(frozen=True, slots=True)
class Grown:
    """What an append tells of the task."""

    length: int
    """Of the journal now."""
    cancelled: bool = False
    """The run is to end; told where entries with a progress were added, or were there already."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What an append to the journal means for the records that people read; committed with it."""

    nodes: tuple[NodeRecord, ...] = ()
    spans: tuple[Span, ...] = ()
    done: int | None = None
    total: int | None = None
    current: tuple[str, ...] | None = None
    end: RunEnd | None = None
    """Ends the run and all its tasks."""
    turn: Mapping[str, Any] | None = None
    """Ends the task of a turn: its answer (`fairlead_agent.protocol.TurnAnswer` as JSON) is the parent's signal."""
    cached: tuple[CacheEntry, ...] = ()
    reused: int = 0
    """How many nodes took the result of an earlier run."""
    withdrawn: tuple[tuple[str, str], ...] = ()
    """Nodes and items whose try is over: what it asked people, and nobody has answered, is asked no more."""


class CallState(StrEnum):
    """Where a call is."""

    INTENT = "Intent"
    """Committed, perhaps sent."""
    DONE = "Done"
    """Answered, or failed for good; the record is the answer from now on."""


@dataclass(frozen=True, slots=True)
class CallIntent:
    """A call that is about to be sent."""

    task_id: str
    run_uid: str
    key: str
    digest: str
    action: str
    node: str
    item: str
    gateway: str
    """The id of the gateway process that sends it."""
    target: str
    """The Model or the tool."""
    request: Mapping[str, Any]
    """Bounded and redacted."""
    started_at: datetime
    agent: str = ""
    """Of a turn: whose."""
    reservation: Reservation | None = None


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """What came of a call. *reply* is the `fairlead_agent.protocol.CallReply` as JSON."""

    reply: Mapping[str, Any]
    finished_at: datetime
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None
    """Picodollars; None: unknown."""
    priced: bool = True
    """Whether the call has a price at all (a tool call has none and is not counted as unpriced)."""
    model: str = ""
    """The Model that answered; empty: nobody knows which one it was."""
    paid: tuple[Payment, ...] = ()
    """What each Model took, those of lost answers included; empty: the one that answered took it all."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call as it stands."""

    intent: CallIntent
    state: CallState
    answer: CallAnswer | None
    repeats: int
    """How often it was sent again because the gateway that sent it first died; each is charged at its worst case."""
    granted_output_tokens: int | None = None
    """What the budgets left of `Reservation.output_tokens`; None: no reservation."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A call's intent was committed, or was there already."""

    known: CallRecord | None
    """None: it is new, send it."""
    granted_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AgentSession:
    """A registered pod."""

    id: str
    token_digest: str
    """SHA-256 of the bearer token; the token itself is nowhere."""
    cluster: str
    namespace: str
    pod: str
    pod_uid: str
    pool: str
    concurrency: int
    version: str
    capabilities: tuple[str, ...]
    created_at: datetime
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of a run's log."""

    run_uid: str
    at: datetime
    level: str
    node: str
    attempt: int
    text: str
    id: int = 0
    """Grows with time; given by the store."""


@dataclass(frozen=True, slots=True)
class Event:
    """A message on the bus. It may be lost: whoever listens also looks on a timer."""

    topic: str
    """``run`` (something of the run changed), ``queue`` (a pool has work), ``agent`` (a pod registered or was lost),
    ``log`` (the run's log has new lines), ``signal`` (a signal of the task came), ``budget`` (a call was settled)."""
    key: str
    """The run's uid, the pool's key, ``<namespace>/<agent>``, the task's id, or empty."""
