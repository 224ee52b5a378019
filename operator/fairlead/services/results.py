"""Results of earlier runs that a run may use again: from the cache, and from the run that it repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from fairlead.clock import Clock
from fairlead.services.tasks import Tasks
from fairlead.storage.base import Fence, Run, Storage
from fairlead_agent.protocol import CacheAnswer, CacheLookup, Kind, State

_KINDS: Final = frozenset({Kind.NODE_FINISHED, Kind.ITEM_FINISHED})
_KEPT: Final = ("kind", "at", "node", "item", "iteration", "tryNumber", "state", "output", "reason", "digest")


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
        journal: list[Mapping[str, Any]] = []
        earlier = await self._storage.get_run(run.rerun_of)
        if earlier is not None and (earlier.cluster, earlier.namespace) == (run.cluster, run.namespace):
            for task in await self._storage.tasks_of_run(run.rerun_of):
                if task.kind == "run":
                    journal += await self._storage.journal(task.id)
        entries = [_kept(entry) for entry in results_of(journal)]
        return {"uid": run.rerun_of, "from": run.rerun_from or "Failed", "entries": entries}


def results_of(journal: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what succeeded with all of its items; of a node that went on without some, the others one by one."""
    lacking = {_place(entry) for entry in journal if entry.get("kind") == Kind.ITEM_FINISHED and _failed(entry)}
    return [entry for entry in journal if _is_result(entry) and ("item" in entry or _place(entry) not in lacking)]


def _place(entry: Mapping[str, Any]) -> tuple[Any, int]:
    return entry.get("node"), int(entry.get("iteration") or 1)


def _failed(entry: Mapping[str, Any]) -> bool:
    return entry.get("state") == State.FAILED


def _is_result(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("kind") in _KINDS and entry.get("state") == State.SUCCEEDED and entry.get("digest"))


def _kept(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in _KEPT if name in entry}
