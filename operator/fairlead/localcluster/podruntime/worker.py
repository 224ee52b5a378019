"""Makes one pod true: observes it, plans, applies the plan, reports its status."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, assert_never

from fairlead.clock import Clock
from fairlead.errors import FairleadError, InvalidObject, RetryableError
from fairlead.kube import KubeClient, Ref
from fairlead.localcluster.podruntime.environment import (
    MOUNT_POINT,
    build_command,
    build_environment,
    build_limits,
    memory_limit,
)
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
from fairlead.localcluster.podruntime.process import Launch, Process
from fairlead.localcluster.podruntime.recorder import Recorder
from fairlead.localcluster.podruntime.state import Container, Json, Waiting, exit_of, recover
from fairlead.localcluster.podruntime.status import build_status
from fairlead.localcluster.podruntime.volumes import Volumes, below
from fairlead.logs import get_logger

_log = get_logger(__name__)
_PROBLEM_RETRY: Final = timedelta(seconds=10)
_ERROR_RETRY_SECONDS: Final = 5.0
IMAGE_COMMAND: Final = [sys.executable, "-m", "fairlead_agent"]
_WAIT_EVENTS: Final = {
    "ErrImageNeverPull": "Failed",
    "CreateContainerConfigError": "Failed",
    "CrashLoopBackOff": "BackOff",
}
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Node:
    """What all pods of this machine share."""

    client: KubeClient
    clock: Clock
    recorder: Recorder
    rules: Rules
    pods_dir: Path
    log_dir: Path


class PodWorker:
    """One pod, from the moment it is seen until its object is gone."""

    def __init__(self, node: Node, pod: Json) -> None:
        self._node, self._pod = node, pod
        self.uid: str = pod["metadata"]["uid"]
        self._volumes = Volumes(node.client, node.clock, node.pods_dir / self.uid)
        self._containers = _recovered(pod, now=node.clock.now())
        self._processes: dict[str, Process] = {}
        self._exits: set[asyncio.Task[None]] = set()
        self._stopping_since: datetime | None = None
        self._refresh_at: datetime | None = None
        self._reported: Json | None = None
        self._noted: set[tuple[str, str, int]] = set()
        self._wake = asyncio.Event()
        self._gone = False

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
        while not self._gone:
            self._wake.clear()
            pause = _ERROR_RETRY_SECONDS
            try:
                pause = await self._pass()
            except RetryableError as error:
                _log.info("pod_pass_failed", **self._keys(), error=str(error))
            except FairleadError as error:
                _log.warning("pod_pass_refused", **self._keys(), error=str(error))
            await _wait(self._wake, pause)
        await self._clean()

    async def shut_down(self, *, seconds: float) -> None:
        """End the pod's processes because the runtime ends; the object stays and goes on when it is back."""
        for process in self._processes.values():
            process.stop()
        if self._exits:
            await asyncio.wait(self._exits, timeout=seconds)
        for process in self._processes.values():
            process.kill()
        if self._exits:
            await asyncio.wait(self._exits)

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
        await self._note_waits(plan)
        await self._refresh_volumes()
        refresh_at = self._refresh_at if self._processes else None
        wakes = [moment for moment in (plan.wake_at, refresh_at) if moment is not None]
        now = self._node.clock.now()
        return max(0.0, min(((moment - now).total_seconds() for moment in wakes), default=3600.0))

    def _plan(self, now: datetime) -> Plan:
        containers = list(self._containers.values())
        return plan_pod(self._pod, containers, now=now, rules=self._node.rules, stopping_since=self._stopping_since)

    async def _apply(self, action: Action) -> None:
        match action:
            case Bind():
                await self._bind()
            case Start(name):
                await self._start(name)
            case Stop():
                await self._stop()
            case Kill():
                for process in list(self._processes.values()):
                    process.kill()
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
        spec = next(container for container in self._pod["spec"]["containers"] if container["name"] == name)
        container = self._containers[name]
        log: LogFile | None = None
        try:
            await self._volumes.load(self._pod)
            self._refresh_at = await self._volumes.write(self._pod)
            launch = self._launch(spec)
            restarts = container.restarts + (1 if container.ended else 0)
            log = LogFile(self._log_folder() / name / f"{restarts}.log", self._node.clock)
            process = await Process.start(launch, log)
        except (InvalidObject, OSError) as error:
            if log is not None:
                log.close()
            await self._could_not_start(container, error)
            return
        started = self._containers[name] = container.started(self._node.clock.now())
        self._processes[name] = process
        task = asyncio.create_task(self._await_exit(started, process, memory=memory_limit(spec)))
        self._exits.add(task)
        task.add_done_callback(self._exits.discard)
        _log.info("container_started", **self._keys(), container=name, pid=process.pid, restarts=started.restarts)
        await self._node.recorder.record(self._pod, "Started", message=f"Started container {name}")

    async def _could_not_start(self, container: Container, error: InvalidObject | OSError) -> None:
        reason = error.reason if isinstance(error, InvalidObject) else "RunContainerError"
        waiting = Waiting("ContainerCreating" if reason == "FailedMount" else reason, str(error))
        retry_at = self._node.clock.now() + _PROBLEM_RETRY
        self._containers[container.name] = replace(container, problem=waiting, retry_at=retry_at)
        event = reason if reason == "FailedMount" else "Failed"
        text = f"Error: {error}" if event == "Failed" else f"MountVolume.SetUp failed: {error}"
        await self._node.recorder.record(self._pod, event, message=text, warning=True)

    def _launch(self, spec: Json) -> Launch:
        root = self._volumes.mount(spec)
        variables = build_environment(self._pod, spec, self._volumes.lookup)
        environment = _minimum(root) | variables | {MOUNT_POINT: str(root)}
        folder = below(root, spec.get("workingDir") or "")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = build_command(spec, image_command=IMAGE_COMMAND, variables=environment)
        return Launch(command, environment, folder, build_limits(spec))

    async def _await_exit(self, started: Container, process: Process, *, memory: int) -> None:
        code = await process.wait(memory=memory)
        name, now = started.name, self._node.clock.now()
        since = started.running_since or now
        end = exit_of(code, started_at=since, now=now, out_of_memory=process.out_of_memory)
        self._containers[name] = self._containers[name].exited(end)
        self._processes.pop(name, None)
        _log.info("container_ended", **self._keys(), container=name, code=end.code, reason=end.reason)
        self._wake.set()

    async def _stop(self) -> None:
        self._stopping_since = self._node.clock.now()
        for name, process in list(self._processes.items()):
            process.stop()
            await self._node.recorder.record(self._pod, "Killing", message=f"Stopping container {name}")

    async def _remove(self) -> None:
        await self._report({})
        meta = self._pod["metadata"]
        ref = Ref("v1", "Pod", meta["name"], meta["namespace"])
        await self._node.client.delete(ref, uid=self.uid, grace_seconds=0)
        self.gone()

    async def _report(self, waiting: Mapping[str, Waiting]) -> None:
        if finished(self._pod):
            return
        status = build_status(self._pod, list(self._containers.values()), waiting=waiting, now=self._node.clock.now())
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
        if self._refresh_at is None or self._node.clock.now() < self._refresh_at or not self._processes:
            return
        try:
            await self._volumes.load(self._pod)
            self._refresh_at = await self._volumes.write(self._pod)
        except (InvalidObject, OSError) as error:
            self._refresh_at = self._node.clock.now() + _PROBLEM_RETRY
            await self._node.recorder.record(self._pod, "FailedMount", message=str(error), warning=True)

    async def _clean(self) -> None:
        await self.shut_down(seconds=0)
        self._volumes.remove()
        shutil.rmtree(self._log_folder(), ignore_errors=True)

    def _log_folder(self) -> Path:
        meta = self._pod["metadata"]
        return pod_log_folder(self._node.log_dir, namespace=meta["namespace"], name=meta["name"], uid=self.uid)

    def _keys(self) -> dict[str, str]:
        meta = self._pod["metadata"]
        return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": self.uid}


def _recovered(pod: Json, *, now: datetime) -> dict[str, Container]:
    statuses = {status["name"]: status for status in (pod.get("status") or {}).get("containerStatuses") or ()}
    names = [container["name"] for container in pod["spec"]["containers"]]
    return {name: recover(statuses[name], now=now) if name in statuses else Container(name) for name in names}


def _minimum(root: Path) -> dict[str, str]:
    """Return what every process needs; the rest of its environment comes from the pod's spec alone."""
    return {"PATH": _PATH, "HOME": str(root), "LANG": "C.UTF-8"}


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
