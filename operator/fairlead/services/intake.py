"""Takes new WorkflowRuns in: accepts or rejects them, has them wait, plans them, or puts them on the work queue."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from fairlead.api.conditions import ConditionType, EventReason, Reason
from fairlead.clock import Clock
from fairlead.core import conditions, runstatus
from fairlead.core.actions import Obj, conditions_of, meta, spec_of
from fairlead.core.references import References, Source, collect
from fairlead.core.runplan import There
from fairlead.core.workflowrun import Accepted, Earlier, Rejected, Waiting, accept, pool_of, source_of
from fairlead.services.applying import Applier
from fairlead.services.declared import finder, problems_of
from fairlead.services.ending import Endings, Facts
from fairlead.services.graphchecks import GraphChecks
from fairlead.services.objects import Objects
from fairlead.services.planning import Planning
from fairlead.services.slots import Slots
from fairlead.storage import Storage
from fairlead.storage.base import QueuedTask, Revision, Run, RunEnd, RunState

_STOPPED: Final = "The run was stopped by spec.stop."
_CHANGED: Final = (
    "inputs or workflow were changed while the run waited, and cannot change once a run exists: make a new run instead."
)
_REPLACED: Final = "A newer run took its place: the workflow's concurrency has the policy Replace."


class Intake:
    """Brings runs from the cluster into storage, each once."""

    def __init__(  # noqa: PLR0913 - what it composes
        self,
        storage: Storage,
        objects: Objects,
        *,
        applier: Applier,
        checks: GraphChecks,
        slots: Slots,
        endings: Endings,
        planning: Planning,
        clock: Clock,
        cluster: str,
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._applier = applier
        self._checks = checks
        self._slots = slots
        self._endings = endings
        self._planning = planning
        self._clock = clock
        self._cluster = cluster
        self._waiting: dict[str, float] = {}

    def forget(self, uid: str) -> None:
        """Forget a run that is gone or over."""
        self._waiting.pop(uid, None)
        self._slots.leave(uid)

    async def take(self, run: Obj) -> Run | float | None:
        """Look at a run that is not in storage; return what it is there now, or in how many seconds to look again."""
        if spec_of(run).get("stop"):
            await self._stop(run)
            return None
        if runstatus.is_changed(run):
            await self._reject(run, Reason.INVALID_SPEC, _CHANGED)
            return None
        earlier = await self._earlier(run)
        source, find = source_of(run, finder(self._objects, meta(run)["namespace"]), earlier)
        there = References() if source is None else collect(source.spec, find)
        problems = () if source is None else await problems_of(self._checks, source, there.specs("Workflow"))
        match accept(run, source, there, problems=problems, earlier=earlier):
            case Rejected(reason, message):
                await self._reject(run, reason, message)
                return None
            case Waiting() as waiting:
                return await self._wait(run, waiting)
            case Accepted() as accepted:
                return await self._admit(run, accepted, earlier)

    async def _stop(self, run: Obj) -> None:
        self.forget(meta(run)["uid"])
        await self._applier.write_status(run, runstatus.stopped(run, _STOPPED, at=self._clock.now()))

    async def _earlier(self, run: Obj) -> Earlier | None:
        asked = spec_of(run).get("rerunOf")
        if not asked:
            return None
        namespace, name = meta(run)["namespace"], asked["name"]
        uid = asked.get("uid")
        found = await (self._storage.get_run(uid) if uid else self._storage.find_run(self._cluster, namespace, name))
        if found is None or (found.cluster, found.namespace, found.name) != (self._cluster, namespace, name):
            return None
        revision = await self._storage.get_revision(found.revision)
        document = revision.document if revision is not None else None
        return Earlier(found.uid, ended=found.state.final, inputs=found.inputs, document=document)

    async def _reject(self, run: Obj, reason: str, message: str) -> None:
        self.forget(meta(run)["uid"])
        await self._applier.write_status(run, runstatus.rejected(run, reason, message, at=self._clock.now()))
        await self._applier.tell(run, EventReason.RUN_FAILED, f"{reason}: {message}", warning=True)

    # -- waiting for something to appear ------------------------------------------------------------------------------

    async def _wait(self, run: Obj, waiting: Waiting) -> float | None:
        left = waiting.seconds - self._waited(run)
        if left <= 0:
            text = f"{waiting.message} It did not within pendingTimeoutSeconds ({waiting.seconds:.0f})."
            await self._reject(run, Reason.PENDING_TIMEOUT, text)
            return None
        await self._applier.write_status(run, runstatus.pending(run, waiting.reason, waiting.message))
        return left

    def _waited(self, run: Obj) -> float:
        """Return for how many seconds the run has been waiting for what is not there.

        After a restart it is known from the condition, by the clock that wrote it. The time that it waited for others
        to end does not count.
        """
        now, uid = self._clock.monotonic(), meta(run)["uid"]
        if uid not in self._waiting:
            condition = conditions.find(conditions_of(run), ConditionType.RECONCILING)
            if condition is None or condition["reason"] == Reason.CONCURRENCY_LIMIT:
                self._waiting[uid] = now
            else:
                since = datetime.fromisoformat(condition["lastTransitionTime"])
                self._waiting[uid] = now - (self._clock.now() - since).total_seconds()
        return now - self._waiting[uid]

    # -- waiting for others to end ------------------------------------------------------------------------------------

    async def _admit(self, run: Obj, accepted: Accepted, earlier: Earlier | None) -> Run | float | None:
        concurrency = accepted.source.spec.get("concurrency")
        if not concurrency or not accepted.source.name or spec_of(run).get("dryRun"):
            return await self._queue(run, accepted, earlier)
        place = (meta(run)["namespace"], accepted.source.name)
        async with self._slots.lock(place):
            decided = await self._slots.admit(run, place, concurrency)
            for uid in decided.replace:
                await self._replace(uid)
            match decided.verdict:
                case "Start":
                    return await self._queue(run, accepted, earlier)
                case "Wait":
                    await self._hold(run, concurrency["limit"], accepted.source.name)
                case "Forbidden":
                    await self._reject(run, Reason.CONCURRENCY_FORBIDDEN, _forbidden(accepted.source))
                case "Replaced":
                    await self._reject(run, Reason.REPLACED, _REPLACED)
        return None

    async def _hold(self, run: Obj, limit: int, workflow: str) -> None:
        self._waiting.pop(meta(run)["uid"], None)
        text = f"As many runs of the workflow are active as its concurrency.limit ({limit}) allows."
        await self._applier.write_status(run, runstatus.pending(run, Reason.CONCURRENCY_LIMIT, text, workflow=workflow))

    async def _replace(self, uid: str) -> None:
        record = await self._storage.get_run(uid)
        if record is not None:
            await self._endings.cancel(record, Reason.REPLACED, _REPLACED)

    # -- into storage -------------------------------------------------------------------------------------------------

    async def _queue(self, run: Obj, accepted: Accepted, earlier: Earlier | None) -> Run:
        self.forget(meta(run)["uid"])
        now, dry = self._clock.now(), bool(spec_of(run).get("dryRun"))
        limit = accepted.source.spec.get("timeoutSeconds")
        deadline = now + timedelta(seconds=limit) if limit else None
        record = self._record(run, accepted, earlier, now=now)
        pool = pool_of(run, accepted.source, self._cluster)
        task = QueuedTask(record.uid, record.uid, pool, priority=record.priority, deadline=deadline)
        revision = Revision(accepted.revision, accepted.document)
        await self._storage.submit(record, revision=revision, task=None if dry else task)
        self._endings.remember(record.uid, Facts.of(accepted.document, deadline))
        return record

    def _record(self, run: Obj, accepted: Accepted, earlier: Earlier | None, *, now: datetime) -> Run:
        spec = spec_of(run)
        return Run(
            uid=meta(run)["uid"],
            cluster=self._cluster,
            namespace=meta(run)["namespace"],
            name=meta(run)["name"],
            workflow=accepted.source.name,
            revision=accepted.revision,
            inputs=accepted.inputs,
            created_at=now,
            priority=int(spec.get("priority") or 0),
            suspended=bool(spec.get("suspend")),
            budget=spec.get("budget"),
            rerun_of=earlier.uid if earlier is not None else "",
            rerun_from=str(spec["rerunOf"].get("from", "Failed")) if earlier is not None else "",
        )

    async def finish_dry_run(self, record: Run) -> None:
        """End a dry run: its output is the plan."""
        revision = await self._storage.get_revision(record.revision)
        document: dict[str, Any] = dict(revision.document) if revision is not None else {}
        plan = await self._planning.plan(
            record.namespace,
            record.workflow,
            spec=document["workflow"]["spec"],
            inputs=record.inputs,
            there=There.of_document(document),
        )
        text = "Nothing was run: the output is the plan."
        if plan.problems:
            text = f"Nothing was run: the output is the plan. A run would not start: {plan.problems[0].message}"
        end = RunEnd(RunState.SUCCEEDED, Reason.DRY_RUN, text, output=plan.to_json(), at=self._clock.now())
        await self._storage.end_run(record.uid, end)


def _forbidden(source: Source) -> str:
    limit = source.spec["concurrency"]["limit"]
    return (
        f'As many runs of Workflow "{source.name}" are active as its concurrency.limit ({limit}) allows, and the '
        "policy is Forbid: make the run again when one has ended, or set the policy to Queue."
    )
