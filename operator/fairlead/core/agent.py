"""Decides which pods an Agent's pool has, and what to say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.core import conditions, names
from fairlead.core.actions import Action, Create, Delete, Obj, Plan, meta, owned_by, spec_of, status_of
from fairlead.core.conditions import Condition
from fairlead.core.manifests import PodSettings, build_pool_pod
from fairlead.core.problems import Refusal, refusal

_PULL_FAILURES: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CRASHES: Final = frozenset(
    {"CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is besides the Agent itself."""

    pods: Sequence[Obj]
    """The pods of the namespace that carry the Agent's label."""
    alive: frozenset[str]
    """The uids of the pods that hold a living Lease."""
    queue: int
    """Tasks that wait for the pool."""
    settings: PodSettings | None
    """None: the gateway has not published its certificate."""
    lacking: Refusal | None = None
    """What its turns need and cannot have: a Model, a tool."""


def plan_agent(agent: Obj, observed: Observed) -> Plan:
    """Compare *agent* with its pods and return what to change."""
    generation = meta(agent)["generation"]
    pods = {meta(pod)["name"]: pod for pod in observed.pods if owned_by(pod, meta(agent)["uid"])}
    refused = refusal("Agent", spec_of(agent)) or _reserved(agent)
    if refused is not None:
        surplus = tuple(Delete(pod, "the agent is refused") for pod in pods.values() if not _leaving(pod))
        wrong = conditions.stalled(ConditionType.READY, *refused, generation=generation)
        return Plan(surplus, wrong, _counts(agent, pods, observed))
    if observed.settings is None:
        text = "The gateway has not published its certificate yet; is it running?"
        waits = conditions.progressing(ConditionType.READY, Reason.GATEWAY_UNAVAILABLE, text, generation=generation)
        return Plan((), waits, _counts(agent, pods, observed))
    wanted = {
        meta(pod)["name"]: pod for pod in (build_pool_pod(agent, n, observed.settings) for n in range(_size(agent)))
    }
    actions = tuple(_pool_actions(pods, wanted, observed.alive))
    return Plan(actions, _conditions(agent, pods, observed), _counts(agent, pods, observed))


def _reserved(agent: Obj) -> Refusal | None:
    for index, entry in enumerate((spec_of(agent).get("pod") or {}).get("env") or ()):
        if entry["name"].startswith("FAIRLEAD_"):
            text = f"spec.pod.env[{index}].name: FAIRLEAD_… is reserved: rename {entry['name']} or remove it"
            return Reason.INVALID_SPEC, text
    return None


def _size(agent: Obj) -> int:
    size: int = (spec_of(agent).get("scale") or {}).get("min", 1)
    return size


def _leaving(pod: Obj) -> bool:
    return bool(meta(pod).get("deletionTimestamp"))


def is_over(pod: Obj) -> bool:
    """Return whether a pod has ended for good."""
    return status_of(pod).get("phase") in ("Failed", "Succeeded")


def is_restarting(pod: Obj) -> bool:
    """Return whether a pod's process has ended and the kubelet is about to start it again."""
    states = [status.get("state") or {} for status in status_of(pod).get("containerStatuses") or ()]
    return any("running" not in state for state in states)


def _pool_actions(pods: Mapping[str, Obj], wanted: Mapping[str, Obj], alive: frozenset[str]) -> Iterator[Action]:
    for name, pod in pods.items():
        if name not in wanted and not _leaving(pod):
            yield Delete(pod, "the pool is smaller")
        elif is_over(pod) and not _leaving(pod):
            yield Delete(pod, "the pod has ended")
    for name, pod in wanted.items():
        if name not in pods:
            yield Create(pod)
    outdated = _next_outdated(pods, wanted, alive)
    if outdated is not None:
        yield Delete(outdated, "the agent has changed")


def _next_outdated(pods: Mapping[str, Obj], wanted: Mapping[str, Obj], alive: frozenset[str]) -> Obj | None:
    """Return the one pod to replace next: one that is not at work, or one of a pool whose pods are all at work."""
    current = [pods[name] for name in wanted if name in pods and not is_over(pods[name])]
    outdated = [pod for pod in current if _digest(pod) != _digest(wanted[meta(pod)["name"]]) and not _leaving(pod)]
    idle = [pod for pod in outdated if meta(pod)["uid"] not in alive]
    if idle:
        return idle[0]
    all_at_work = len(current) == len(wanted) and all(
        meta(pod)["uid"] in alive and not _leaving(pod) for pod in current
    )
    return outdated[0] if outdated and all_at_work else None


def _digest(pod: Obj) -> Any:
    return (meta(pod).get("annotations") or {}).get(names.SPEC_DIGEST_ANNOTATION)


def _ready(agent: Obj, pods: Mapping[str, Obj], alive: frozenset[str]) -> int:
    at_work = sum(meta(pod)["uid"] in alive and not is_over(pod) and not _leaving(pod) for pod in pods.values())
    return min(at_work, _size(agent))


def _counts(agent: Obj, pods: Mapping[str, Obj], observed: Observed) -> dict[str, Any]:
    ready, total = _ready(agent, pods, observed.alive), _size(agent)
    return {"ready": ready, "total": total, "pods": f"{ready}/{total}", "queue": observed.queue}


def _conditions(agent: Obj, pods: Mapping[str, Obj], observed: Observed) -> tuple[Condition, ...]:
    generation, total = meta(agent)["generation"], _size(agent)
    if observed.lacking is not None:
        return conditions.progressing(ConditionType.READY, *observed.lacking, generation=generation)
    if total == 0:
        text = "The pool has no pods because spec.scale.min is 0; raise it to have runs taken."
        return conditions.ready(Reason.SCALED_TO_ZERO, text, generation=generation)
    if _ready(agent, pods, observed.alive) >= total:
        return conditions.ready(Reason.AVAILABLE, "All pods are registered.", generation=generation)
    reason, text = _why_not(pods.values(), observed.alive)
    return conditions.progressing(ConditionType.READY, reason, text, generation=generation)


def _why_not(pods: Any, alive: frozenset[str]) -> Refusal:
    waiting = [pod for pod in pods if meta(pod)["uid"] not in alive and not _leaving(pod)]
    troubles = [trouble for trouble in map(pod_trouble, waiting) if trouble is not None]
    if troubles:
        return troubles[0]
    if waiting and any(status_of(pod).get("phase") == "Running" for pod in waiting):
        return Reason.SCALING_UP, "A pod runs and has not registered with the gateway yet."
    return Reason.SCALING_UP, "Pods are being started."


def pod_trouble(pod: Obj) -> Refusal | None:
    """Return why a pod does not start, in the cluster's words, or None."""
    name, status = meta(pod)["name"], status_of(pod)
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        word, text = waiting.get("reason") or "", waiting.get("message") or "no further words"
        if word in _PULL_FAILURES:
            hint = "correct spec.pod.image, or load the image"
            return Reason.IMAGE_PULL_FAILED, f"Pod {name}: {word} of {container.get('image')}: {text}; {hint}."
        if word in _CRASHES:
            return Reason.POD_FAILING, f"Pod {name}: {word}: {text}; see `kubectl logs {name}`."
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Reason.POD_PENDING, f"Pod {name}: {condition.get('reason')}: {condition.get('message')}"
    if status.get("phase") == "Failed":
        return Reason.POD_FAILING, f"Pod {name} failed: {status.get('reason')}: {status.get('message')}"
    return None
