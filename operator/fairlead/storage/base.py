"""What storage promises, whatever is behind it. Every implementation passes the same contract tests.

Money is whole picodollars (10⁻¹² USD), so that sums are exact. Times are aware datetimes in UTC, given by the caller.
A method that changes things is one transaction: all of it is durable when it returns, or nothing of it is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from fairlead.errors import Conflict

MAX_ATTEMPTS_WITHOUT_PROGRESS = 5


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
    DONE = "Done"


@dataclass(frozen=True, slots=True)
class Revision:
    """A Workflow with the Agents, Models and Tools it uses, frozen together."""

    digest: str
    document: Mapping[str, Any]
    """``{"workflow": {name, uid, generation, spec}, "agents": {name: spec}, "models": {name: spec}, "tools": {}}``"""


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


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task to put on the work queue."""

    id: str
    run_uid: str
    pool: str
    priority: int = 0
    deadline: datetime | None = None


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


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task with all that its next attempt needs."""

    task: Task
    run: Run
    revision: Revision
    journal: tuple[Mapping[str, Any], ...]


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


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a trace. Attributes are bounded and redacted by whoever makes the span."""

    run_uid: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    """``run``, ``node``, ``item`` or ``call``."""
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
class Effects:
    """What an append to the journal means for the records that people read; committed with it."""

    nodes: tuple[NodeRecord, ...] = ()
    spans: tuple[Span, ...] = ()
    done: int | None = None
    total: int | None = None
    current: tuple[str, ...] | None = None
    end: RunEnd | None = None
    """Ends the run and the task."""


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


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call as it stands."""

    intent: CallIntent
    state: CallState
    answer: CallAnswer | None
    repeats: int
    """How often it was sent again because the gateway that sent it first died; each is charged."""


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
    ``log`` (the run's log has new lines)."""
    key: str
    """The run's uid, the pool's key, or ``<namespace>/<agent>``."""


class Storage(Protocol):
    """Everything that is kept, behind one door. Opened by `fairlead.storage.open_storage(url)`."""

    # -- life ---------------------------------------------------------------------------------------------------------
    async def migrate(self) -> None:
        """Bring the schema up to date; refuse one that a newer version wrote (`TerminalError`)."""

    async def aclose(self) -> None:
        """Close every connection."""

    async def ping(self) -> None:
        """Do nothing, or raise `Unavailable`."""

    # -- the event bus ------------------------------------------------------------------------------------------------
    async def publish(self, event: Event) -> None:
        """Tell everyone who listens, in every process. The methods below announce what they change by themselves."""

    def subscribe(self, *topics: str) -> AsyncIterator[Event]:
        """Yield events from now on. Duplicates of one key that wait are merged."""

    # -- runs ---------------------------------------------------------------------------------------------------------
    async def submit(self, run: Run, *, revision: Revision, task: QueuedTask) -> bool:
        """Create the run and queue its task; False if the uid is known already (nothing is changed then)."""

    async def get_run(self, uid: str) -> Run | None:
        """Return a run."""

    async def find_run(self, cluster: str, namespace: str, name: str) -> Run | None:
        """Return the latest run that had this name, whether its object exists or not."""

    async def list_runs(
        self, cluster: str, *, namespace: str = "", workflow: str = "", active: bool = False, limit: int = 100
    ) -> list[Run]:
        """Return runs, latest first; *active*: only those not final."""

    async def get_runs(self, uids: Sequence[str]) -> list[Run]:
        """Return those that exist."""

    async def get_revision(self, digest: str) -> Revision | None:
        """Return a frozen revision."""

    async def cancel_run(self, uid: str, *, reason: str, message: str, at: datetime) -> Run | None:
        """Ask for the run's end. One that no pod holds ends here and now; a pod that holds it is told by heartbeat."""

    async def end_run(self, uid: str, end: RunEnd) -> bool:
        """End a run whatever its task does (no pod in time, attempts exhausted); False if it is final already."""

    async def delete_run(self, uid: str) -> None:
        """Forget a run and everything that belongs to it."""

    # -- tasks and journals -------------------------------------------------------------------------------------------
    async def claim(self, session: AgentSession, *, limit: int, at: datetime) -> list[Claimed]:
        """Take up to *limit* queued tasks of the session's pool, by priority, then age. Each gets the next attempt.

        Raises:
            Fenced: the session is revoked.
        """

    async def append(
        self, fence: Fence, *, first: int, entries: Sequence[Mapping[str, Any]], effects: Effects, at: datetime
    ) -> int:
        """Add entries to the journal with their effects; return its length. Entries that are there are skipped.

        Raises:
            Fenced: the claim is over.
            Conflict: *first* would leave a gap.
        """

    async def release(self, fence: Fence, *, at: datetime) -> None:
        """Put the task back on the queue; the attempt does not count (`Fenced`: the claim is over)."""

    async def check_fence(self, fence: Fence) -> Task:
        """Return the task if the fence still holds it, or raise `Fenced`."""

    async def requeue_pod(self, pod_uid: str, *, at: datetime) -> list[str]:
        """Take all tasks from a pod that is gone and revoke its sessions; return the uids of the runs.

        A task goes back to the queue with its next attempt; after `MAX_ATTEMPTS_WITHOUT_PROGRESS` attempts in a row
        that added nothing to the journal its run fails with ``AttemptsExhausted``; a run that is being cancelled ends.
        """

    async def journal(self, task_id: str) -> list[Mapping[str, Any]]:
        """Return a task's journal, in order. Each entry has ``seq`` and ``attempt`` added."""

    async def tasks_of_run(self, uid: str) -> list[Task]:
        """Return a run's tasks."""

    async def tasks_of_pod(self, pod_uid: str) -> list[Task]:
        """Return what a pod holds now."""

    async def queue_depths(self, cluster: str) -> dict[str, tuple[int, int]]:
        """Return, by pool, how many tasks wait and how many are claimed."""

    # -- calls --------------------------------------------------------------------------------------------------------
    async def begin_call(self, fence: Fence, intent: CallIntent) -> CallRecord | None:
        """Commit the intent; None: it is new, send it. Otherwise the record that was there (nothing is changed)."""

    async def repeat_call(self, intent: CallIntent, *, lost: str) -> bool:
        """Take over an intent from the gateway *lost*, which died with it; False if somebody else was faster."""

    async def finish_call(self, task_id: str, key: str, answer: CallAnswer, *, span: Span | None) -> None:
        """Commit the answer, whatever became of the attempt, and add tokens and cost to the run."""

    async def get_call(self, task_id: str, key: str) -> CallRecord | None:
        """Return a call."""

    async def calls_of_run(self, uid: str) -> list[CallRecord]:
        """Return a run's calls, by start."""

    async def beat_gateway(self, gateway: str, *, at: datetime) -> None:
        """Say that a gateway process lives."""

    async def gateway_seen(self, gateway: str) -> datetime | None:
        """Return when a gateway process last said that it lives."""

    # -- sessions -----------------------------------------------------------------------------------------------------
    async def register(self, session: AgentSession, *, at: datetime) -> None:
        """Add a session; earlier ones of the same pod are revoked and their tasks requeued: their process is gone."""

    async def get_session(self, token_digest: str) -> AgentSession | None:
        """Return a session that is not revoked."""

    async def list_sessions(self, cluster: str) -> list[AgentSession]:
        """Return the sessions that are not revoked."""

    # -- what people read ---------------------------------------------------------------------------------------------
    async def nodes_of_run(self, uid: str) -> list[NodeRecord]:
        """Return a run's node records, by start."""

    async def spans_of_run(self, uid: str) -> list[Span]:
        """Return a run's spans, by start."""

    async def add_logs(self, records: Sequence[LogRecord]) -> None:
        """Add lines to runs' logs."""

    async def logs_of_run(self, uid: str, *, after: int = 0, limit: int = 1000) -> list[LogRecord]:
        """Return lines with an id over *after*, in order."""
