"""Looks after WorkflowRuns: accept, queue, follow, end. Writes their status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fairlead.api.conditions import ConditionType, EventReason, Reason
from fairlead.clock import Clock
from fairlead.core import conditions, runstatus
from fairlead.core.actions import Obj, Plan, conditions_of, meta, spec_of, status_of
from fairlead.core.agent import is_over, pod_trouble
from fairlead.core.references import References, agent_of
from fairlead.core.workflow import is_finished
from fairlead.core.workflowrun import Accepted, Rejected, Waiting, accept, plan_run_pods, pool_of, source_of
from fairlead.services.applying import Applier
from fairlead.services.declared import references_of
from fairlead.services.graphchecks import GraphChecks
from fairlead.services.objects import Key, Objects
from fairlead.services.podsettings import PodSettingsSource
from fairlead.storage import Storage
from fairlead.storage.base import QueuedTask, Revision, Run, RunEnd, RunState

_STATUS_SECONDS: Final = 1.0
"""Between two writes of one run's status."""
_FIRST_STATUS_SECONDS: Final = 0.25
"""After queueing: a warm pod has taken the run by then, and one write says it all."""
_TIMEOUT_GRACE: Final = 15.0
"""The agent ends a run at its time-out; the operator does when the agent has not by then."""
_POD_GRACE: Final = 30.0
"""What a run's own pod has to end by itself after the run has."""
_DELETED: Final = "The WorkflowRun was deleted."
_STOPPED: Final = "The run was stopped by spec.stop."


@dataclass(frozen=True, slots=True)
class _Facts:
    """What does not change while a run is active."""

    agent: str
    deadline: datetime | None


class Runs:
    """Brings runs to where they should be, one at a time for each uid."""

    def __init__(  # noqa: PLR0913 - what it composes
        self,
        storage: Storage,
        objects: Objects,
        *,
        applier: Applier,
        checks: GraphChecks,
        pods: PodSettingsSource,
        clock: Clock,
        cluster: str,
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._applier = applier
        self._checks = checks
        self._pods = pods
        self._clock = clock
        self._cluster = cluster
        self._facts: dict[str, _Facts] = {}
        self._written: dict[str, float] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Look after one run; return in how many seconds to look again."""
        run = self._objects.get(key)
        if run is None or meta(run).get("deletionTimestamp"):
            self._forget(key.uid)
            await self._cancel(key.uid, _DELETED)
            return None
        if is_finished(run):
            self._forget(key.uid)
            return await self._after_the_end(run)
        record = await self._storage.get_run(key.uid)
        if record is None:
            return await self._accept(run)
        return await self._follow(run, record)

    async def cancel_orphan(self, record: Run) -> None:
        """Cancel a run whose object is gone; its history stays."""
        await self._cancel(record.uid, _DELETED)

    def _forget(self, uid: str) -> None:
        self._facts.pop(uid, None)
        self._written.pop(uid, None)

    async def _cancel(self, uid: str, message: str) -> None:
        record = await self._storage.get_run(uid)
        if record is not None and not record.state.final and not record.cancel_reason:
            now = self._clock.now()
            await self._storage.cancel_run(uid, reason=Reason.CANCELLED, message=message, at=now)

    # -- before a run is queued ---------------------------------------------------------------------------------------

    async def _accept(self, run: Obj) -> float | None:
        generation = meta(run)["generation"]
        if spec_of(run).get("stop"):
            await self._end(run, runstatus.stopped(_STOPPED, generation=generation, at=self._clock.now()))
            return None
        namespace = meta(run)["namespace"]
        name = (spec_of(run).get("workflowRef") or {}).get("name")
        workflow = self._objects.find("Workflow", namespace, name) if name else None
        source = source_of(run, workflow)
        there = References() if source is None else references_of(self._objects, namespace, source.spec)
        problems = () if source is None else await self._checks.problems(source.spec)
        match accept(run, source, there, problems=problems):
            case Rejected(reason, message):
                await self._reject(run, reason, message)
                return None
            case Waiting() as waiting:
                return await self._wait(run, waiting)
            case Accepted() as accepted:
                return await self._queue(run, accepted)

    async def _reject(self, run: Obj, reason: Reason, message: str) -> None:
        at, generation = self._clock.now(), meta(run)["generation"]
        await self._end(run, runstatus.rejected(reason, message, generation=generation, at=at))
        await self._applier.tell(run, EventReason.RUN_FAILED, f"{reason}: {message}", warning=True)

    async def _wait(self, run: Obj, waiting: Waiting) -> float | None:
        left = waiting.seconds - self._waited(run)
        if left <= 0:
            text = f"{waiting.message} It did not within pendingTimeoutSeconds ({waiting.seconds:.0f})."
            await self._reject(run, Reason.PENDING_TIMEOUT, text)
            return None
        plan = runstatus.pending(waiting.reason, waiting.message, generation=meta(run)["generation"])
        await self._applier.write_status(run, plan)
        return left

    def _waited(self, run: Obj) -> float:
        """Return for how many seconds the run has been waiting, by the clock that wrote its condition."""
        condition = conditions.find(conditions_of(run), ConditionType.RECONCILING)
        if condition is None:
            return 0.0
        since = datetime.fromisoformat(condition["lastTransitionTime"])
        return (self._clock.now() - since).total_seconds()

    async def _queue(self, run: Obj, accepted: Accepted) -> float:
        now = self._clock.now()
        limit = accepted.source.spec.get("timeoutSeconds")
        deadline = now + timedelta(seconds=limit) if limit else None
        uid = meta(run)["uid"]
        record = Run(
            uid=uid,
            cluster=self._cluster,
            namespace=meta(run)["namespace"],
            name=meta(run)["name"],
            workflow=accepted.source.name,
            revision=accepted.revision,
            inputs=accepted.inputs,
            created_at=now,
        )
        pool = pool_of(run, accepted.source, self._cluster)
        task = QueuedTask(id=uid, run_uid=uid, pool=pool, deadline=deadline)
        await self._storage.submit(record, revision=Revision(accepted.revision, accepted.document), task=task)
        self._facts[uid] = _Facts(agent_of(accepted.source.spec), deadline)
        self._written[uid] = self._clock.monotonic() + _FIRST_STATUS_SECONDS - _STATUS_SECONDS
        await self._look_after_pods(run, record, self._facts[uid])
        return _FIRST_STATUS_SECONDS

    # -- while it is active -------------------------------------------------------------------------------------------

    async def _follow(self, run: Obj, record: Run) -> float | None:
        facts = await self._facts_of(record)
        if not record.state.final:
            if spec_of(run).get("stop"):
                await self._cancel(record.uid, _STOPPED)
            await self._watch_deadline(record, facts)
            record = await self._storage.get_run(record.uid) or record
        if record.state.final:
            return await self._finish(run, record, facts)
        await self._look_after_pods(run, record, facts)
        due = self._written.get(record.uid, float("-inf")) + _STATUS_SECONDS - self._clock.monotonic()
        if due > 0:
            return due
        self._written[record.uid] = self._clock.monotonic()
        await self._applier.write_status(run, self._summary(run, record, facts))
        return self._seconds_left(facts)

    async def _facts_of(self, record: Run) -> _Facts:
        known = self._facts.get(record.uid)
        if known is None:
            revision = await self._storage.get_revision(record.revision)
            agents = revision.document["agents"] if revision is not None else {}
            tasks = await self._storage.tasks_of_run(record.uid)
            known = _Facts(next(iter(agents), ""), tasks[0].deadline if tasks else None)
            self._facts[record.uid] = known
        return known

    def _seconds_left(self, facts: _Facts) -> float | None:
        """Return the time until the deadline, or its grace, is over."""
        if facts.deadline is None:
            return None
        left = (facts.deadline - self._clock.now()).total_seconds()
        return left if left > 0 else max(left + _TIMEOUT_GRACE, 0.0)

    async def _watch_deadline(self, record: Run, facts: _Facts) -> None:
        """End a run that is over its time: at once if no pod has it, otherwise if the agent does not do so itself."""
        if facts.deadline is None:
            return
        late = (self._clock.now() - facts.deadline).total_seconds()
        grace = 0.0 if record.state is RunState.QUEUED else _TIMEOUT_GRACE
        if late >= grace:
            text = "The run took longer than the workflow's timeoutSeconds."
            end = RunEnd(RunState.FAILED, Reason.TIMEOUT, text, output=None, at=self._clock.now())
            await self._storage.end_run(record.uid, end)

    async def _look_after_pods(self, run: Obj, record: Run, facts: _Facts) -> None:
        if facts.agent:
            return
        own = self._objects.owned("Pod", record.uid)
        settings = await self._pods.get()
        actions = plan_run_pods(run, own, attempt=record.attempt, active=not record.cancel_reason, settings=settings)
        await self._applier.act(actions)

    def _summary(self, run: Obj, record: Run, facts: _Facts) -> Plan:
        return runstatus.summarize(
            record,
            generation=meta(run)["generation"],
            agent=facts.agent,
            waits_for="" if record.state.final else self._waits_for(run, facts),
        )

    def _waits_for(self, run: Obj, facts: _Facts) -> str:
        """Return why no pod takes the run, if there is more to say than that all are busy."""
        if not facts.agent:
            troubles = (pod_trouble(pod) for pod in self._objects.owned("Pod", meta(run)["uid"]))
            return next((trouble[1] for trouble in troubles if trouble is not None), "")
        agent = self._objects.find("Agent", meta(run)["namespace"], facts.agent)
        if agent is None:
            return f'Agent "{facts.agent}" does not exist any more: apply it again, or stop the run.'
        ready = conditions.find(conditions_of(agent), ConditionType.READY) or {}
        if ready.get("status") == "True" and ready.get("reason") != Reason.SCALED_TO_ZERO:
            return ""
        return f'Agent "{facts.agent}" has no pod that can take it: {ready.get("message", "")}'

    # -- after the end ------------------------------------------------------------------------------------------------

    async def _finish(self, run: Obj, record: Run, facts: _Facts) -> float | None:
        fresh = await self._applier.write_status(run, self._summary(run, record, facts))
        reason, text, warning = runstatus.event_of(record)
        await self._applier.tell(run, reason, text, warning=warning)
        self._forget(record.uid)
        return None if fresh is None else await self._after_the_end(fresh)

    async def _end(self, run: Obj, plan: Plan) -> None:
        await self._applier.write_status(run, plan)

    async def _after_the_end(self, run: Obj) -> float | None:
        """Delete what has had its time: the run's own pods, and by ``ttlSecondsAfterFinished`` the run."""
        age = self._age(run)
        own = [pod for pod in self._objects.owned("Pod", meta(run)["uid"]) if not _is_gone(pod)]
        if own and age >= _POD_GRACE:
            for pod in own:
                await self._applier.delete(pod, "the run has ended")
        ttl = self._ttl(run)
        if ttl is not None and age >= ttl:
            await self._applier.delete(run, "ttlSecondsAfterFinished")
            return None
        waits = [limit - age for limit in ((_POD_GRACE if own else None), ttl) if limit is not None and limit > age]
        return min(waits, default=None)

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
        name = (spec.get("workflowRef") or {}).get("name", "")
        workflow = self._objects.find("Workflow", meta(run)["namespace"], name)
        return spec_of(workflow).get("ttlSecondsAfterFinished") if workflow is not None else None


def _is_gone(pod: Obj) -> bool:
    return is_over(pod) or bool(meta(pod).get("deletionTimestamp"))
