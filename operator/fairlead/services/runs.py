"""Looks after WorkflowRuns: take in, follow, end. Writes their status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.clock import Clock
from fairlead.core import conditions, runstatus
from fairlead.core.actions import Obj, Plan, conditions_of, meta, spec_of, status_of
from fairlead.core.agent import pod_trouble
from fairlead.core.pool import has_stopped, is_leaving, is_over
from fairlead.core.workflow import is_finished
from fairlead.core.workflowrun import budget_of, plan_run_pods
from fairlead.services.annotations import Annotations
from fairlead.services.applying import Applier
from fairlead.services.ending import Endings, Facts
from fairlead.services.intake import Intake
from fairlead.services.objects import Key, Objects
from fairlead.services.podsettings import PodSettingsSource
from fairlead.services.slots import Slots
from fairlead.storage import Storage
from fairlead.storage.base import ApprovalState, Run, RunState, Span, TaskState
from fairlead.tracing.ids import SUSPENSION, span_id, suspension_span_id

_STATUS_SECONDS: Final = 1.0
"""Between two writes of one run's status."""
_FIRST_STATUS_SECONDS: Final = 0.25
"""After queueing: a warm pod has taken the run by then, and one write says it all."""
_POD_GRACE: Final = 30.0
"""What a run's own pod has to end by itself after the run has."""
_OVERDUE_SECONDS: Final = 60.0
"""After the time by which a pod was to be gone: its node would have ended it by then."""
_DELETED: Final = "The WorkflowRun was deleted."
_STOPPED: Final = "The run was stopped by spec.stop."
_NO_AGENT: Final = "The run was stopped, and its Agent does not exist any more."


class Runs:
    """Brings runs to where they should be, one at a time for each uid."""

    def __init__(  # noqa: PLR0913 - what it composes
        self,
        storage: Storage,
        objects: Objects,
        *,
        applier: Applier,
        intake: Intake,
        slots: Slots,
        endings: Endings,
        pods: PodSettingsSource,
        clock: Clock,
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._applier = applier
        self._intake = intake
        self._slots = slots
        self._endings = endings
        self._pods = pods
        self._clock = clock
        self._annotations = Annotations(storage, applier, clock)
        self._written: dict[str, float] = {}
        self.wake: Callable[[Key], Awaitable[None]] | None = None
        """Has another run looked at."""

    async def reconcile(self, key: Key) -> float | None:
        """Look after one run; return in how many seconds to look again."""
        run = self._objects.get(key)
        if run is None or meta(run).get("deletionTimestamp"):
            await self._bury(key.uid)
            return None
        if is_finished(run):
            self._forget(key.uid)
            return await self._after_the_end(run)
        record = await self._storage.get_run(key.uid)
        if record is None:
            taken = await self._intake.take(run)
            return await self._begin(run, taken) if isinstance(taken, Run) else taken
        return await self._follow(run, record)

    async def _bury(self, uid: str) -> None:
        """Cancel a run whose object is gone; its history stays."""
        record = await self._storage.get_run(uid)
        if record is not None:
            await self.cancel_orphan(record)
            await self._make_room(record)
        self._forget(uid)

    async def cancel_orphan(self, record: Run) -> None:
        """Cancel a run whose object is gone; its history stays."""
        await self._endings.cancel_deleted(record, _DELETED)

    async def ended_alone(self, uid: str) -> None:
        """Let another run start when one has ended whose object is gone."""
        record = await self._storage.get_run(uid) if self._slots.anybody_waits else None
        if record is not None and record.state.final:
            await self._make_room(record)

    async def _make_room(self, record: Run) -> None:
        """Have those looked at that wait for this run's end."""
        for key in self._slots.next((record.namespace, record.workflow)):
            if self.wake is not None:
                await self.wake(key)

    def _forget(self, uid: str) -> None:
        self._intake.forget(uid)
        self._endings.forget(uid)
        self._written.pop(uid, None)

    async def _begin(self, run: Obj, record: Run) -> float | None:
        if spec_of(run).get("dryRun"):
            return await self._follow(run, record)
        self._written[record.uid] = self._clock.monotonic() + _FIRST_STATUS_SECONDS - _STATUS_SECONDS
        await self._look_after_pods(run, record, await self._endings.facts(record))
        return _FIRST_STATUS_SECONDS

    # -- while it is active -------------------------------------------------------------------------------------------

    async def _follow(self, run: Obj, record: Run) -> float | None:
        facts = await self._endings.facts(record)
        if not record.state.final:
            await self._heed(run, record, facts)
            record = await self._storage.get_run(record.uid) or record
        if record.state.final:
            return await self._finish(run, record, facts)
        await self._look_after_pods(run, record, facts)
        due = self._written.get(record.uid, float("-inf")) + _STATUS_SECONDS - self._clock.monotonic()
        if due > 0:
            return due
        self._written[record.uid] = self._clock.monotonic()
        await self._applier.write_status(run, await self._summary(run, record, facts))
        return self._endings.seconds_left(facts)

    async def _heed(self, run: Obj, record: Run, facts: Facts) -> None:
        """Bring storage to what the run's object says, and to what the time says."""
        spec = spec_of(run)
        if spec.get("dryRun"):
            await self._intake.finish_dry_run(record)
            return
        ends = bool(spec.get("stop")) or self._endings.is_late(facts)
        suspended = bool(spec.get("suspend")) and not ends  # what is suspended could not end itself
        if suspended != record.suspended:
            await self._suspend(record, suspended=suspended)
        if spec.get("stop"):
            await self._endings.cancel(record, Reason.CANCELLED, _STOPPED)
        if record.cancel_reason and facts.agent and not self._objects.find("Agent", record.namespace, facts.agent):
            await self._endings.end_unless_held(record, _NO_AGENT)
        await self._endings.watch_deadline(record, facts)
        await self._annotations.heed(run, record)

    async def _suspend(self, record: Run, *, suspended: bool) -> None:
        """Suspend or resume a run; its trace says when and for how long."""
        now = self._clock.now()
        known = () if suspended else await self._storage.spans_of_run(record.uid)
        since = next((one.started_at for one in known if one.kind == SUSPENSION and one.finished_at is None), None)
        begun = now if suspended else since or record.created_at  # one that was made so is suspended from the beginning
        span = Span(
            run_uid=record.uid,
            span_id=suspension_span_id(record.uid, begun),
            parent_id=span_id(record.uid),
            name="suspended",
            kind=SUSPENSION,
            started_at=begun,
            finished_at=None if suspended else now,
        )
        await self._storage.suspend_run(record.uid, suspended=suspended, at=now, span=span)

    async def _look_after_pods(self, run: Obj, record: Run, facts: Facts) -> None:
        if facts.agent:
            return
        own = self._objects.owned("Pod", record.uid)
        for pod in own:
            if self._is_overdue(pod):  # one that never registered has no Lease by which its node would be found dead
                await self._applier.delete(pod, "its node does not end it", grace_seconds=0)
        wanted = _wants_pod(record, facts)
        number = await self._claims(record) if wanted and not any(map(_is_there, own)) else 0
        settings = await self._pods.get()
        await self._applier.act(plan_run_pods(run, own, number=number, wanted=wanted, settings=settings))

    async def _claims(self, record: Run) -> int:
        """Return how often the run's task was claimed, parking included."""
        tasks = await self._storage.tasks_of_run(record.uid)
        return next((task.attempt for task in tasks if task.id == record.uid), 0)

    async def _summary(self, run: Obj, record: Run, facts: Facts) -> Plan:
        around = runstatus.Around(
            agent=facts.agent,
            waits_for="" if record.state.final else await self._waits_for(run, record, facts),
            asks=await self._asks(record),
            budget=budget_of(spec_of(run), {"budget": facts.workflow_budget}),
        )
        return runstatus.summarize(record, around, generation=meta(run)["generation"])

    async def _asks(self, record: Run) -> tuple[str, ...]:
        """Return what people have to decide now."""
        if record.state.final or not record.pending_approvals:
            return ()
        asked = await self._storage.approvals_of_run(record.uid)
        return tuple(
            f'node "{one.node}"{f" item {one.item}" if one.item else ""} asks: {one.message}'
            for one in asked
            if one.state is ApprovalState.PENDING
        )

    async def _waits_for(self, run: Obj, record: Run, facts: Facts) -> str:
        """Return why no pod takes the run or its turn, if there is more to say than that all are busy."""
        namespace = meta(run)["namespace"]
        if record.parked == "Turn":
            tasks = await self._storage.tasks_of_run(record.uid)
            names = {str(task.request["agent"]) for task in tasks if task.state is TaskState.QUEUED and task.parent}
            return next((found for name in sorted(names) if (found := self._shortage(namespace, name))), "")
        if facts.agent:
            return self._shortage(namespace, facts.agent)
        troubles = (pod_trouble(pod) for pod in self._objects.owned("Pod", meta(run)["uid"]))
        return next((trouble[1] for trouble in troubles if trouble is not None), "")

    def _shortage(self, namespace: str, name: str) -> str:
        """Return why an Agent has no pod for the run."""
        agent = self._objects.find("Agent", namespace, name)
        if agent is None:
            return f'Agent "{name}" does not exist any more: apply it again, or stop the run.'
        ready = conditions.find(conditions_of(agent), ConditionType.READY) or {}
        if ready.get("status") == "True" and ready.get("reason") != Reason.SCALED_TO_ZERO:
            return ""
        return f'Agent "{name}" has no pod that can take it: {ready.get("message", "")}'

    # -- after the end ------------------------------------------------------------------------------------------------

    async def _finish(self, run: Obj, record: Run, facts: Facts) -> float | None:
        fresh = await self._applier.write_status(run, await self._summary(run, record, facts))
        reason, text, warning = runstatus.event_of(record)
        await self._applier.tell(run, reason, text, warning=warning)
        self._forget(record.uid)
        await self._make_room(record)
        return None if fresh is None else await self._after_the_end(fresh)

    async def _after_the_end(self, run: Obj) -> float | None:
        """Delete what has had its time: the run's own pods, and by ``ttlSecondsAfterFinished`` the run."""
        age = self._age(run)
        pods = self._objects.owned("Pod", meta(run)["uid"])
        own = [pod for pod in pods if not has_stopped(pod) and not is_leaving(pod)]
        if own and age >= _POD_GRACE:
            for pod in own:
                await self._applier.delete(pod, "the run has ended")
        ttl = self._ttl(run)
        if ttl is not None and age >= ttl:
            await self._applier.delete(run, "ttlSecondsAfterFinished")
            return None
        waits = [limit - age for limit in ((_POD_GRACE if own else None), ttl) if limit is not None and limit > age]
        return min(waits, default=None)

    def _is_overdue(self, pod: Obj) -> bool:
        """Return whether a pod should have been gone for so long that nobody ends it: its node is not there."""
        due = meta(pod).get("deletionTimestamp")
        if due is None:
            return False
        return (self._clock.now() - datetime.fromisoformat(due)).total_seconds() > _OVERDUE_SECONDS

    def _age(self, run: Obj) -> float:
        """Return how long ago the run ended, by the clock that wrote its status."""
        ended = status_of(run).get("completionTime")
        return (self._clock.now() - datetime.fromisoformat(ended)).total_seconds() if ended else 0.0

    def _ttl(self, run: Obj) -> float | None:
        spec = spec_of(run)
        own: float | None = spec.get("ttlSecondsAfterFinished")
        if own is not None:
            return own
        inline = spec.get("workflow")
        if inline is not None:
            return inline.get("ttlSecondsAfterFinished")  # type: ignore[no-any-return]  # an integer, as the schema says
        name = status_of(run).get("workflow")
        workflow = self._objects.find("Workflow", meta(run)["namespace"], name) if name else None
        return spec_of(workflow).get("ttlSecondsAfterFinished") if workflow is not None else None


def _is_there(pod: Obj) -> bool:
    return not is_over(pod) and not is_leaving(pod)


def _wants_pod(record: Run, facts: Facts) -> bool:
    """Return whether a run has use for a pod of its own: not while it waits, nor for an end without ``finally``."""
    waits = bool(record.parked) or (record.suspended and record.state is RunState.QUEUED)
    return not waits and (not record.cancel_reason or facts.has_finally)
