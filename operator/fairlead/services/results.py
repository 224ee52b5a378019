"""Results of earlier runs that a run may use again: from the cache, and from the run that it repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from fairlead.clock import Clock
from fairlead.services.tasks import Tasks
from fairlead.storage.base import Fence, Run, Storage
from fairlead_agent.graph import paths
from fairlead_agent.protocol import CacheAnswer, CacheLookup, Kind, State

_MAX_CHAIN: Final = 20
"""How many runs back results are looked for that one rerun after the other took over."""
_KINDS: Final = frozenset({Kind.NODE_FINISHED, Kind.ITEM_FINISHED})
_KEPT: Final = ("kind", "at", "node", "item", "iteration", "tryNumber", "state", "output", "reason", "digest")

_Execution: TypeAlias = tuple[str, str | None, int]


class Results:
    """Finds what was worked out before."""

    def __init__(self, storage: Storage, clock: Clock, tasks: Tasks) -> None:
        self._storage = storage
        self._clock = clock
        self._tasks = tasks

    async def cached(self, fence: Fence, request: CacheLookup) -> CacheAnswer:
        """Return a result of the same work in this namespace, if one is kept and young enough.

        Raises:
            Fenced: the claim is over.
        """
        await self._storage.check_fence(fence)
        context = await self._tasks.context(fence)
        now = self._clock.now()
        key = context.cache_key(request.node, request.digest)
        found = await self._storage.get_cached(context.cluster, context.namespace, key, at=now)
        if found is None or found.created_at < now - timedelta(seconds=min(request.max_age_seconds, 10**9)):
            return CacheAnswer()
        return CacheAnswer(found=True, output=found.output, run=found.run_uid)

    async def rerun(self, run: Run) -> dict[str, Any] | None:
        """Return a `fairlead_agent.protocol.Rerun` as JSON: what succeeded in the run that *run* repeats."""
        if not run.rerun_of:
            return None
        return {"uid": run.rerun_of, "from": run.rerun_from or "Failed", "entries": await self._left(run)}

    async def _left(self, run: Run) -> list[dict[str, Any]]:
        """Return what the run that *run* repeats has left, the nearest first.

        A node that it took over as a whole has no entries for what is inside: they are the earlier run's.
        """
        found: dict[_Execution, dict[str, Any]] = {}
        taken: list[set[_Execution]] = []
        earlier = await self._before(run)
        for _ in range(_MAX_CHAIN):
            if earlier is None:
                break
            entries = results_of(await self._journal(earlier))
            for entry in entries:
                if all(not whole.isdisjoint(paths.around(*_execution(entry))) for whole in taken):
                    found.setdefault(_execution(entry), _kept(entry))
            taken.append({_execution(entry) for entry in entries if entry.get("reason") == "Reused"})
            earlier = await self._before(earlier) if taken[-1] else None
        return list(found.values())

    async def _before(self, run: Run) -> Run | None:
        """Return the run that *run* repeats, if it is not forgotten."""
        earlier = await self._storage.get_run(run.rerun_of) if run.rerun_of else None
        there = earlier is not None and (earlier.cluster, earlier.namespace) == (run.cluster, run.namespace)
        return earlier if there else None

    async def _journal(self, run: Run) -> list[Mapping[str, Any]]:
        tasks = await self._storage.tasks_of_run(run.uid)
        return [entry for task in tasks if task.kind == "run" for entry in await self._storage.journal(task.id)]


def results_of(journal: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what succeeded with all of its items; of a node that went on without some, the others one by one."""
    lacking = {_of_all(entry) for entry in journal if entry.get("kind") == Kind.ITEM_FINISHED and _failed(entry)}
    return [entry for entry in journal if _is_result(entry) and _execution(entry) not in lacking]


def _of_all(entry: Mapping[str, Any]) -> _Execution:
    node, _, iteration = _execution(entry)
    return node, None, iteration


def _execution(entry: Mapping[str, Any]) -> _Execution:
    return str(entry["node"]), entry.get("item"), int(entry.get("iteration") or 1)


def _failed(entry: Mapping[str, Any]) -> bool:
    return entry.get("state") == State.FAILED


def _is_result(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("kind") in _KINDS and entry.get("state") == State.SUCCEEDED and entry.get("digest"))


def _kept(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in _KEPT if name in entry}
