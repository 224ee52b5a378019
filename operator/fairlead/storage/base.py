"""What storage promises, whatever is behind it. Every implementation passes the same contract tests.

Money is whole picodollars (10⁻¹² USD), so that sums are exact. Times are aware datetimes in UTC, given by the caller.
A method that changes things is one transaction: all of it is durable when it returns, or nothing of it is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from fairlead.storage.money import BudgetLine, CostRow, OverBudget, Payment, Reservation, Spent
from fairlead.storage.records import (
    EMPTY_ITEM,
    AgentSession,
    Approval,
    ApprovalState,
    Begun,
    CacheEntry,
    CallAnswer,
    CallIntent,
    CallRecord,
    CallState,
    Claimed,
    Effects,
    Event,
    Fence,
    Fenced,
    Grown,
    LogRecord,
    NodeRecord,
    PoolLoad,
    QueuedTask,
    Revision,
    Run,
    RunEnd,
    RunState,
    Signal,
    Span,
    Task,
    TaskState,
    Turn,
    Verdict,
)

__all__ = [
    "EMPTY_ITEM",
    "MAX_ATTEMPTS_WITHOUT_PROGRESS",
    "MAX_JOURNAL_BYTES",
    "AgentSession",
    "Approval",
    "ApprovalState",
    "Begun",
    "BudgetLine",
    "CacheEntry",
    "CallAnswer",
    "CallIntent",
    "CallRecord",
    "CallState",
    "Claimed",
    "CostRow",
    "Effects",
    "Event",
    "Fence",
    "Fenced",
    "Grown",
    "LogRecord",
    "NodeRecord",
    "OverBudget",
    "Payment",
    "PoolLoad",
    "QueuedTask",
    "Reservation",
    "Revision",
    "Run",
    "RunEnd",
    "RunState",
    "Signal",
    "Span",
    "Spent",
    "Storage",
    "Task",
    "TaskState",
    "Turn",
    "Verdict",
]

MAX_JOURNAL_BYTES = 64 << 20
"""A task is handed out with its whole journal."""
MAX_ATTEMPTS_WITHOUT_PROGRESS = 5


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
    async def submit(self, run: Run, *, revision: Revision, task: QueuedTask | None) -> bool:
        """Create the run and queue its task; False if the uid is known already (nothing is changed then).

        Without a task (a dry run) nothing will ever claim it: end it by `end_run`.
        """

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

    async def cancel_run(
        self, uid: str, *, reason: str, message: str, at: datetime, handlers: bool = False
    ) -> Run | None:
        """Ask for the run's end. One that no pod holds ends here and now; a pod that holds it is told by heartbeat.

        *handlers*: the workflow has a ``finally``: one that has started and that nobody holds is queued, so that a pod
        can run it (`Run.cancel_reason` is set then).
        """

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
        self,
        fence: Fence,
        *,
        first: int,
        entries: Sequence[Mapping[str, Any]],
        effects: Effects,
        at: datetime,
        size: int = 0,
    ) -> Grown:
        """Add entries to the journal with their effects. Entries that are there are skipped.

        *size* is what they take, in bytes.

        Raises:
            Fenced: the claim is over.
            TooLarge: the journal would get larger than `MAX_JOURNAL_BYTES`; its end always fits.
            Conflict: *first* would leave a gap.
        """

    async def release(self, fence: Fence, *, at: datetime, lost: bool = False) -> None:
        """Put the task back on the queue (`Fenced`: the claim is over).

        The attempt does not count, unless it was *lost*: then it does as with `requeue_pod`.
        """

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

    async def pool_load(self, pool: str) -> PoolLoad:
        """Return what a pool has to do."""

    # -- waiting ------------------------------------------------------------------------------------------------------
    async def park(
        self, fence: Fence, *, keys: Sequence[str], wake_at: datetime | None, reason: str, at: datetime
    ) -> list[Signal]:
        """Give the task back until a signal of *keys* or *wake_at* comes; parking is no attempt.

        Returns the signals of *keys* that are there already; if there are any, nothing was changed. A task of a
        suspended run waits for `resume` whatever else it waits for; the key `fairlead_agent.protocol.RESUME` is there
        when the run is not suspended.
        """

    async def wake(self, *, at: datetime) -> datetime | None:
        """Queue the parked tasks whose time has come, and decide the approvals that are over theirs.

        Returns when to look again at the latest, or None if nothing waits for a time. A parked task's time is also its
        deadline.
        """

    async def signal(self, signal: Signal) -> bool:
        """Bring a signal about and queue the task if it is parked for it; False if the key has one already."""

    async def signals_of_task(self, task_id: str) -> list[Signal]:
        """Return what has come."""

    async def suspend_run(self, uid: str, *, suspended: bool, at: datetime, span: Span | None = None) -> Run | None:
        """Suspend or resume a run; *span* is what its trace has of that from now on.

        Queued tasks are parked; a pod that holds one is told by heartbeat. Resuming queues what can go on. A run that
        is being cancelled is not held up.
        """

    async def open_approval(self, fence: Fence, approval: Approval) -> Approval:
        """Ask people; return the approval as it stands, which is the earlier one if the key has been used."""

    async def decide(self, task_id: str, key: str, verdict: Verdict) -> Approval | None:
        """Decide an approval and signal its task; the first verdict stands. None: there is no such approval."""

    async def get_approval(self, task_id: str, key: str) -> Approval | None:
        """Return an approval."""

    async def approvals_of_run(self, uid: str) -> list[Approval]:
        """Return a run's approvals, oldest first."""

    async def pending_approvals(self, cluster: str, *, namespace: str = "", limit: int = 1000) -> list[Approval]:
        """Return what waits for a decision, oldest first."""

    async def start_turn(self, fence: Fence, turn: Turn) -> bool:
        """Queue a turn as a task of the same run, below the fence's; False if the key has one already."""

    async def cancel_turns(self, fence: Fence, *, keys: Sequence[str], at: datetime) -> None:
        """End turns that nobody waits for any more; a pod that holds one is told that it is lost."""

    async def get_cached(self, cluster: str, namespace: str, digest: str, *, at: datetime) -> CacheEntry | None:
        """Return what is kept under a digest and has not expired."""

    async def drop_expired(self, *, at: datetime) -> int:
        """Delete expired cache entries; return how many."""

    # -- calls --------------------------------------------------------------------------------------------------------
    async def begin_call(self, fence: Fence, intent: CallIntent) -> Begun:
        """Commit the intent and reserve its worst case in every budget line, or find the record that is there.

        Raises:
            Fenced: the claim is over.
            OverBudget: it does not fit; nothing was changed.
        """

    async def repeat_call(self, intent: CallIntent, *, lost: str) -> Begun | None:
        """Take over an intent from the gateway *lost*, which died with it; None if somebody else was faster.

        The lost one is charged at its worst case, and what the budgets leave is reserved for the new one.

        Raises:
            OverBudget: they leave too little. The intent is the caller's now, to be finished without being sent; its
                reservation is held, and nothing is charged, until then.
        """

    async def finish_call(self, task_id: str, key: str, answer: CallAnswer, *, span: Span | None) -> None:
        """Commit the answer, whatever became of the attempt.

        Releases the reservation, and adds tokens and cost to the node, the run, the budget lines and the day's sums.
        """

    async def spent(self, lines: Sequence[BudgetLine]) -> list[Spent]:
        """Return how budget lines stand."""

    async def costs(
        self,
        cluster: str,
        *,
        by: Sequence[str],
        namespace: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        workflow: str = "",
    ) -> list[CostRow]:
        """Return sums by any of ``day``, ``namespace``, ``workflow``, ``agent``, ``model``; highest cost first."""

    async def get_call(self, task_id: str, key: str) -> CallRecord | None:
        """Return a call."""

    async def calls_of_run(self, uid: str) -> list[CallRecord]:
        """Return a run's calls, by start."""

    async def unwanted_calls(self, intents: Sequence[CallIntent]) -> set[tuple[str, str]]:
        """Return task and key of those whose task, node or item has ended: nobody will use their answers."""

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
    async def finished_runs(
        self, cluster: str, *, namespace: str, workflow: str, since: datetime | None = None, limit: int = 100
    ) -> list[Run]:
        """Return a workflow's finished runs, latest first: for its profile and the estimate of its cost."""

    async def runs_to_export(self, *, limit: int = 20) -> list[Run]:
        """Return finished runs whose trace was not exported, oldest first."""

    async def mark_exported(self, uid: str) -> None:
        """Remember that a run's trace was exported."""

    async def nodes_of_run(self, uid: str) -> list[NodeRecord]:
        """Return a run's node records, by start."""

    async def spans_of_run(self, uid: str) -> list[Span]:
        """Return a run's spans, by start."""

    async def add_logs(self, fence: Fence, *, first: int, records: Sequence[LogRecord]) -> None:
        """Add lines of a claim, *first* of which came before them, to the run's log. Those that are there are skipped.

        Raises:
            Fenced: the claim is over.
        """

    async def logs_of_run(self, uid: str, *, after: int = 0, limit: int = 1000) -> list[LogRecord]:
        """Return lines with an id over *after*, in order."""
