"""Decides what has to happen to a pod now. Pure: the pod, what is known of its processes, and the time go in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

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
    """Ask every process to end."""


@dataclass(frozen=True, slots=True)
class Kill:
    """End every process that is left."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Nothing runs any more: delete the pod's object and its files."""


Action = Bind | Start | Stop | Kill | Remove


@dataclass(frozen=True, slots=True)
class Rules:
    """What this node is and what it can run."""

    node: str
    agent_image: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, why containers wait, and when to look again should nothing happen."""

    actions: tuple[Action, ...] = ()
    waiting: Mapping[str, Waiting] | None = None
    wake_at: datetime | None = None


def plan_pod(
    pod: Json, containers: Sequence[Container], *, now: datetime, rules: Rules, stopping_since: datetime | None
) -> Plan:
    """Return what has to happen to *pod* now.

    Args:
        pod: its object as the API has it.
        containers: what is known of each container of the spec, in its order.
        now: the wall clock.
        rules: what this node is.
        stopping_since: when its processes were asked to end, if they were.
    """
    node = pod["spec"].get("nodeName", "")
    if not node:
        held = pod["spec"].get("schedulingGates") or pod["metadata"].get("deletionTimestamp")
        return Plan() if held else Plan((Bind(),))
    if node != rules.node:
        return Plan()
    if pod["metadata"].get("deletionTimestamp"):
        return _ending(pod, containers, now=now, since=stopping_since)
    if finished(pod):
        return Plan()
    refusals = refused(pod, rules)
    if refusals:
        return Plan(waiting=refusals)
    return _running(pod, containers, now=now)


def finished(pod: Json) -> bool:
    """Whether nothing more happens to the pod but its deletion."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def refused(pod: Json, rules: Rules) -> dict[str, Waiting]:
    """Return why containers cannot run here at all; the pod runs as a whole or not."""
    spec = pod["spec"]
    names = [container["name"] for container in spec["containers"]]
    if spec.get("initContainers"):
        text = "laptop mode's process runtime runs no init containers"
        return dict.fromkeys(names, Waiting("CreateContainerConfigError", text))
    foreign = {c["name"]: c.get("image", "") for c in spec["containers"] if not same_image(c.get("image", ""), rules)}
    if not foreign:
        return {}
    waits = dict.fromkeys(names, Waiting("ContainerCreating", "waits for the pod's other containers"))
    return waits | {name: Waiting("ErrImageNeverPull", no_engine(image, rules)) for name, image in foreign.items()}


def no_engine(image: str, rules: Rules) -> str:
    """Return what a person can do about an image that is not the agent's."""
    return (
        f'Container image "{image}" needs a container engine, and laptop mode runs pods as local processes: only '
        f'"{rules.agent_image}" can run here. Apply this pod to a cluster that has an engine; on one machine: install '
        "Docker (https://docs.docker.com/get-docker) and kind (https://kind.sigs.k8s.io), then: kind create cluster"
    )


def same_image(image: str, rules: Rules) -> bool:
    """Whether *image* is the agent image, under its short or its full name."""
    return _normal(image) == _normal(rules.agent_image)


def _normal(image: str) -> str:
    for prefix in ("docker.io/", "index.docker.io/", "library/"):
        image = image.removeprefix(prefix)
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def _ending(pod: Json, containers: Sequence[Container], *, now: datetime, since: datetime | None) -> Plan:
    if not any(container.running for container in containers):
        return Plan((Remove(),))
    grace = timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds", DEFAULT_GRACE))
    if since is None:
        return Plan((Stop(),), wake_at=now + grace)
    if now >= since + grace:
        return Plan((Kill(),))
    return Plan(wake_at=since + grace)


def _running(pod: Json, containers: Sequence[Container], *, now: datetime) -> Plan:
    actions: list[Action] = []
    waiting: dict[str, Waiting] = {}
    wakes: list[datetime] = []
    policy = pod["spec"].get("restartPolicy", "Always")
    for container in containers:
        if container.running or not wanted(container, policy):
            continue
        due = _due(container)
        if due is None or due <= now:
            actions.append(Start(container.name))
            continue
        waiting[container.name] = container.problem or _crash_loop(pod, container)
        wakes.append(due)
    return Plan(tuple(actions), waiting, min(wakes, default=None))


def wanted(container: Container, policy: str) -> bool:
    """Whether a container that does not run should."""
    if container.ended is None or policy == "Always":
        return True
    return policy == "OnFailure" and container.ended.code != 0


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
