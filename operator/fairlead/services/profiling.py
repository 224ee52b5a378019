"""Explains where runs' time and money went, from what storage keeps of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from fairlead.clock import Clock
from fairlead.core.profile import (
    Activity,
    Execution,
    FinishedRun,
    NodeProfile,
    NodeTime,
    RunFacts,
    RunProfile,
    Segment,
    Spent,
    Spread,
    WorkflowProfile,
    causes_of,
    definition_path,
    profile_run,
    profile_workflow,
)
from fairlead.services.outcomes import PICODOLLARS, dollars
from fairlead.storage.base import Approval, NodeRecord, Run, Span, Storage, Task
from fairlead.tracing.ids import SUSPENSION, node_span_id
from fairlead_agent.protocol import Kind, WaitFor

MAX_RUNS: Final = 100
_KEY_PARTS: Final = 5
_Key = tuple[str, str, int]
_WHOLE: Final[_Key] = ("", "", 0)
"""The run itself, and no node of it."""


class Profiling:
    """Profiles runs, and workflows over their runs."""

    def __init__(self, storage: Storage, clock: Clock, *, cluster: str) -> None:
        self._storage = storage
        self._clock = clock
        self._cluster = cluster

    async def run(self, run: Run) -> dict[str, Any]:
        """Return a run's profile as JSON."""
        return show_run_profile(run, await self._profile(run, {}))

    async def workflow(
        self, namespace: str, workflow: str, *, since: datetime | None = None, limit: int = MAX_RUNS
    ) -> WorkflowProfile:
        """Return the profile of a workflow over its latest finished runs."""
        runs = await self._storage.finished_runs(
            self._cluster, namespace=namespace, workflow=workflow, since=since, limit=limit
        )
        causes: dict[str, Mapping[str, Sequence[str]]] = {}
        return profile_workflow(
            [
                FinishedRun(
                    run.name,
                    run.state.value,
                    run.reason,
                    await self._profile(run, causes),
                    None if run.unpriced_calls else run.cost,
                    run.input_tokens + run.output_tokens,
                )
                for run in runs
            ]
        )

    async def _profile(self, run: Run, known: dict[str, Mapping[str, Sequence[str]]]) -> RunProfile:
        if run.revision not in known:
            revision = await self._storage.get_revision(run.revision)
            known[run.revision] = causes_of(revision.document) if revision is not None else {}
        now = run.finished_at or self._clock.now()
        seen = Seen(
            run,
            now=now,
            nodes=await self._storage.nodes_of_run(run.uid),
            spans=await self._storage.spans_of_run(run.uid),
            approvals=await self._storage.approvals_of_run(run.uid),
            journals=[
                (_turn_of(task), await self._storage.journal(task.id))
                for task in await self._storage.tasks_of_run(run.uid)
            ],
            workflows=frozenset(path.rpartition("/")[0] for path in known[run.revision]),
        )
        return await asyncio.to_thread(_profiled, seen, known[run.revision])  # takes a while for thousands of items


@dataclass(frozen=True, slots=True)
class Seen:
    """What storage keeps of a run."""

    run: Run
    now: datetime
    """Its end, or the present."""
    nodes: Sequence[NodeRecord]
    spans: Sequence[Span]
    approvals: Sequence[Approval]
    journals: Sequence[tuple[_Key | None, Sequence[Mapping[str, Any]]]]
    """Of its tasks; of an agent's turn with the node that asked for it."""
    workflows: frozenset[str] = frozenset()
    """The nodes that run workflows: the time that they wait for is a deadline."""


def _profiled(seen: Seen, causes: Mapping[str, Sequence[str]]) -> RunProfile:
    executions = [one for node in seen.nodes if (one := _execution(node, seen.now)) is not None]
    return profile_run(RunFacts(seen.run.created_at, seen.now, executions, tuple(activities(seen)), causes))


def _execution(node: NodeRecord, now: datetime) -> Execution | None:
    start = node.started_at or node.finished_at
    if start is None:
        return None
    return Execution(
        node=node.node,
        item=node.item,
        iteration=node.iteration,
        start=start,
        end=max(start, node.finished_at or now),
        state=node.state,
        tries=node.tries,
        cost=None if node.unpriced_calls else node.cost,
        tokens=node.input_tokens + node.output_tokens,
        reused=bool(node.reused),
    )


def activities(seen: Seen) -> Iterator[Activity]:
    """Yield everything of a run that took time besides its nodes."""
    run = seen.run
    yield Activity(Spent.QUEUE, run.created_at, run.started_at or seen.now)
    calls = [call for span in seen.spans if (call := _call(span, seen.now)) is not None]
    yield from calls
    yield from _suspensions(seen, calls)
    waits = _Waits(seen, calls)
    for turn, journal in seen.journals:
        yield from _gaps(journal, turn or _WHOLE)
        yield from waits.of(journal)


def _suspensions(seen: Seen, calls: Sequence[Activity]) -> Iterator[Activity]:
    """Yield the times that the run was suspended, and those after them until there was a sign of life."""
    spans = [span for span in seen.spans if span.kind == SUSPENSION]
    if not spans:
        return
    signs = [_time(entry["at"]) for _, journal in seen.journals for entry in journal]
    signs += [call.start for call in calls]
    for span in spans:
        end = max(span.started_at, span.finished_at or seen.now)
        yield Activity(Spent.TIME, span.started_at, end)
        yield Activity(Spent.QUEUE, end, min((at for at in signs if at >= end), default=seen.now))


def _call(span: Span, now: datetime) -> Activity | None:
    key = str(span.attributes.get("fairlead.call.key") or "").rsplit("/", _KEY_PARTS - 1)
    if span.kind != "call" or len(key) != _KEY_PARTS or not key[2].isdecimal():
        return None
    spent = Spent.MODEL if span.attributes.get("fairlead.action") == "llm" else Spent.TOOL
    end = max(span.started_at, span.finished_at or now)
    return Activity(spent, span.started_at, end, key[0], _item(key[1]), int(key[2]))


def _item(part: str) -> str:
    """Return the name that records give to the item of a call's key."""
    if part == "-":
        return ""
    return part[1:].replace("%2F", "/").replace("%25", "%") or '""'


def _turn_of(task: Task) -> _Key | None:
    """Return the node that asked for a turn; None for the task of the run itself."""
    if task.kind != "turn":
        return None
    asked = task.request
    return str(asked.get("node") or ""), _label(asked.get("item")), int(asked.get("iteration") or 1)


def _gaps(journal: Sequence[Mapping[str, Any]], owner: _Key) -> Iterator[Activity]:
    """Yield the times between the last word of one attempt and the first of the next: nobody had the task then."""
    for before, after in pairwise(journal):
        if before.get("attempt") != after.get("attempt"):
            start, end = _time(before["at"]), _time(after["at"])
            yield Activity(Spent.QUEUE, start, max(start, end), *owner)


class _Waits:
    """Finds what tries waited for: people, times, the pods that take turns."""

    def __init__(self, seen: Seen, calls: Sequence[Activity]) -> None:
        self._seen = seen
        self._decided = {one.key: one.decided_at for one in seen.approvals}
        self._calls: dict[_Key, list[datetime]] = {}
        for call in calls:
            self._calls.setdefault((call.node, call.item, call.iteration), []).append(call.start)
        self._turns = {span.parent_id: span for span in seen.spans if span.kind == "turn"}

    def of(self, journal: Sequence[Mapping[str, Any]]) -> Iterator[Activity]:
        """Yield the waits that a journal tells of."""
        waiting: dict[_Key, Mapping[str, Any]] = {}
        for entry in journal:
            key = (str(entry.get("node") or ""), _label(entry.get("item")), int(entry.get("iteration") or 1))
            begun = waiting.pop(key, None)
            if begun is not None:
                yield from self._waited(key, begun, _time(entry["at"]))
            if entry["kind"] == Kind.WAITING and definition_path(key[0]) not in self._seen.workflows:
                waiting[key] = entry
            elif entry["kind"] == Kind.TRY_FAILED and entry.get("retryAt"):
                start = _time(entry["at"])
                yield Activity(Spent.TIME, start, max(start, _time(entry["retryAt"])), *key)
        for key, begun in waiting.items():
            yield from self._waited(key, begun, self._seen.now)

    def _waited(self, key: _Key, begun: Mapping[str, Any], end: datetime) -> Iterator[Activity]:
        """Yield a wait, and the way back to a pod that follows it."""
        wait, start = begun.get("wait") or {}, _time(begun["at"])
        end = max(start, end)
        if wait.get("kind") == WaitFor.TURN:
            item = None if not key[1] else "" if key[1] == '""' else key[1]
            turn = self._turns.get(node_span_id(self._seen.run.uid, key[0], item, key[2]))
            ended = (turn.finished_at if turn is not None else None) or end
            taken = min((at for at in self._calls.get(key, ()) if at > start), default=ended)  # its first sign of life
            yield Activity(Spent.QUEUE, start, min(max(start, taken), end), *key)
            until = min(max(start, ended), end)
        else:
            asks = wait.get("kind") == WaitFor.APPROVAL
            over = self._decided.get(str(wait.get("key"))) if asks else wait.get("until")
            until = min(max(start, _time(over) if over else end), end)
            yield Activity(Spent.PEOPLE if asks else Spent.TIME, start, until, *key)
        yield Activity(Spent.QUEUE, until, end, *key)


def _label(item: Any) -> str:
    return "" if item is None else str(item) or '""'


def _time(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


def show_run_profile(run: Run, profile: RunProfile) -> dict[str, Any]:
    """Return a run's profile as JSON."""
    whole = profile.total.total_seconds()
    return {
        "run": run.name,
        "uid": run.uid,
        "namespace": run.namespace,
        "workflow": run.workflow,
        "state": run.state.value,
        "seconds": whole,
        "shares": {
            kind.value: {"seconds": part.total_seconds(), "share": part / profile.total if profile.total else 0.0}
            for kind, part in profile.shares.items()
        },
        "slowestNode": profile.slowest,
        "criticalPath": [_show_segment(one) for one in profile.path],
        "nodes": [_show_time(one) for one in profile.nodes],
    }


def _show_segment(one: Segment) -> dict[str, Any]:
    return {
        "node": one.node,
        "item": one.item,
        "iteration": one.iteration,
        "spent": one.spent.value,
        "startedAt": one.start,
        "seconds": one.length.total_seconds(),
    }


def _show_time(one: NodeTime) -> dict[str, Any]:
    return {
        "node": one.node,
        "executions": one.executions,
        "tries": one.tries,
        "failures": one.failures,
        "calls": one.calls,
        "seconds": one.total.total_seconds(),
        "onPathSeconds": one.on_path.total_seconds(),
        "spent": {kind.value: part.total_seconds() for kind, part in one.spent.items()},
        "tokens": one.tokens,
        "cost": dollars(one.cost),
        "reused": one.reused,
    }


def show_workflow_profile(namespace: str, workflow: str, profile: WorkflowProfile) -> dict[str, Any]:
    """Return a workflow's profile as JSON."""
    return {
        "namespace": namespace,
        "workflow": workflow,
        "runs": profile.runs,
        "failures": dict(profile.failures),
        "seconds": _show_spread(profile.seconds),
        "shares": {kind.value: part for kind, part in profile.shares.items()},
        "cost": _show_money(profile.cost),
        "tokens": _show_spread(profile.tokens),
        "slowestNode": profile.slowest,
        "nodes": [_show_node(one) for one in profile.nodes],
    }


def read_workflow_profile(shown: Mapping[str, Any]) -> WorkflowProfile:
    """Return what `show_workflow_profile` showed."""
    return WorkflowProfile(
        runs=shown["runs"],
        failures=shown["failures"],
        seconds=Spread(**shown["seconds"]),
        shares={Spent(kind): part for kind, part in shown["shares"].items()},
        cost=_read_money(shown["cost"]),
        tokens=Spread(**shown["tokens"]),
        nodes=tuple(
            NodeProfile(
                node=one["node"],
                runs=one["runs"],
                seconds=Spread(**one["seconds"]),
                share=one["share"],
                failures=one["failures"],
                executions=Spread(**one["executions"]),
                calls=Spread(**one["calls"]),
                tokens=Spread(**one["tokens"]),
                cost=_read_money(one["cost"]),
            )
            for one in shown["nodes"]
        ),
        slowest=shown["slowestNode"],
    )


def _show_node(one: NodeProfile) -> dict[str, Any]:
    return {
        "node": one.node,
        "runs": one.runs,
        "seconds": _show_spread(one.seconds),
        "share": one.share,
        "failures": one.failures,
        "executions": _show_spread(one.executions),
        "calls": _show_spread(one.calls),
        "tokens": _show_spread(one.tokens),
        "cost": _show_money(one.cost),
    }


def _show_spread(one: Spread) -> dict[str, float]:
    return {"p50": one.p50, "p95": one.p95}


def _read_money(shown: Mapping[str, Any]) -> Spread | None:
    if shown["p50"] is None or shown["p95"] is None:
        return None
    return Spread(*(int(Decimal(shown[part]) * PICODOLLARS) for part in ("p50", "p95")))


def _show_money(one: Spread | None) -> dict[str, str | None]:
    return {
        "p50": dollars(None if one is None else int(one.p50)),
        "p95": dollars(None if one is None else int(one.p95)),
    }
