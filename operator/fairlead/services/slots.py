"""Keeps the workflows' `concurrency`: who may be queued now, and who is next when a run has ended.

What is active is asked of storage, and who waits is on the objects' statuses: a restart forgets nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.clock import Clock
from fairlead.core import conditions
from fairlead.core.actions import Obj, conditions_of, meta, spec_of, status_of
from fairlead.core.concurrency import Active, Admission, Candidate, admit
from fairlead.core.workflow import is_finished
from fairlead.services.objects import Key, Objects
from fairlead.storage import Storage

_ACTIVE_LIMIT: Final = 20_000
"""Twice the largest `concurrency.limit`."""
_READ_SECONDS: Final = 1.0
Place = tuple[str, str]
"""A namespace and the name of a workflow in it."""


class Slots:
    """The places of workflows' active runs."""

    def __init__(self, storage: Storage, objects: Objects, clock: Clock, *, cluster: str) -> None:
        self._storage = storage
        self._objects = objects
        self._clock = clock
        self._cluster = cluster
        self._locks: dict[Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: dict[Place, dict[str, Candidate]] = {}
        self._places: dict[str, Place] = {}
        self._active: dict[Place, tuple[float, list[Active]]] = {}
        self._ends: dict[Place, int] = defaultdict(int)

    def lock(self, place: Place) -> asyncio.Lock:
        """Return what is held from the decision about a run until it is queued: two may not take the last slot."""
        return self._locks[place]

    async def admit(self, run: Obj, place: Place, concurrency: dict[str, Any]) -> Admission:
        """Decide whether a run may be queued now. One that waits is remembered."""
        waiting, active = self._waiting_at(place), await self._active_at(place)
        own, limit, policy = self._candidate(run), concurrency["limit"], concurrency.get("policy", "Queue")
        if policy == "Queue" and len(active) >= limit:
            decided = Admission("Wait")  # whoever else waits: there may be thousands
        else:
            others = [one for uid, one in waiting.items() if uid != own.uid and self._is_there(uid)]
            decided = admit(own, limit=limit, policy=policy, active=active, waiting=others)
        self._note(own, place, decided)
        return decided

    def _note(self, run: Candidate, place: Place, decided: Admission) -> None:
        """Remember what a decision leads to."""
        if decided.replace:
            self._active.pop(place, None)
        elif decided.verdict == "Start":
            self._active[place][1].append(Active(self._clock.now(), run.uid))
        if decided.verdict == "Wait":
            self._waiting[place][run.uid] = run
            self._places[run.uid] = place
        else:
            self.leave(run.uid)

    def leave(self, uid: str) -> None:
        """Forget a run that does not wait any more."""
        place = self._places.pop(uid, None)
        if place is not None:
            self._waiting.get(place, {}).pop(uid, None)

    @property
    def anybody_waits(self) -> bool:
        """Whether any run waits for another one's end."""
        return bool(self._places)

    def next(self, place: Place) -> list[Key]:
        """Return who may have a chance now that a run at *place* has ended."""
        self._active.pop(place, None)
        self._ends[place] += 1
        waiting = sorted(self._waiting.get(place, {}).values(), key=lambda one: one.turn)
        return [Key("WorkflowRun", one.uid) for one in waiting[:_WOKEN]]

    async def _active_at(self, place: Place) -> list[Active]:
        """Return what is active. For a second what was read is good enough: it may have ended since, never begun."""
        now = self._clock.monotonic()
        read_at, known = self._active.get(place, (float("-inf"), []))
        if now - read_at < _READ_SECONDS:
            return known
        ends = -1
        while ends != self._ends[place]:  # one that ended while this was read wakes nobody again
            ends = self._ends[place]
            self._active[place] = now, await self._read(place)
        return self._active[place][1]

    async def _read(self, place: Place) -> list[Active]:
        namespace, workflow = place
        found = await self._storage.list_runs(
            self._cluster, namespace=namespace, workflow=workflow, active=True, limit=_ACTIVE_LIMIT
        )
        return [Active(run.created_at, run.uid, bool(run.cancel_reason)) for run in found]

    def _waiting_at(self, place: Place) -> dict[str, Candidate]:
        """Return who waits; the first time, from what the statuses say."""
        if place not in self._waiting:
            namespace, workflow = place
            found = [run for run in self._objects.list("WorkflowRun", namespace) if _waits_for(run, workflow)]
            self._waiting[place] = {meta(run)["uid"]: self._candidate(run) for run in found}
            self._places |= dict.fromkeys(self._waiting[place], place)
        return self._waiting[place]

    def _candidate(self, run: Obj) -> Candidate:
        uid, since = meta(run)["uid"], str(meta(run).get("creationTimestamp") or "")
        arrival = self._objects.arrival(Key("WorkflowRun", uid))
        return Candidate(uid, since, int(spec_of(run).get("priority") or 0), arrival)

    def _is_there(self, uid: str) -> bool:
        run = self._objects.get(Key("WorkflowRun", uid))
        return run is not None and not meta(run).get("deletionTimestamp") and not spec_of(run).get("stop")


_WOKEN: Final = 64
"""The others follow when these have been queued, or at the next resync."""


def _waits_for(run: Obj, workflow: str) -> bool:
    if status_of(run).get("workflow") != workflow or is_finished(run):
        return False
    condition = conditions.find(conditions_of(run), ConditionType.SUCCEEDED) or {}
    return condition.get("reason") == Reason.CONCURRENCY_LIMIT
