"""Makes one pod true: observes it, plans, applies the plan, reports its status."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, assert_never

from fairlead.clock import Clock
from fairlead.errors import FairleadError, InvalidObject, RetryableError
from fairlead.kube import KubeClient, Ref
from fairlead.localcluster.podruntime.engine import Adopted, Engine, Launch, Running
from fairlead.localcluster.podruntime.logs import LogFile, pod_log_folder
from fairlead.localcluster.podruntime.plan import (
    Action,
    Bind,
    Kill,
    Plan,
    Remove,
    Rules,
    Start,
    Stop,
    finished,
    plan_pod,
)
from fairlead.localcluster.podruntime.probes import KINDS, READINESS, STARTUP, Prober, Verdict
from fairlead.localcluster.podruntime.recorder import Recorder
from fairlead.localcluster.podruntime.state import (
    KILLED,
    LOST,
    Container,
    Exit,
    Json,
    Waiting,
    exit_of,
    image_problem,
    recover,
)
from fairlead.localcluster.podruntime.status import build_status
from fairlead.localcluster.podruntime.volumes import Volumes
from fairlead.logs import get_logger

_log = get_logger(__name__)
_PROBLEM_RETRY: Final = timedelta(seconds=10)
_SOON: Final = timedelta(seconds=2)
_ERROR_RETRY_SECONDS: Final = 5.0
_WAIT_EVENTS: Final = {
    "ErrImageNeverPull": "Failed",
    "CreateContainerConfigError": "Failed",
    "CrashLoopBackOff": "BackOff",
}


@dataclass(frozen=True, slots=True)
class Node:
    """What all pods of this machine share."""

    client: KubeClient
    clock: Clock
    recorder: Recorder
    rules: Rules
    engine: Engine
    pods_dir: Path
    log_dir: Path


class PodWorker:
    """One pod, from the moment it is seen until its object is gone."""

    def __init__(self, node: Node, pod: Json) -> None:
        self._node, self._pod = node, pod
        self.uid: str = pod["metadata"]["uid"]
        self._volumes = Volumes(node.client, node.clock, node.pods_dir / self.uid, node.engine.access(pod))
        self._containers = _recovered(pod, now=node.clock.now())
        self._running: dict[str, Running] = {}
        self._exits: set[asyncio.Task[None]] = set()
        self._refresh_at: datetime | None = None
        self._reported: Json | None = None
        self._noted: set[tuple[str, str, int]] = set()
        self._wake = asyncio.Event()
        self._gone = False
        self._released = False
        """Whether nothing is left of it but its object and its logs."""

    def update(self, pod: Json) -> None:
        """Take note of the pod as it is now."""
        self._pod = pod
        self._wake.set()

    def gone(self) -> None:
        """Take note that the object is no more: its processes end at once."""
        self._gone = True
        self._wake.set()

    async def run(self) -> None:
        """Work until the pod is gone."""
        adopted = False
        while not self._gone:
            self._wake.clear()
            pause = _ERROR_RETRY_SECONDS
            try:
                if not adopted:
                    await self._adopt()
                    adopted = True
                pause = await self._pass()
            except RetryableError as error:
                _log.info("pod_pass_failed", **self._keys(), error=str(error))
            except FairleadError as error:
                _log.warning("pod_pass_refused", **self._keys(), error=str(error))
            await _wait(self._wake, pause)
        await self._clean()

    async def shut_down(self, *, seconds: float) -> None:
        """End the pod's processes because the runtime ends; the object stays and goes on when it is back."""
        for running in list(self._running.values()):
            await running.stop()
        if self._exits:
            await asyncio.wait(self._exits, timeout=seconds)
        for running in list(self._running.values()):
            await running.kill()
        if self._exits:
            await asyncio.wait(self._exits)

    async def _adopt(self) -> None:
        """Take over what an earlier runtime started for this pod: it ran on while nobody looked."""
        if self._pod["spec"].get("nodeName") != self._node.rules.node:
            return
        over = [each.ended.ident for each in self._containers.values() if each.ended is not None and not each.lost]
        found = await self._node.engine.adopt(self._pod, self._open_log, over=over)
        for name, adopted in found.items():
            self._containers[name] = _adopted(self._containers[name], adopted, probed=_probed(self._spec(name)))
            self._attend(name, adopted.running)
            _log.info("container_adopted", **self._keys(), container=name, **adopted.running.facts)
        if found:
            await self._volumes.load(self._pod)
            self._refresh_at = await self._volumes.write(self._pod)

    async def _pass(self) -> float:
        """Observe, plan, apply, report; return the seconds until the next look."""
        now = self._node.clock.now()
        plan = self._plan(now)
        for action in plan.actions:
            await self._apply(action)
        if self._pod["spec"].get("nodeName") != self._node.rules.node or self._gone:
            return 3600.0
        if plan.actions:  # what they changed decides why containers wait and when to look again
            plan = self._plan(self._node.clock.now())
        await self._report(plan.waiting or {})
        if finished(self._pod) and not self._running and not self._released:
            await self._node.engine.remove(self._pod)
            self._released = True
        await self._note_waits(plan)
        await self._refresh_volumes()
        refresh_at = self._refresh_at if self._running else None
        wakes = [moment for moment in (plan.wake_at, refresh_at) if moment is not None]
        now = self._node.clock.now()
        return max(0.0, min(((moment - now).total_seconds() for moment in wakes), default=3600.0))

    def _plan(self, now: datetime) -> Plan:
        containers = list(self._containers.values())
        return plan_pod(self._pod, containers, now=now, rules=self._node.rules)

    async def _apply(self, action: Action) -> None:
        match action:
            case Bind():
                await self._bind()
            case Start(name):
                await self._start(name)
            case Stop(name):
                await self._stop(name)
            case Kill(name):
                if name in self._running:
                    await self._running[name].kill()
            case Remove():
                await self._remove()
            case _:
                assert_never(action)

    async def _bind(self) -> None:
        meta, node = self._pod["metadata"], self._node.rules.node
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._node.client.create(binding, subresource="binding", name=meta["name"])
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        await self._node.recorder.record(self._pod, "Scheduled", message=text, component="fairlead-scheduler")

    async def _start(self, name: str) -> None:
        spec = self._spec(name)
        container = self._containers[name]
        log: LogFile | None = None
        try:
            await self._volumes.load(self._pod)
            self._refresh_at = await self._volumes.write(self._pod)
            attempt = container.restarts + (1 if container.ended else 0)
            log = self._open_log(name, attempt)
            running = await self._node.engine.start(Launch(self._pod, spec, attempt, self._volumes, log))
        except (FairleadError, OSError) as error:
            if log is not None:
                log.close()
            await self._could_not_start(container, error)
            return
        started = self._containers[name] = container.started(
            self._node.clock.now(), ident=running.ident, image_id=running.image_id, probed=_probed(spec)
        )
        self._attend(name, running)
        _log.info("container_started", **self._keys(), container=name, restarts=started.restarts, **running.facts)
        await self._node.recorder.record(self._pod, "Started", message=f"Started container {name}")

    def _attend(self, name: str, running: Running) -> None:
        """Follow a container that runs until it has ended."""
        self._running[name] = running
        task = asyncio.create_task(self._await_exit(name, running))
        self._exits.add(task)
        task.add_done_callback(self._exits.discard)

    async def _could_not_start(self, container: Container, error: FairleadError | OSError) -> None:
        now = self._node.clock.now()
        reason = error.reason if isinstance(error, FairleadError) else "RunContainerError"
        if reason == "ContainerCreating":
            self._containers[container.name] = container.refused(Waiting(reason, str(error)), retry_at=now + _SOON)
            return
        if reason == "ErrImagePull":
            self._containers[container.name] = image_problem(container, str(error), now=now)
        else:
            waiting = Waiting("ContainerCreating" if reason == "FailedMount" else reason, str(error))
            self._containers[container.name] = container.refused(waiting, retry_at=now + _PROBLEM_RETRY)
        event = reason if reason == "FailedMount" else "Failed"
        text = f"Error: {error}" if event == "Failed" else f"MountVolume.SetUp failed: {error}"
        await self._node.recorder.record(self._pod, event, message=text, warning=True)

    def _spec(self, name: str) -> Json:
        spec = self._pod["spec"]
        every: list[Json] = [*(spec.get("initContainers") or ()), *spec["containers"]]
        return next(container for container in every if container["name"] == name)

    def _open_log(self, name: str, attempt: int) -> LogFile:
        return LogFile(self._log_folder() / name / f"{attempt}.log", self._node.clock)

    async def _await_exit(self, name: str, running: Running) -> None:
        prober = Prober(self._spec(name), running, self._node.clock, tell=lambda verdict: self._heed(name, verdict))
        probing = asyncio.create_task(prober.run())
        try:
            ended = await running.wait()
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        now = ended.at or self._node.clock.now()
        since = self._containers[name].running_since or now
        end = (
            Exit(KILLED, LOST, since, now, ended.lost)
            if ended.lost
            else exit_of(ended.code, started_at=since, now=now, out_of_memory=ended.out_of_memory)
        )
        self._containers[name] = self._containers[name].exited(end)
        self._running.pop(name, None)
        _log.info("container_ended", **self._keys(), container=name, code=end.code, reason=end.reason)
        self._wake.set()

    def _heed(self, name: str, verdict: Verdict) -> None:
        """Take note of what a probe has found."""
        probe, before = verdict.probe, self._containers[name]
        after = before
        if verdict.holds is not None and probe.kind == READINESS:
            after = replace(before, ready=verdict.holds)
        elif verdict.holds and probe.kind == STARTUP:
            after = replace(before, up=True, ready=READINESS not in self._spec(name))
        elif verdict.holds is False and not before.unhealthy:
            after = replace(before, unhealthy=f"failed {probe.title.lower()} probe")
        if verdict.message:
            text = f"{probe.title} probe failed: {verdict.message}"
            noting = asyncio.create_task(self._node.recorder.record(self._pod, "Unhealthy", message=text, warning=True))
            self._exits.add(noting)
            noting.add_done_callback(self._exits.discard)
        if after != before:
            self._containers[name] = after
            self._wake.set()

    async def _stop(self, name: str) -> None:
        container = self._containers[name]
        self._containers[name] = replace(container, stopping_since=self._node.clock.now())
        text = f"Stopping container {name}"
        if container.unhealthy:
            text = f"Container {name} {container.unhealthy}, will be restarted"
        if name in self._running:
            await self._running[name].stop()
        await self._node.recorder.record(self._pod, "Killing", message=text)

    async def _remove(self) -> None:
        await self._report({})
        meta = self._pod["metadata"]
        ref = Ref("v1", "Pod", meta["name"], meta["namespace"])
        await self._node.client.delete(ref, uid=self.uid, grace_seconds=0)
        self.gone()

    async def _report(self, waiting: Mapping[str, Waiting]) -> None:
        if finished(self._pod):
            return
        address = await self._node.engine.address(self._pod)
        containers, now = list(self._containers.values()), self._node.clock.now()
        status = build_status(self._pod, containers, waiting=waiting, now=now, address=address)
        before = self._reported if self._reported is not None else self._pod.get("status")
        if status == {key: (before or {}).get(key) for key in status}:
            self._reported = status
            return
        meta = self._pod["metadata"]
        ref = Ref("v1", "Pod", meta["name"], meta["namespace"])
        patch = {"metadata": {"uid": self.uid}, "status": status}
        if await self._node.client.merge_patch(ref, patch, subresource="status") is not None:
            self._reported = status
            self._pod = {**self._pod, "status": {**(self._pod.get("status") or {}), **status}}

    async def _note_waits(self, plan: Plan) -> None:
        """Report each wait once, however often it is looked at."""
        for name, waiting in (plan.waiting or {}).items():
            container = self._containers[name]
            mark = (name, waiting.reason, container.restarts)
            if container.problem is not None or waiting.reason not in _WAIT_EVENTS or mark in self._noted:
                continue
            self._noted.add(mark)
            reason = _WAIT_EVENTS[waiting.reason]
            where = f"{self._pod['metadata']['name']}_{self._pod['metadata']['namespace']}({self.uid})"
            text = (
                f"Back-off restarting failed container {name} in pod {where}"
                if reason == "BackOff"
                else waiting.message
            )
            await self._node.recorder.record(self._pod, reason, message=text, warning=True)

    async def _refresh_volumes(self) -> None:
        if self._refresh_at is None or self._node.clock.now() < self._refresh_at or not self._running:
            return
        try:
            await self._volumes.load(self._pod)
            self._refresh_at = await self._volumes.write(self._pod)
        except (InvalidObject, OSError) as error:
            self._refresh_at = self._node.clock.now() + _PROBLEM_RETRY
            await self._node.recorder.record(self._pod, "FailedMount", message=str(error), warning=True)

    async def _clean(self) -> None:
        await self.shut_down(seconds=0)
        with contextlib.suppress(RetryableError):  # what is left is swept when the runtime starts
            await self._node.engine.remove(self._pod)
        self._volumes.remove()
        shutil.rmtree(self._log_folder(), ignore_errors=True)

    def _log_folder(self) -> Path:
        meta = self._pod["metadata"]
        return pod_log_folder(self._node.log_dir, namespace=meta["namespace"], name=meta["name"], uid=self.uid)

    def _keys(self) -> dict[str, str]:
        meta = self._pod["metadata"]
        return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": self.uid}


def _recovered(pod: Json, *, now: datetime) -> dict[str, Container]:
    spec, status = pod["spec"], pod.get("status") or {}
    known = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    statuses = {each["name"]: each for each in known}
    first = [container["name"] for container in spec.get("initContainers") or ()]
    names = [*first, *(container["name"] for container in spec["containers"])]
    found = {name: recover(statuses[name], now=now) if name in statuses else Container(name) for name in names}
    return {name: replace(container, init=name in first) for name, container in found.items()}


def _adopted(container: Container, adopted: Adopted, *, probed: bool) -> Container:
    """Return a container with the start that an earlier runtime gave it; what it had ended with before is kept."""
    running = adopted.running
    before = None if container.lost else container.ended
    fresh = replace(container, ended=None).started(
        adopted.started_at, ident=running.ident, image_id=running.image_id, probed=probed
    )
    return replace(fresh, ended=before, restarts=adopted.attempt)


def _probed(spec: Json) -> bool:
    """Whether probes have to say that a container is ready."""
    return any(kind in spec for kind in KINDS if kind != "livenessProbe")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
