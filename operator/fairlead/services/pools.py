"""Watches what the pools have to do, and for how long less than now would have done."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.actions import Obj, meta
from fairlead.core.pool import Load, is_elastic, needed
from fairlead.storage import Storage


@dataclass(slots=True)
class _Memory:
    """How many pods an Agent needed, and when."""

    since: float
    needs: deque[tuple[float, int]] = field(default_factory=deque)


class Pools:
    """Remembers what pools needed, so that a pause between two tasks ends no pod.

    Args:
        calm_seconds: how long less must have been needed before a pool shrinks.
    """

    def __init__(self, storage: Storage, clock: Clock, *, cluster: str, calm_seconds: float) -> None:
        self._storage = storage
        self._clock = clock
        self._cluster = cluster
        self._calm_seconds = calm_seconds
        self._memories: dict[str, _Memory] = {}
        self._arrived: set[str] = set()

    def arrived(self, pool: str) -> tuple[str, str] | None:
        """Remember that work came; return namespace and name (as in labels) of the Agent, or None if it is for none."""
        cluster, namespace, kind, name = pool.rsplit("/", 3)
        if cluster != self._cluster or kind != "agent":
            return None
        self._arrived.add(pool)
        return namespace, name

    async def load(self, agent: Obj, *, draining: Mapping[str, float]) -> Load:
        """Return what an Agent's pool has to do."""
        pool = names.agent_pool(self._cluster, meta(agent)["namespace"], meta(agent)["name"])
        arrived = pool in self._arrived
        self._arrived.discard(pool)
        found = await self._storage.pool_load(pool)
        load = Load(found.queued, found.held)
        if not is_elastic(agent):
            self.forget(meta(agent)["uid"])
            return load
        need = max(needed(agent, load, draining), int(arrived))
        return Load(found.queued, found.held, self._recent(meta(agent)["uid"], need))

    def forget(self, uid: str) -> None:
        """Forget an Agent that is gone, or whose pool does not follow its work."""
        self._memories.pop(uid, None)

    def _recent(self, uid: str, need: int) -> int | None:
        now = self._clock.monotonic()
        memory = self._memories.setdefault(uid, _Memory(now))
        memory.needs.append((now, need))
        while memory.needs[0][0] < now - self._calm_seconds:
            memory.needs.popleft()
        return max(one for _, one in memory.needs) if now - memory.since >= self._calm_seconds else None
