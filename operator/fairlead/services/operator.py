"""The operator without Kopf: events in, reconciled objects out, and the loops that need no event."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.actions import Drain, Obj, meta
from fairlead.core.pool import is_elastic, is_over
from fairlead.core.statuses import hindered
from fairlead.core.workflow import is_finished
from fairlead.errors import FairleadError, Refused, RetryableError, TerminalError
from fairlead.kube import KubeClient, Ref
from fairlead.logs import get_logger
from fairlead.redaction import redact
from fairlead.services import modelhealth
from fairlead.services.applying import Applier
from fairlead.services.declared import Planner
from fairlead.services.leases import UNWRITTEN
from fairlead.services.liveness import Liveness
from fairlead.services.modelhealth import ModelHealth
from fairlead.services.objects import Key, Objects
from fairlead.services.pools import Pools
from fairlead.services.runs import Runs
from fairlead.services.watchdog import WatchDead, Watchdog
from fairlead.services.workqueue import WorkQueue
from fairlead.storage import Storage
from fairlead.storage.base import Event, Run

_log = get_logger(__name__)
_WORKERS: Final = 8
_BUS_SECONDS: Final = 0.02
"""Events of one run that come within this time are looked at together."""
_TOPICS: Final = ("run", "agent", "queue", modelhealth.TOPIC, UNWRITTEN)
_ARRIVAL_SECONDS: Final = 0.25
"""After work came for a pool: a pod that has room has taken it by then."""
_REFUSED_SECONDS: Final = 60.0
"""Before something that was refused (a quota, a policy) is tried again."""
_FIRST_RESYNC_SECONDS: Final = 3.0
"""After the start, when the watches have shown what there is."""
_ACTIVE_LIMIT: Final = 100_000
DECLARED: Final = ("Workflow", "Agent", "Model", "Tool")


class Operator:
    """Everything that the watches feed."""

    def __init__(  # noqa: PLR0913 - what it composes
        self,
        kube: KubeClient,
        storage: Storage,
        objects: Objects,
        *,
        applier: Applier,
        planner: Planner,
        pools: Pools,
        health: ModelHealth,
        runs: Runs,
        liveness: Liveness,
        watchdog: Watchdog,
        clock: Clock,
        cluster: str,
        namespaces: Sequence[str],
        resync_seconds: float,
    ) -> None:
        self._kube = kube
        self._storage = storage
        self._objects = objects
        self._applier = applier
        self._planner = planner
        self._pools = pools
        self._health = health
        self._runs = runs
        self._liveness = liveness
        self._watchdog = watchdog
        self._clock = clock
        self._cluster = cluster
        self._namespaces = frozenset(namespaces)
        self._resync_seconds = resync_seconds
        self.queue = WorkQueue(self.reconcile, clock)
        runs.wake = self.queue.add
        self.resynced_at = clock.monotonic()
        """When the last full look began, by the monotonic clock."""

    async def prime(self) -> None:
        """Take in what there is; before the watches and `run`."""
        await self._watchdog.prime()
        await self._liveness.look()  # whoever has not looked takes every pod for dead

    async def run(self) -> None:
        """Work for ever; ends only by an error."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run(_WORKERS), name="work queue")
            group.create_task(self._listen(), name="event bus")
            group.create_task(self._resync(), name="resync")
            group.create_task(self._liveness.run(self._lives_changed), name="leases")

    # -- what the watches show ----------------------------------------------------------------------------------------

    async def observe(self, kind: str | None, obj: Mapping[str, Any]) -> None:
        """Take in an event of a watch: ``ADDED``, ``MODIFIED``, ``DELETED``, or None: it was there at the start."""
        gone = kind == "DELETED"
        known = self._objects.get(Key(obj["kind"], meta(obj)["uid"]))
        key = self._objects.remove(obj) if gone else self._objects.put(obj)
        if key.kind == "WorkflowRun":
            await self.queue.add(key)
            await self._add_owners(obj, "Workflow")
        elif key.kind == "Pod":
            await self._observe_pod(key, obj, gone=gone)
        elif gone or known is None or meta(known).get("generation") != meta(obj).get("generation"):
            await self._add_dependents(obj)

    async def _observe_pod(self, key: Key, pod: Obj, *, gone: bool) -> None:
        await self._add_owners(pod, "Agent", "WorkflowRun")
        if gone or is_over(pod):
            await self.queue.add(key)

    async def _add_owners(self, obj: Obj, *kinds: str) -> None:
        for owner in meta(obj).get("ownerReferences") or ():
            if owner["kind"] in kinds and self._objects.get(Key(owner["kind"], owner["uid"])) is not None:
                await self.queue.add(Key(owner["kind"], owner["uid"]))

    async def _add_dependents(self, obj: Obj) -> None:
        """Have everything looked at that refers to *obj* and is not over."""
        kind, namespace, name = obj["kind"], meta(obj).get("namespace", ""), meta(obj)["name"]
        for key in self._planner.dependents(kind, namespace, name):
            await self.queue.add(key)
        for run in self._objects.list("WorkflowRun", namespace):
            if not is_finished(run) and self._is_pending(run):
                await self.queue.add(Key("WorkflowRun", meta(run)["uid"]))

    @staticmethod
    def _is_pending(run: Obj) -> bool:
        """Return whether a run has not been queued yet: it may wait for whatever has appeared."""
        return not (run.get("status") or {}).get("revision")

    # -- reconcile ----------------------------------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> float | None:
        """Bring one object to where it should be; return in how many seconds to look again."""
        try:
            if key.kind == "Pod":
                await self._reconcile_pod(key)
                return None
            if key.kind == "WorkflowRun":
                return await self._runs.reconcile(key)
            return await self._reconcile_declared(key)
        except FairleadError as error:
            return await self._hindered(key, error)

    async def _reconcile_declared(self, key: Key) -> float | None:
        obj = self._objects.get(key)
        if obj is None or meta(obj).get("deletionTimestamp"):
            self._planner.forget(key)
            return None
        plan = await self._planner.plan(obj)
        try:
            await self._applier.act(plan.actions)
        except Refused as error:
            if key.kind != "Agent":
                raise
            _log.warning("pod_refused", namespace=meta(obj)["namespace"], name=meta(obj)["name"], error=str(error))
            await self._applier.write_status(obj, await self._planner.plan(obj, refused=error))
            return _REFUSED_SECONDS
        if any(isinstance(action, Drain) for action in plan.actions):
            self._liveness.wake()
        await self._applier.write_status(obj, plan)
        return plan.look_again

    async def _reconcile_pod(self, key: Key) -> None:
        """Send on the work of a pod that is gone or over."""
        pod = self._objects.get(key)
        if pod is None or is_over(pod):
            await self._storage.requeue_pod(key.uid, at=self._clock.now())

    async def _hindered(self, key: Key, error: FairleadError) -> float | None:
        """Say on the object what hinders, then have it tried again."""
        _log.warning("reconcile_hindered", kind=key.kind, uid=key.uid, reason=error.reason, error=str(error))
        obj = self._objects.get(key)
        if obj is not None and key.kind != "Pod" and not is_finished(obj):
            reason = Reason.REFUSED if isinstance(error, TerminalError) else Reason.PROGRESSING_WITH_RETRY
            plan = hindered(key.kind, reason, redact(str(error)), generation=meta(obj)["generation"])
            try:
                await self._applier.write_status(obj, plan)
            except FairleadError as another:
                _log.warning("status_not_written", kind=key.kind, uid=key.uid, error=str(another))
        if isinstance(error, RetryableError):
            raise error
        return _REFUSED_SECONDS

    # -- what no watch shows ------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Follow the event bus: it makes things quick, the resync makes them sure."""
        while True:
            try:
                async with aclosing(self._storage.subscribe(*_TOPICS)) as events:  # type: ignore[type-var]
                    async for event in events:
                        await self._hear(event)
            except RetryableError as error:
                _log.warning("bus_lost", error=str(error))
                await self._clock.sleep(error.retry_after)

    async def _hear(self, event: Event) -> None:
        if event.topic == "agent":
            self._liveness.wake()
        elif event.topic == UNWRITTEN:
            self._liveness.hear(event.key)
        elif event.topic == "queue":
            await self._work_arrived(event.key)
        elif event.topic == modelhealth.TOPIC:
            await self._model_heard(event.key)
        elif self._objects.get(Key("WorkflowRun", event.key)) is not None:
            await self.queue.add(Key("WorkflowRun", event.key), _BUS_SECONDS)
        else:
            await self._runs.ended_alone(event.key)

    async def _model_heard(self, key: str) -> None:
        """Have a Model looked at, and those that think with it, when it stops or begins to answer."""
        place = self._health.heard(key)
        if place is None:
            return
        model = self._objects.find("Model", *place)
        own = [Key("Model", meta(model)["uid"])] if model is not None else []
        for found in (*own, *self._planner.dependents("Model", *place)):
            await self.queue.add(found)

    async def _work_arrived(self, pool: str) -> None:
        """Have an Agent looked at whose pool follows its work."""
        found = self._pools.arrived(pool)
        if found is None:
            return
        namespace, label = found
        agents = (self._objects.find("Agent", namespace, label), *self._objects.list("Agent", namespace))
        agent = next((one for one in agents if one and names.label_value(meta(one)["name"]) == label), None)
        if agent is not None and is_elastic(agent):
            await self.queue.add(Key("Agent", meta(agent)["uid"]), _ARRIVAL_SECONDS)

    async def _lives_changed(self, pods: frozenset[str]) -> None:
        """Have the owners of pods looked at that came to life or went silent."""
        for uid in pods:
            if self._objects.get(Key("Agent", uid)) is not None:  # it is external, and holds a Lease itself
                await self.queue.add(Key("Agent", uid))
            pod = self._objects.get(Key("Pod", uid))
            if pod is not None:
                await self._add_owners(pod, "Agent", "WorkflowRun")

    async def _resync(self) -> None:
        """Look at everything once in a while, should a message have been lost."""
        await self._clock.sleep(min(self._resync_seconds, _FIRST_RESYNC_SECONDS))
        check = self._watchdog.check_all  # between the first list and the watches something may have gone
        while True:
            self.resynced_at = self._clock.monotonic()
            try:
                for gone in await check():
                    await self.observe("DELETED", gone)
                await self.resync()
                check = self._watchdog.check
            except WatchDead:
                raise
            except FairleadError as error:
                _log.warning("resync_hindered", error=str(error))
            await self._clock.sleep(self._resync_seconds)

    async def resync(self) -> None:
        """Queue everything that is not over, and find what happened while nobody watched."""
        for key in self._objects.keys(*DECLARED, "WorkflowRun"):
            obj = self._objects.get(key)
            if obj is not None and not (key.kind == "WorkflowRun" and is_finished(obj)):
                await self.queue.add(key)
        for record in await self._storage.list_runs(self._cluster, active=True, limit=_ACTIVE_LIMIT):
            await self._look_for_object(record)
        for session in await self._storage.list_sessions(self._cluster):
            await self._look_for_pod(session.namespace, session.pod, session.pod_uid)

    async def _look_for_object(self, record: Run) -> None:
        if not self._serves(record.namespace) or self._objects.get(Key("WorkflowRun", record.uid)) is not None:
            return
        found = await self._kube.get(Ref(names.API_VERSION, "WorkflowRun", record.name, record.namespace))
        if found is None or meta(found)["uid"] != record.uid:
            await self._runs.cancel_orphan(record)

    async def _look_for_pod(self, namespace: str, name: str, uid: str) -> None:
        if not self._serves(namespace) or self._objects.get(Key("Pod", uid)) is not None:
            return
        found = await self._kube.get(Ref("v1", "Pod", name, namespace))
        if found is None or meta(found)["uid"] != uid:
            await self._storage.requeue_pod(uid, at=self._clock.now())

    def _serves(self, namespace: str) -> bool:
        return not self._namespaces or namespace in self._namespaces
