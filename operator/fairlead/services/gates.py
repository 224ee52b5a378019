"""Approval nodes: how one ended is what storage and the graph say, whatever the pod does.

That one succeeded or was rejected takes the decision that storage has. That one was skipped, was cancelled, or had no
item left takes that the scheduler says so, too, when it reads the frozen workflow and the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fairlead.errors import Refused
from fairlead.services.tasks import TaskContext
from fairlead.storage.base import Approval, ApprovalState, Run, Storage
from fairlead_agent.graph import Schedule, parse_graph
from fairlead_agent.protocol import Entry, Kind, RunInfo, State, call_key, iteration_of

_FINISHED: Final = frozenset({Kind.NODE_FINISHED, Kind.ITEM_FINISHED})
_DECIDED: Final = frozenset({"ApprovalRejected", "ApprovalTimeout"})
"""Reasons of a failure that are a decision."""
_QUESTION: Final = 0
"""The sequence number of what the node itself asks."""
_Place = tuple[Kind, str, str | None, int, State | None]


def concerns_approval(context: TaskContext, entry: Entry) -> bool:
    """Whether an entry says how an approval node, or an item of one, ended."""
    if entry.kind not in _FINISHED or entry.state is None:
        return False
    return (context.node(entry.node) or {}).get("approval") is not None


async def check_approvals(
    storage: Storage, context: TaskContext, entries: Sequence[Entry], *, first: int
) -> list[Entry]:
    """Return entries that are to be appended behind the *first* ones, with what really became of approval nodes.

    Raises:
        Refused: nobody decided so, and the graph does not lead there.
    """
    gate = _Gate(storage, context, entries, first)
    return [await gate.check(at) if concerns_approval(context, entry) else entry for at, entry in enumerate(entries)]


class _Gate:
    def __init__(self, storage: Storage, context: TaskContext, entries: Sequence[Entry], first: int) -> None:
        self._storage = storage
        self._context = context
        self._entries = entries
        self._first = first
        self._checked: dict[int, Entry] = {}
        self._following: dict[_Place, Entry] = {}
        self._read: tuple[Run | None, list[Mapping[str, Any]]] | None = None

    async def check(self, at: int) -> Entry:
        """Return an entry as it is kept."""
        entry = self._checked[at] = await self._check(at)
        return entry

    async def _check(self, at: int) -> Entry:
        entry = self._entries[at]
        node = self._context.node(entry.node) or {}
        of_all = entry.item is None and node.get("forEach") is not None
        if entry.state is State.FAILED:
            if _DECIDED & {entry.reason, entry.error.reason if entry.error else ""}:
                await self._need_rejection(entry, of_all=of_all)
            return entry.model_copy(update={"output": _failure(entry, node), "reused": ""})
        if entry.state is State.SUCCEEDED and not of_all:
            return entry.model_copy(update={"output": _output(await self._approval(entry)), "reused": ""})
        if entry.state is State.CANCELLED and any(one.kind is Kind.RUN_FINISHED for one in self._entries[at:]):
            return entry.model_copy(update={"output": None, "reused": ""})  # it ends with its run
        found = await self._follows(at)
        return entry.model_copy(update={"output": found.output, "reason": found.reason, "reused": ""})

    async def _approval(self, entry: Entry) -> Approval:
        key = call_key(entry.node, entry.item, entry.iteration, entry.try_number, _QUESTION)
        found = await self._storage.get_approval(self._context.task_id, key)
        if found is None or found.state is not ApprovalState.APPROVED:
            raise _refusal(entry, "nobody has approved it in this run")
        return found

    async def _need_rejection(self, entry: Entry, *, of_all: bool) -> None:
        """Let a failure that is a decision pass only if it was decided so; that of all items, if that of one was."""
        key = call_key(entry.node, entry.item, entry.iteration, entry.try_number, _QUESTION)
        task_id = self._context.task_id
        if of_all:
            asked = [
                one for one in await self._storage.approvals_of_run(self._context.run_uid) if one.task_id == task_id
            ]
            found = [one for one in asked if one.node == entry.node and iteration_of(one.key) == entry.iteration]
        else:
            one = await self._storage.get_approval(task_id, key)
            found = [] if one is None else [one]
        if all(one.state is not ApprovalState.REJECTED for one in found):
            raise _refusal(entry, "nobody has rejected it in this run")

    async def _follows(self, at: int) -> Entry:
        """Return what the scheduler says where the pod says how an approval node ended."""
        entry = self._entries[at]
        place = _place(entry)
        if place not in self._following:
            run, before = await self._history()
            batch = [self._checked.get(index, one) for index, one in enumerate(self._entries[:at])]
            found = await asyncio.to_thread(_following, self._context, run, before, batch=batch, at=entry.at)
            self._following |= {_place(one): one for one in found}
        if place not in self._following:
            raise _refusal(entry, f"it is not {entry.state} by the workflow and what has happened in this run")
        return self._following[place]

    async def _history(self) -> tuple[Run | None, list[Mapping[str, Any]]]:
        """Return the run, and the journal before what is to be appended."""
        if self._read is None:
            stored = await self._storage.journal(self._context.task_id)
            self._read = await self._storage.get_run(self._context.run_uid), list(stored[: self._first])
        return self._read


def _following(
    context: TaskContext, run: Run | None, journal: Sequence[Mapping[str, Any]], *, batch: Sequence[Entry], at: datetime
) -> list[Entry]:
    """Return which ends of nodes and items follow from a journal alone; none if it is no run's of this workflow."""
    if run is None:
        return []
    document = context.document
    info = RunInfo(uid=run.uid, namespace=run.namespace, name=run.name, workflow=run.workflow)
    try:
        schedule = Schedule(
            parse_graph(document["workflow"]["spec"]),
            inputs=run.inputs,
            run=info.model_dump(by_alias=True),
            workflows=document.get("workflows"),
        )
        for entry in (*(Entry.model_validate(raw) for raw in journal), *batch):
            schedule.apply(entry)
        return [entry for entry in schedule.advance(at) if entry.kind in _FINISHED]
    except Exception:  # noqa: BLE001 - a pod may have written anything; what cannot be read permits nothing
        return []


def _place(entry: Entry) -> _Place:
    return entry.kind, entry.node, entry.item, entry.iteration, entry.state


def _failure(entry: Entry, node: Any) -> dict[str, str] | None:
    """Return the output of a failure: where the workflow goes on, the error is the output."""
    if node.get("onError") != "Continue" or entry.error is None:
        return None
    return {"reason": entry.error.reason, "message": entry.error.message}


def _output(approval: Approval) -> dict[str, Any]:
    at = None if approval.decided_at is None else approval.decided_at.isoformat()
    return {"approved": True, "by": approval.decided_by, "comment": approval.comment, "at": at}


def _refusal(entry: Entry, why: str) -> Refused:
    which = "" if entry.item is None else f", item {entry.item[:64]}"
    return Refused(f"the approval node {entry.node[:200]}{which} does not end so: {why}", reason="NotApproved")
