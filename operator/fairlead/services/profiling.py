"""Explains where runs' time and money went, from what storage keeps of them."""

from __future__ import annotations

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
from fairlead.storage.base import Approval, NodeRecord, Run, Span, Storage
from fairlead_agent.protocol import Kind, WaitFor

MAX_RUNS: Final = 100
_KEY_PARTS: Final = 5
_Key = tuple[str, str, int]


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
            journals=[await self._storage.journal(task.id) for task in await self._storage.tasks_of_run(run.uid)],
            workflows=frozenset(path.rpartition("/")[0] for path in known[run.revision]),
        )
        executions = [one for node in seen.nodes if (one := _execution(node, now)) is not None]
        return profile_run(RunFacts(run.created_at, now, executions, tuple(activities(seen)), known[run.revision]))


@dataclass(frozen=True, slots=True)
class Seen:
    """What storage keeps of a run."""

    run: Run
    now: datetime
    """Its end, or the present."""
    nodes: Sequence[NodeRecord]
    spans: Sequence[Span]
    approvals: Sequence[Approval]
    journals: Sequence[Sequence[Mapping[str, Any]]]
    workflows: frozenset[str] = frozenset()
    """The nodes that run workflows: the time that they wait for is a deadline."""


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
    decided = {one.key: one.decided_at for one in seen.approvals}
    for journal in seen.journals:
        yield from _gaps(journal)
        yield from _waits(journal, decided, calls, seen)


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


def _gaps(journal: Sequence[Mapping[str, Any]]) -> Iterator[Activity]:
    """Yield the times between the last word of one attempt and the first of the next: nobody had the task then."""
    for before, after in pairwise(journal):
        if before.get("attempt") != after.get("attempt"):
            start, end = _time(before["at"]), _time(after["at"])
            yield Activity(Spent.QUEUE, start, max(start, end))


def _waits(
    journal: Sequence[Mapping[str, Any]],
    decided: Mapping[str, datetime | None],
    calls: Sequence[Activity],
    seen: Seen,
) -> Iterator[Activity]:
    """Yield what tries waited for: people, times, the pods that take turns."""
    waiting: dict[_Key, Mapping[str, Any]] = {}
    for entry in journal:
        key = (str(entry.get("node") or ""), _label(entry.get("item")), int(entry.get("iteration") or 1))
        begun = waiting.pop(key, None)
        if begun is not None:
            yield from _waited(key, begun, decided, calls=calls, end=_time(entry["at"]))
        if entry["kind"] == Kind.WAITING and definition_path(key[0]) not in seen.workflows:
            waiting[key] = entry
        elif entry["kind"] == Kind.TRY_FAILED and entry.get("retryAt"):
            start = _time(entry["at"])
            yield Activity(Spent.TIME, start, max(start, _time(entry["retryAt"])), *key)
    for key, begun in waiting.items():
        yield from _waited(key, begun, decided, calls=calls, end=seen.now)


def _waited(
    key: _Key,
    begun: Mapping[str, Any],
    decided: Mapping[str, datetime | None],
    *,
    calls: Sequence[Activity],
    end: datetime,
) -> Iterator[Activity]:
    wait, start = begun.get("wait") or {}, _time(begun["at"])
    end = max(start, end)
    match wait.get("kind"):
        case WaitFor.APPROVAL:
            until = decided.get(str(wait.get("key"))) or end
            spent = Spent.PEOPLE
        case WaitFor.TIME:
            until = _time(wait["until"]) if wait.get("until") else end
            spent = Spent.TIME
        case _:
            own = [call.start for call in calls if (call.node, call.item, call.iteration) == key and call.start > start]
            until = min(own, default=end)
            spent = Spent.QUEUE
    until = min(max(start, until), end)
    yield Activity(spent, start, until, *key)
    if spent is not Spent.QUEUE:  # what comes now is the way back to a pod
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
