"""Decides what has to happen to a pod now. Pure: the pod, what is known of its processes, and the time go in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fairlead.localcluster.podruntime.refusals import refused
from fairlead.localcluster.podruntime.state import Container, Json, Waiting

DEFAULT_GRACE: Final = 30


@dataclass(frozen=True, slots=True)
class Bind:
    """Assign the pod to this node."""


@dataclass(frozen=True, slots=True)
class Start:
    """Give a container a process."""

    container: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask a container to end."""

    container: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End a container that was asked and did not."""

    container: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Nothing runs any more: delete the pod's object and its files."""


Action = Bind | Start | Stop | Kill | Remove


@dataclass(frozen=True, slots=True)
class Rules:
    """What this node is and what it can run."""

    node: str
    agent_image: str
    engine: str = "process"
    """``process`` or ``docker``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, why containers wait, and when to look again should nothing happen."""

    actions: tuple[Action, ...] = ()
    waiting: Mapping[str, Waiting] | None = None
    wake_at: datetime | None = None


def plan_pod(pod: Json, containers: Sequence[Container], *, now: datetime, rules: Rules) -> Plan:
    """Return what has to happen to *pod* now.

    Args:
        pod: its object as the API has it.
        containers: what is known of each container of the spec, in its order, those that prepare the pod first.
        now: the wall clock.
        rules: what this node is.
    """
    node = pod["spec"].get("nodeName", "")
    if not node:
        held = pod["spec"].get("schedulingGates") or pod["metadata"].get("deletionTimestamp")
        return Plan() if held else Plan((Bind(),))
    if node != rules.node:
        return Plan()
    if pod["metadata"].get("deletionTimestamp"):
        return _ending(pod, containers, now=now)
    if finished(pod):
        return Plan()
    if refusals := refused(pod, agent_image=rules.agent_image, engine=rules.engine):
        return Plan(waiting=refusals)
    return _running(pod, containers, now=now)


def finished(pod: Json) -> bool:
    """Whether nothing more happens to the pod but its deletion."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _ending(pod: Json, containers: Sequence[Container], *, now: datetime) -> Plan:
    running = [container for container in containers if container.running]
    if not running:
        return Plan((Remove(),))
    return _stopping(running, _grace(pod["metadata"].get("deletionGracePeriodSeconds")), now=now)


def _grace(seconds: int | None) -> timedelta:
    return timedelta(seconds=DEFAULT_GRACE if seconds is None else seconds)


def _stopping(containers: Sequence[Container], grace: timedelta, *, now: datetime) -> Plan:
    """Return what ends these containers: they are asked, and after *grace* no longer asked."""
    actions: list[Action] = []
    wakes: list[datetime] = []
    for container in containers:
        ends = (container.stopping_since or now) + grace
        if container.stopping_since is None:
            actions.append(Stop(container.name))
        elif now >= ends:
            actions.append(Kill(container.name))
            continue
        wakes.append(ends)
    return Plan(tuple(actions), wake_at=min(wakes, default=None))


def _running(pod: Json, containers: Sequence[Container], *, now: datetime) -> Plan:
    grace = _grace(pod["spec"].get("terminationGracePeriodSeconds"))
    ending = _stopping(
        [container for container in containers if container.running and container.unhealthy], grace, now=now
    )
    actions = list(ending.actions)
    waiting: dict[str, Waiting] = {}
    wakes = [] if ending.wake_at is None else [ending.wake_at]
    policy = pod["spec"].get("restartPolicy", "Always")
    turn = {container.name for container in in_turn(containers)}
    for container in containers:
        if container.running or not wanted(container, policy):
            continue
        if container.name not in turn:
            waiting[container.name] = Waiting("PodInitializing")
            continue
        due = _due(container)
        if due is None or due <= now:
            actions.append(Start(container.name))
            continue
        waiting[container.name] = container.problem or _crash_loop(pod, container)
        wakes.append(due)
    return Plan(tuple(actions), waiting, min(wakes, default=None))


def in_turn(containers: Sequence[Container]) -> Sequence[Container]:
    """Return the containers whose time it is: the first that prepares the pod and has not done so, or the others."""
    others = [container for container in containers if not container.init]
    if any(container.running or container.ended for container in others):
        return others
    preparing = [container for container in containers if container.init and not container.succeeded]
    return preparing[:1] or others


def wanted(container: Container, policy: str) -> bool:
    """Whether a container that does not run should."""
    if container.ended is None:
        return True
    if policy == "Always" and not container.init:
        return True
    return policy != "Never" and container.ended.code != 0


def _due(container: Container) -> datetime | None:
    if container.retry_at is not None:
        return container.retry_at
    return container.backoff.ready_at(container.ended.finished_at) if container.ended is not None else None


def _crash_loop(pod: Json, container: Container) -> Waiting:
    meta = pod["metadata"]
    whole = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
    delay = _duration(container.backoff.delay)
    return Waiting("CrashLoopBackOff", f"back-off {delay} restarting failed container={container.name} pod={whole}")


def _duration(delay: timedelta) -> str:
    minutes, seconds = divmod(int(delay.total_seconds()), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
