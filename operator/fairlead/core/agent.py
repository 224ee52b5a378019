"""Decides which pods an Agent's pool has, and what to say of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.core import conditions
from fairlead.core.actions import Delete, Obj, Plan, meta, owned_by, spec_of, status_of
from fairlead.core.conditions import Condition
from fairlead.core.manifests import PodSettings, build_pool_pod, is_security_annotation
from fairlead.core.pool import (
    Load,
    Pool,
    agent_state,
    bounds,
    digest_of,
    is_elastic,
    is_leaving,
    is_over,
    pool_actions,
    sort_pool,
)
from fairlead.core.problems import Refusal, refusal

__all__ = ["Observed", "is_over", "is_restarting", "plan_agent", "pod_trouble", "refusal_of_pod"]

_PULL_FAILURES: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CONFIG_FAILURES: Final = frozenset({"CreateContainerConfigError", "CreateContainerError"})
_WRONG_PROTOCOL: Final = 3
"""The exit code of `python -m fairlead_agent`."""
_CRASHES: Final = frozenset({"CrashLoopBackOff", "RunContainerError", *_CONFIG_FAILURES})
_SECRET: Final = re.compile(r"secret", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is besides the Agent itself."""

    pods: Sequence[Obj]
    """The pods of the namespace that carry the Agent's label."""
    alive: frozenset[str]
    """The uids of the pods that hold a living Lease."""
    load: Load
    settings: PodSettings | None
    """None: the gateway has not published its certificate."""
    draining: Mapping[str, float] = field(default_factory=dict)
    """For how many seconds living pods have been asked to take no more work, by uid."""
    lacking: Refusal | None = None
    """What its turns need and cannot have: a Model, a tool."""
    refused: Refusal | None = None
    """Why the cluster did not let a pod be created."""


def plan_agent(agent: Obj, observed: Observed) -> Plan:
    """Compare *agent* with its pods and return what to change."""
    generation = meta(agent)["generation"]
    own = [pod for pod in observed.pods if owned_by(pod, meta(agent)["uid"])]
    refused = refusal("Agent", spec_of(agent)) or _reserved(agent)
    if refused is not None:
        surplus = tuple(Delete(pod, "the agent is refused") for pod in own if not is_leaving(pod))
        wrong = conditions.stalled(ConditionType.READY, *refused, generation=generation)
        return Plan(surplus, wrong, _counts(_sort(agent, own, observed, digest="")))
    if observed.settings is None:
        text = "The gateway has not published its certificate yet; is it running?"
        waits = conditions.progressing(ConditionType.READY, Reason.GATEWAY_UNAVAILABLE, text, generation=generation)
        return Plan((), waits, _counts(_sort(agent, own, observed, digest="")))
    digest = digest_of(build_pool_pod(agent, 0, observed.settings))
    pool = _sort(agent, own, observed, digest=digest)
    actions = tuple(pool_actions(pool, _new_pods(agent, observed.pods, observed.settings)))
    return Plan(actions, _conditions(agent, pool, observed), _counts(pool), look_again=pool.look_again)


def _sort(agent: Obj, own: Sequence[Obj], observed: Observed, *, digest: str) -> Pool:
    return sort_pool(agent, own, observed.load, alive=observed.alive, draining=observed.draining, digest=digest)


def _new_pods(agent: Obj, taken: Sequence[Obj], settings: PodSettings) -> Iterator[Obj]:
    """Yield the pods of the slots that are free, without an end."""
    used = {meta(pod)["name"] for pod in taken}
    made = (build_pool_pod(agent, slot, settings) for slot in count())
    return (pod for pod in made if meta(pod)["name"] not in used)


def _reserved(agent: Obj) -> Refusal | None:
    options = spec_of(agent).get("pod") or {}
    for index, entry in enumerate(options.get("env") or ()):
        if entry["name"].startswith("FAIRLEAD_"):
            text = f"spec.pod.env[{index}].name: FAIRLEAD_… is reserved: rename {entry['name']} or remove it"
            return Reason.INVALID_SPEC, text
    for key in options.get("annotations") or ():
        if is_security_annotation(key):
            return Reason.INVALID_SPEC, f"spec.pod.annotations: {key} would loosen the pod's security: remove it"
    return None


def is_restarting(pod: Obj) -> bool:
    """Return whether a pod's agent has ended and the kubelet is about to start it again."""
    state = agent_state(pod)
    return bool(state) and "running" not in state


def _counts(pool: Pool) -> dict[str, Any]:
    ready, total = pool.ready, pool.total
    return {"ready": ready, "total": total, "pods": f"{ready}/{total}", "queue": pool.load.queued}


def _conditions(agent: Obj, pool: Pool, observed: Observed) -> tuple[Condition, ...]:
    generation, least = meta(agent)["generation"], bounds(agent)[0]
    if observed.lacking is not None:
        return conditions.progressing(ConditionType.READY, *observed.lacking, generation=generation)
    moves = _why_not(pool, observed)
    if pool.total == 0:
        found = conditions.ready(Reason.SCALED_TO_ZERO, _why_none(agent), generation=generation)
    elif pool.ready >= max(least, 1):
        text = "All pods are registered." if moves is None else "Enough pods are registered."
        found = conditions.ready(Reason.AVAILABLE, text, generation=generation)
    else:
        starting = moves or (Reason.SCALING_UP, "Pods are being started.")
        return conditions.progressing(ConditionType.READY, *starting, generation=generation)
    return found if moves is None else (*found, Condition(ConditionType.RECONCILING, "True", *moves, generation))


def _why_none(agent: Obj) -> str:
    if is_elastic(agent):
        return "The pool has no pods because nothing is queued; the first task starts one."
    return "The pool has no pods because spec.scale.min is 0; raise it, or spec.scale.max, to have runs taken."


def _why_not(pool: Pool, observed: Observed) -> Refusal | None:
    """Return why the pool is not as it should be, or None."""
    if pool.ready < pool.total:
        return observed.refused or _why_less(pool)
    if pool.stale:
        text = "Pods are replaced one at a time, because the Agent, or what all agents have in common, has changed."
        return observed.refused or _trouble(pool) or (Reason.ROLLING_OUT, text)
    if pool.finishing:
        return Reason.SCALING_DOWN, "A pod finishes its tasks before it is stopped."
    return None


def _why_less(pool: Pool) -> Refusal:
    trouble = _trouble(pool)
    if trouble is not None:
        return trouble
    if any(status_of(pod).get("phase") == "Running" for pod in _waiting(pool)):
        return Reason.SCALING_UP, "A pod runs and has not registered with the gateway yet."
    return Reason.SCALING_UP, "Pods are being started."


def _waiting(pool: Pool) -> list[Obj]:
    return [pod for pod in (*pool.staying, *pool.over) if meta(pod)["uid"] not in pool.alive]


def _trouble(pool: Pool) -> Refusal | None:
    return next((trouble for trouble in map(pod_trouble, _waiting(pool)) if trouble is not None), None)


def refusal_of_pod(text: str) -> Refusal:
    """Return what it means that the cluster did not take a pod. *text* are its words."""
    if "exceeded quota" in text:
        hint = "raise the quota, or lower spec.scale or spec.resources"
        return Reason.QUOTA_EXCEEDED, f"No room for another pod: {text}; {hint}. It is tried again."
    return Reason.REFUSED, f"The cluster refuses the pod: {text}. It is tried again."


def pod_trouble(pod: Obj) -> Refusal | None:
    """Return why a pod does not start, in the cluster's words, or None."""
    name, status = meta(pod)["name"], status_of(pod)
    for container in status.get("containerStatuses") or ():
        trouble = _container_trouble(pod, container)
        if trouble is not None:
            return trouble
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Reason.POD_PENDING, f"Pod {name}: {condition.get('reason')}: {condition.get('message')}"
    if status.get("phase") == "Failed":
        return Reason.POD_FAILING, f"Pod {name} failed: {status.get('reason')}: {status.get('message')}"
    return None


def _container_trouble(pod: Obj, container: Mapping[str, Any]) -> Refusal | None:
    name, waiting = meta(pod)["name"], (container.get("state") or {}).get("waiting") or {}
    word, text = waiting.get("reason") or "", waiting.get("message") or "no further words"
    if word in _PULL_FAILURES:
        with_secrets = ", ".join(entry["name"] for entry in spec_of(pod).get("imagePullSecrets") or ())
        hint = f"; are the Secrets {with_secrets} of spec.pod.imagePullSecrets there and right?" if with_secrets else ""
        text = f"{word} of {container.get('image')}: {text}; correct spec.pod.image, or load the image{hint}"
        return Reason.IMAGE_PULL_FAILED, f"Pod {name}: {text.removesuffix('.')}."
    if word in _CONFIG_FAILURES and _SECRET.search(text):
        return Reason.SECRET_NOT_FOUND, f"Pod {name}: {word}: {text}; create the Secret."
    if word in _CRASHES:
        return Reason.POD_FAILING, f"Pod {name}: {word}: {_last_end(container) or text}; see `kubectl logs {name}`."
    return None


def _last_end(container: Mapping[str, Any]) -> str:
    """Return in words how a container ended that is to be started again, or nothing."""
    ended = (container.get("lastState") or {}).get("terminated")
    if not ended:
        return ""
    if ended.get("reason") == "OOMKilled":
        return "it ended because it used more memory than it may (OOMKilled): raise spec.resources.limits.memory"
    if ended.get("exitCode") == _WRONG_PROTOCOL:
        return "its image is not of the gateway's version (exit code 3): build it on the agent image of that version"
    return f"it ended with exit code {ended.get('exitCode')} ({ended.get('reason') or 'no reason'})"
