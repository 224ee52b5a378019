"""Ends runs that somebody wants to end, so that their handlers get their turn where a pod can give it to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.clock import Clock
from fairlead.core.references import agent_of
from fairlead.core.workflowrun import handler_seconds, has_finally
from fairlead.storage import Storage
from fairlead.storage.base import Run, RunEnd, RunState, TaskState

_TIMEOUT_GRACE: Final = 15.0
"""The agent ends a run at its time-out; the operator does when the agent has not by then."""
_TOO_LONG: Final = "The run took longer than the workflow's timeoutSeconds."


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while a run is active."""

    agent: str
    """The Agent whose pool takes the run; empty: a pod of its own."""
    deadline: datetime | None
    has_finally: bool
    """Its workflow, or one inside."""
    handler_seconds: float
    """What handlers may take beyond the deadline."""
    workflow_budget: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any], deadline: datetime | None) -> Facts:
        """Return the facts of a run of a frozen revision."""
        spec = document["workflow"]["spec"]
        return cls(
            agent=agent_of(spec),
            deadline=deadline,
            has_finally=has_finally(document),
            handler_seconds=handler_seconds(document),
            workflow_budget=spec.get("budget") or {},
        )


class Endings:
    """Cancels runs and keeps their deadlines."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._facts: dict[str, Facts] = {}

    async def facts(self, record: Run) -> Facts:
        """Return what does not change about a run."""
        known = self._facts.get(record.uid)
        if known is None:
            revision = await self._storage.get_revision(record.revision)
            document = revision.document if revision is not None else {"workflow": {"spec": {}}}
            tasks = await self._storage.tasks_of_run(record.uid)
            known = Facts.of(document, next((task.deadline for task in tasks if task.id == record.uid), None))
            self._facts[record.uid] = known
        return known

    def remember(self, uid: str, facts: Facts) -> None:
        """Spare the first look into storage."""
        self._facts[uid] = facts

    def forget(self, uid: str) -> None:
        """Forget a run that has ended."""
        self._facts.pop(uid, None)

    async def cancel(self, record: Run, reason: str, message: str) -> None:
        """Ask for the end of a run whose object is there."""
        if not record.state.final and not record.cancel_reason:
            facts = await self.facts(record)
            await self._cancel(record, reason, message, handlers=facts.has_finally)

    async def cancel_deleted(self, record: Run, message: str) -> None:
        """End a run whose object is gone, and with it the pod of its own, if it had one."""
        if record.state.final:
            return
        facts = await self.facts(record)
        if not record.cancel_reason:
            handlers = facts.has_finally and bool(facts.agent)
            await self._cancel(record, Reason.CANCELLED, message, handlers=handlers)
        elif not facts.agent:
            await self.end_unless_held(record, message)

    async def end_unless_held(self, record: Run, message: str) -> None:
        """End a run that is being cancelled and that no pod will ever take to do what ``finally`` says."""
        tasks = await self._storage.tasks_of_run(record.uid)
        if not any(task.state is TaskState.CLAIMED for task in tasks):
            end = RunEnd(RunState.CANCELLED, record.cancel_reason, message, output=None, at=self._clock.now())
            await self._storage.end_run(record.uid, end)

    async def _cancel(self, record: Run, reason: str, message: str, *, handlers: bool) -> None:
        now = self._clock.now()
        await self._storage.cancel_run(record.uid, reason=reason, message=message, at=now, handlers=handlers)

    def is_late(self, facts: Facts) -> bool:
        """Return whether a run is over its time."""
        return facts.deadline is not None and self._clock.now() >= facts.deadline

    async def watch_deadline(self, record: Run, facts: Facts) -> None:
        """End a run that is over its time: at once if none had it yet, otherwise if the agent does not do so itself."""
        if facts.deadline is None:
            return
        late = (self._clock.now() - facts.deadline).total_seconds()
        if late >= (0.0 if record.state is RunState.QUEUED else self._grace(facts)):
            end = RunEnd(RunState.FAILED, Reason.TIMEOUT, _TOO_LONG, output=None, at=self._clock.now())
            await self._storage.end_run(record.uid, end)

    def seconds_left(self, facts: Facts) -> float | None:
        """Return the time until the deadline, or its grace, is over."""
        if facts.deadline is None:
            return None
        left = (facts.deadline - self._clock.now()).total_seconds()
        return left if left > 0 else max(left + self._grace(facts), 0.0)

    @staticmethod
    def _grace(facts: Facts) -> float:
        return _TIMEOUT_GRACE + facts.handler_seconds
