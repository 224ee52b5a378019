"""A pod's status, as a kubelet would write it, from what is known of its processes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fairlead.localcluster.podruntime.plan import wanted
from fairlead.localcluster.podruntime.state import Container, Exit, Json, Waiting, to_time

LOOPBACK: Final = "127.0.0.1"
_CREATING: Final = Waiting("ContainerCreating")


def build_status(
    pod: Json,
    containers: Sequence[Container],
    *,
    waiting: Mapping[str, Waiting],
    now: datetime,
    address: str = LOOPBACK,
) -> Json:
    """Return the status of a pod of this node; conditions keep their time while their status stays.

    Args:
        pod: its object.
        containers: what is known of its containers, those that prepare the pod first.
        waiting: why containers wait.
        now: the wall clock.
        address: the pod's own; empty if it has no network.
    """
    spec, before = pod["spec"], pod.get("status") or {}
    policy = "Never" if pod["metadata"].get("deletionTimestamp") else spec.get("restartPolicy", "Always")
    phase = phase_of(containers, policy=policy)
    every = [*(spec.get("initContainers") or ()), *spec["containers"]]
    images = {container["name"]: container.get("image", "") for container in every}

    def statuses(*, init: bool) -> list[Json]:
        chosen = [container for container in containers if container.init is init]
        return [_container_status(each, image=images[each.name], wait=waiting.get(each.name)) for each in chosen]

    preparing = statuses(init=True)
    return {
        "phase": phase,
        "conditions": _conditions(before, containers, phase=phase, now=now),
        "hostIP": LOOPBACK,
        "hostIPs": [{"ip": LOOPBACK}],
        **({"podIP": address, "podIPs": [{"ip": address}]} if address else {}),
        "startTime": before.get("startTime") or to_time(now),
        "qosClass": before.get("qosClass") or qos_class(spec),
        **({"initContainerStatuses": preparing} if preparing else {}),
        "containerStatuses": statuses(init=False),
    }


def phase_of(containers: Sequence[Container], *, policy: str) -> str:
    """Return the pod's phase."""
    mains = [container for container in containers if not container.init]
    if not any(container.running or container.ended for container in mains):
        preparing = [container for container in containers if container.init and not container.succeeded]
        if any(not container.running and not wanted(container, policy) for container in preparing):
            return "Failed"
        return "Pending"
    if any(container.running for container in mains):
        return "Running"
    ends = [container.ended for container in mains]
    if any(wanted(container, policy) for container in mains):
        return "Running"
    return "Succeeded" if all(end is not None and end.code == 0 for end in ends) else "Failed"


def qos_class(spec: Json) -> str:
    """Return the quality-of-service class.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
    """
    resources = [container.get("resources") or {} for container in spec["containers"]]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    for resource in resources:
        limits = resource.get("limits") or {}
        requests = {**limits, **(resource.get("requests") or {})}
        if any(name not in limits or requests[name] != limits[name] for name in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"


def _container_status(container: Container, *, image: str, wait: Waiting | None) -> Json:
    status: Json = {
        "name": container.name,
        "image": image,
        "imageID": container.image_id,
        "ready": container.succeeded if container.init else container.running and container.ready,
        "started": container.running and container.up,
        "restartCount": container.restarts,
        "state": _state(container, wait),
        "lastState": {},
    }
    if container.ident:
        status["containerID"] = container.ident
    if container.ended and "terminated" not in status["state"]:
        status["lastState"] = {"terminated": _terminated(container.ended)}
    return status


def _state(container: Container, wait: Waiting | None) -> Json:
    if container.running_since is not None:
        return {"running": {"startedAt": to_time(container.running_since)}}
    if container.ended is not None and wait is None:
        return {"terminated": _terminated(container.ended)}
    wait = wait or _CREATING
    return {"waiting": {"reason": wait.reason, **({"message": wait.message} if wait.message else {})}}


def _terminated(end: Exit) -> Json:
    terminated: Json = {
        "exitCode": end.code,
        "reason": end.reason,
        "startedAt": to_time(end.started_at),
        "finishedAt": to_time(end.finished_at),
    }
    more = {"message": end.message, "signal": end.signal, "containerID": end.ident}
    return terminated | {key: value for key, value in more.items() if value}


def _conditions(before: Json, containers: Sequence[Container], *, phase: str, now: datetime) -> list[Json]:
    mains = [container for container in containers if not container.init]
    preparing = [container.name for container in containers if container.init and not container.succeeded]
    incomplete = preparing if not any(container.running or container.ended for container in mains) else []
    unprepared = f"containers with incomplete status: [{' '.join(incomplete)}]" if incomplete else ""
    missing = [container.name for container in mains if not (container.running and container.ready)]
    ready, unready = not missing, f"containers with unready status: [{' '.join(missing)}]" if missing else ""
    reason = "PodCompleted" if phase == "Succeeded" else ("PodFailed" if phase == "Failed" else "ContainersNotReady")
    wanted_conditions = [
        ("PodReadyToStartContainers", phase in ("Pending", "Running"), "", ""),
        ("Initialized", not incomplete, _initialized_reason(phase, incomplete=bool(incomplete)), unprepared),
        ("Ready", ready, "" if ready else reason, unready),
        ("ContainersReady", ready, "" if ready else reason, unready),
        ("PodScheduled", True, "", ""),
    ]
    kept = {condition["type"]: condition for condition in before.get("conditions") or ()}
    own = {name for name, *_ in wanted_conditions}
    built = [
        _condition(kept.get(name), name, status=status, why=(why, text), now=now)
        for name, status, why, text in wanted_conditions
    ]
    return built + [condition for name, condition in kept.items() if name not in own]


def _initialized_reason(phase: str, *, incomplete: bool) -> str:
    if incomplete:
        return "ContainersNotInitialized"
    return "PodCompleted" if phase == "Succeeded" else ""


def _condition(before: Json | None, name: str, *, status: bool, why: tuple[str, str], now: datetime) -> Json:
    text = "True" if status else "False"
    moved = before is None or before.get("status") != text
    condition: Json = {
        "type": name,
        "status": text,
        "lastTransitionTime": to_time(now) if moved or before is None else before["lastTransitionTime"],
    }
    more: dict[str, Any] = {"reason": why[0], "message": why[1]}
    return condition | {key: value for key, value in more.items() if value}
