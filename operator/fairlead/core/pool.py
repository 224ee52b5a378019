"""Decides how many pods a pool has and which of them come and go: scaling, draining, rolling replacement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from fairlead.core import names
from fairlead.core.actions import Action, Create, Delete, Drain, Obj, meta, spec_of, status_of

_CONCURRENCY: Final = 4
_LEASE_SECONDS: Final = 15
_DRAIN_SECONDS: Final = 30
_HEARD_SECONDS: Final = 2.0
"""Beyond a heartbeat, until a pod that is asked to drain surely knows of it and has dropped its open claim."""
_LOOK_SECONDS: Final = 5.0
_DRAIN_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool has to do."""

    queued: int = 0
    held: Mapping[str, int] = field(default_factory=dict)
    """How many tasks each pod works on, by its uid; those that have none are not there."""
    recent: int | None = 0
    """The most pods that were needed lately: below that nothing shrinks. None: nobody has looked for long enough."""


def has_stopped(pod: Obj) -> bool:
    """Return whether nothing in a pod runs any more, nor will."""
    return status_of(pod).get("phase") in ("Failed", "Succeeded")


def agent_state(pod: Obj) -> Mapping[str, Any]:
    """Return the state of the container that is ours, whatever a cluster has injected beside it."""
    known = status_of(pod).get("containerStatuses") or ()
    return next((one.get("state") or {} for one in known if one.get("name") == names.AGENT_CONTAINER), {})


def is_over(pod: Obj) -> bool:
    """Return whether a pod's agent has ended for good: what was injected beside it may run on for ever."""
    ended, policy = agent_state(pod).get("terminated"), spec_of(pod).get("restartPolicy")
    done = ended is not None and (policy == "Never" or (policy == "OnFailure" and ended.get("exitCode") == 0))
    return done or has_stopped(pod)


def is_leaving(pod: Obj) -> bool:
    """Return whether a pod is being deleted."""
    return bool(meta(pod).get("deletionTimestamp"))


def bounds(agent: Obj) -> tuple[int, int]:
    """Return the fewest and the most pods that the Agent's spec allows."""
    scale = spec_of(agent).get("scale") or {}
    least: int = scale.get("min", 1)
    most: int | None = scale.get("max")
    return least, least if most is None else max(least, most)


def is_elastic(agent: Obj) -> bool:
    """Return whether the pool's size follows its work."""
    least, most = bounds(agent)
    return least != most


def needed(agent: Obj, load: Load, draining: Mapping[str, float]) -> int:
    """Return how many pods the work asks for, whatever the bounds.

    Those at work are never too many; beside them, each pod is good for ``targetQueue`` tasks, queued or at work.
    """
    spec = spec_of(agent)
    target: int = (spec.get("scale") or {}).get("targetQueue") or spec.get("concurrency", _CONCURRENCY)
    held = {uid: tasks for uid, tasks in load.held.items() if uid not in draining and tasks}
    return max(len(held), -(-(load.queued + sum(held.values())) // target))


@dataclass(frozen=True, slots=True)
class Pool:
    """The pods of an Agent, sorted by what is to become of them."""

    agent: Obj
    load: Load
    alive: frozenset[str]
    draining: Mapping[str, float]
    over: Sequence[Obj]
    """They have ended."""
    drained: Sequence[Obj]
    """They were asked to take no more work, and may go now."""
    finishing: Sequence[Obj]
    """They were asked to take no more work, and still have some."""
    useless: Sequence[Obj]
    """They are of an earlier spec and have never worked."""
    stale: Sequence[Obj]
    """They are of an earlier spec and at work."""
    fresh: Sequence[Obj]
    size: int
    """How many pods there have to be now."""
    ceiling: int
    """How many there may be: more, while it is not sure that less will do."""

    @property
    def staying(self) -> list[Obj]:
        """The pods that take work, or will."""
        return [*self.fresh, *self.stale]

    @property
    def total(self) -> int:
        """How many pods the pool should have, as people are told."""
        return min(max(len(self.staying), self.size), self.ceiling)

    @property
    def ready(self) -> int:
        """How many of them take work."""
        return min(sum(meta(pod)["uid"] in self.alive for pod in self.staying), self.total)

    @property
    def look_again(self) -> float | None:
        """Return in how many seconds time alone may change the plan."""
        if self.finishing:
            return _DRAIN_LOOK_SECONDS
        busy = self.load.queued or self.load.held or len(self.staying) > self.size
        return _LOOK_SECONDS if is_elastic(self.agent) and busy else None


def sort_pool(
    agent: Obj, pods: Sequence[Obj], load: Load, *, alive: frozenset[str], draining: Mapping[str, float], digest: str
) -> Pool:
    """Return the pool of an Agent. *digest* is that of the pods which its spec describes."""
    least, most = bounds(agent)
    size = min(max(needed(agent, load, draining), least), most)
    ceiling = most if load.recent is None else max(size, min(load.recent, most))
    groups: dict[str, list[Obj]] = {name: [] for name in ("over", "drained", "finishing", "useless", "stale", "fresh")}
    for pod in sorted(pods, key=lambda pod: str(meta(pod)["name"])):
        if is_over(pod):
            groups["over"].append(pod)
        elif not is_leaving(pod):
            groups[_group(agent, pod, load, alive=alive, draining=draining, digest=digest)].append(pod)
    return Pool(agent, load, alive, draining, size=size, ceiling=ceiling, **groups)


def _group(
    agent: Obj, pod: Obj, load: Load, *, alive: frozenset[str], draining: Mapping[str, float], digest: str
) -> str:
    uid = meta(pod)["uid"]
    if uid in draining:
        return "drained" if _has_drained(agent, draining[uid], load.held.get(uid, 0)) else "finishing"
    if digest_of(pod) == digest:
        return "fresh"
    return "stale" if uid in alive else "useless"


def _has_drained(agent: Obj, seconds: float, tasks: int) -> bool:
    spec = spec_of(agent)
    heard = spec.get("leaseDurationSeconds", _LEASE_SECONDS) / 3 + _HEARD_SECONDS
    return bool(seconds >= (max(heard, spec.get("drainSeconds", _DRAIN_SECONDS)) if tasks else heard))


def digest_of(pod: Obj) -> Any:
    """Return the digest of the description that a pod was made from."""
    return (meta(pod).get("annotations") or {}).get(names.SPEC_DIGEST_ANNOTATION)


def pool_actions(pool: Pool, new: Iterator[Obj]) -> Iterator[Action]:
    """Yield what to change. *new* are pods that could be made, each in a slot that is free."""
    for pod in pool.over:
        if not is_leaving(pod):
            yield Delete(pod, "the pod has ended")
    for pod in pool.drained:
        yield Delete(pod, "the pod has drained")
    for pod in pool.useless:
        yield Delete(pod, "the agent has changed")
    victims, left = _shrink(pool)
    rolls = _rolls(pool, victims, left)
    missing = max(pool.size - len(left), int(rolls and len(left) == pool.size > 0))
    yield from map(Create, islice(new, missing))
    if rolls and len(left) > pool.size:
        victims.append(next(pod for pod in left if pod in pool.stale))
    for pod in victims:
        why = "the agent has changed" if pod in pool.stale else "the pool is smaller"
        yield Drain(pod, why) if meta(pod)["uid"] in pool.alive else Delete(pod, why)


def _shrink(pool: Pool) -> tuple[list[Obj], list[Obj]]:
    """Return the pods that are too many, and those that stay: those at work, of them those of the present spec."""

    def worth(pod: Obj) -> tuple[Any, ...]:
        uid = meta(pod)["uid"]
        return uid in pool.alive, pool.load.held.get(uid, 0), pod not in pool.stale, meta(pod)["name"]

    left, victims = sorted(pool.staying, key=worth), []
    while len(left) > pool.ceiling + any(pod in pool.stale for pod in left):  # one more while pods are replaced
        victims.append(left.pop(0))
    return victims, left


def _rolls(pool: Pool, victims: Sequence[Obj], left: Sequence[Obj]) -> bool:
    """Return whether the next pod of an earlier spec can be replaced: one at a time, and only by pods that work."""
    drains = bool(pool.finishing) or any(meta(pod)["uid"] in pool.alive for pod in victims)
    at_work = all(meta(pod)["uid"] in pool.alive for pod in left)  # those of an earlier spec are
    return any(pod in pool.stale for pod in left) and at_work and not drains
