"""Explains where a run's time went: its critical path, and what every moment of it was spent on.

The path covers the run without a gap, from its acceptance to its end, so that shares add up to the whole. It is found
from the end: what finished last, what that had waited for, and so on; inside a node, the same with its items or the
nodes of its workflow.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

_ZERO: Final = timedelta()
_PLACE: Final = re.compile(r"(?P<node>[^\[#]*)(?:\[(?P<item>[^\]]*)\])?(?:#(?P<iteration>\d+)\.\d+)?\Z")
_ESCAPES: Final = re.compile(r"%([0-9A-Fa-f]{2})")
MAX_DEPTH: Final = 8


class Spent(StrEnum):
    """What a moment was spent on. Of two at once, the first here counts."""

    MODEL = "model"
    TOOL = "tool"
    PEOPLE = "people"
    """Waiting for a person's decision."""
    TIME = "time"
    """Waiting for a time: a `wait` node, the pause before a retry, a suspension."""
    QUEUE = "queue"
    """Waiting for a pod."""
    OVERHEAD = "overhead"
    """Everything else: Fairlead's own work."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A node that ran, or one of its items, in one iteration."""

    node: str
    """The path: ``a/b`` is node ``b`` of the workflow that node ``a`` runs."""
    item: str
    """Empty for the node itself."""
    iteration: int
    start: datetime
    end: datetime
    state: str = "Succeeded"
    tries: int = 1
    cost: int | None = 0
    """Picodollars; None: not known."""
    tokens: int = 0
    reused: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from every other."""
        return self.node, self.item, self.iteration


@dataclass(frozen=True, slots=True)
class Activity:
    """Something that took time: a call, a wait. Of one execution, or of the whole run where *node* is empty."""

    spent: Spent
    start: datetime
    end: datetime
    node: str = ""
    item: str = ""
    iteration: int = 0


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run."""

    accepted: datetime
    end: datetime
    executions: Sequence[Execution]
    activities: Sequence[Activity] = ()
    causes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By a node's path in the definition: the nodes of its scope whose end may start it."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the critical path. *node* is empty where nothing was under way."""

    spent: Spent
    start: datetime
    end: datetime
    node: str = ""
    item: str = ""
    iteration: int = 0

    @property
    def length(self) -> timedelta:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What a node took, over its items and iterations, and wherever its workflow was run."""

    node: str
    """Its path in the definition."""
    executions: int
    """How often it, or an item of it, ran."""
    total: timedelta
    """From start to end, over all iterations."""
    on_path: timedelta
    """The part of it that the run waited for."""
    spent: Mapping[Spent, timedelta]
    """What its calls and waits took; more than `total` where they ran side by side, as the calls of items do."""
    failures: int
    tries: int
    cost: int | None
    tokens: int
    calls: int
    reused: bool


@dataclass(frozen=True, slots=True)
class RunProfile:
    """Where a run's time went."""

    total: timedelta
    path: tuple[Segment, ...]
    shares: Mapping[Spent, timedelta]
    nodes: tuple[NodeTime, ...]
    slowest: str
    """The node that the run waited for most; empty: none has run."""


def definition_path(node: str) -> str:
    """Return where a node is defined: its path without items, iterations and tries."""
    return "/".join(_place(part)[0] for part in node.split("/"))


def causes_of(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return, for every node of a frozen revision and the workflows in it, which nodes' ends may start it."""
    found: dict[str, tuple[str, ...]] = {}
    _collect_causes(document["workflow"]["spec"], "", document.get("workflows") or {}, found)
    return found


def _collect_causes(
    spec: Mapping[str, Any], prefix: str, workflows: Mapping[str, Any], found: dict[str, tuple[str, ...]]
) -> None:
    nodes = spec.get("nodes") or ()
    for node in nodes:
        again = [other["name"] for other in nodes if (other.get("repeat") or {}).get("from") == node["name"]]
        found[prefix + node["name"]] = (*(node.get("needs") or ()), *again)
        inner = workflows.get(str((node.get("workflow") or {}).get("name")))
        if inner is not None and prefix.count("/") < MAX_DEPTH:
            _collect_causes(inner, f"{prefix}{node['name']}/", workflows, found)


def profile_run(facts: RunFacts) -> RunProfile:
    """Return where a run's time went."""
    path = tuple(_Walk(facts).path())
    shares = dict.fromkeys(Spent, _ZERO)
    on_path: dict[str, timedelta] = {}
    for segment in path:
        shares[segment.spent] += segment.length
        if segment.node:
            node = definition_path(segment.node)
            on_path[node] = on_path.get(node, _ZERO) + segment.length
    nodes = tuple(_node_times(facts, on_path))
    slowest = max(on_path, key=lambda node: on_path[node], default="")
    return RunProfile(max(facts.end - facts.accepted, _ZERO), path, shares, nodes, slowest)


class _Walk:
    """Finds the critical path."""

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts
        self._everywhere = [one for one in facts.activities if not one.node]
        self._own: dict[tuple[str, str, int], list[Activity]] = {}
        for each in facts.activities:
            if each.node:
                self._own.setdefault((each.node, each.item, each.iteration), []).append(each)
        self._inside: dict[tuple[str, str, int], list[Execution]] = {}
        self._top: list[Execution] = []
        known = {one.key for one in facts.executions}
        for one in facts.executions:
            parent = _parent(one, known)
            (self._top if parent is None else self._inside.setdefault(parent, [])).append(one)

    def path(self) -> list[Segment]:
        """Return the segments, in order."""
        backwards = self._scope(self._top, self._facts.accepted, max(self._facts.accepted, self._facts.end), None)
        return list(_merged(reversed(list(backwards))))

    def _scope(
        self, members: list[Execution], start: datetime, end: datetime, owner: Execution | None
    ) -> Iterator[Segment]:
        """Yield what covers the time from *end* back to *start*, the last first."""
        scope = _Scope(members, self._facts.causes)
        moment, current = end, scope.last()
        while current is not None and moment > start:
            finish = max(min(current.end, moment), start)
            begin = max(min(current.start, finish), start)
            yield from self._split(finish, moment, owner)
            yield from self._inner(current, begin, finish)
            moment, current = begin, scope.cause(current)
        yield from self._split(start, moment, owner)

    def _inner(self, one: Execution, start: datetime, end: datetime) -> Iterator[Segment]:
        members = self._inside.get(one.key)
        if members:
            yield from self._scope(members, start, end, one)
        else:
            yield from self._split(start, end, one)

    def _split(self, start: datetime, end: datetime, owner: Execution | None) -> Iterator[Segment]:
        """Yield a stretch of one owner, the last part first, by what it was spent on."""
        if start >= end:
            return
        own = self._own.get(owner.key, []) if owner is not None else []
        there = [one for one in (*own, *self._everywhere) if one.start < end and one.end > start]
        cuts = {moment for one in there for moment in (one.start, one.end) if start < moment < end}
        place = owner.key if owner is not None else ("", "", 0)
        for before, after in reversed(list(pairwise(sorted({start, end, *cuts})))):
            covering = {one.spent for one in there if one.start <= before and one.end >= after}
            spent = next((kind for kind in Spent if kind in covering), Spent.OVERHEAD)
            yield Segment(spent, before, after, *place)


class _Scope:
    """The executions between which one waited for another: of one workflow, or the items of one node."""

    def __init__(self, members: Sequence[Execution], causes: Mapping[str, Sequence[str]]) -> None:
        self._members = sorted(members, key=lambda one: (one.end, one.start))
        self._ends = [one.end for one in self._members]
        self._causes = causes
        self._seen: set[tuple[str, str, int]] = set()
        self._named: dict[str, list[Execution]] = {}
        for one in self._members:
            self._named.setdefault(one.node, []).append(one)

    def last(self) -> Execution | None:
        """Return what finished last."""
        return self._take(self._members)

    def cause(self, one: Execution) -> Execution | None:
        """Return what *one* waited for; None: it could start with its scope."""
        if one.item or one.node.rpartition("/")[2].startswith("@"):
            return self._take(self._members[: bisect_right(self._ends, one.start)])
        scope, slash, _ = one.node.rpartition("/")
        names = self._causes.get(definition_path(one.node), ())
        able = [other for name in names for other in self._named.get(f"{scope}{slash}{name}", ())]
        return self._take(sorted((o for o in able if o.start <= one.start), key=lambda o: o.end))

    def _take(self, candidates: Sequence[Execution]) -> Execution | None:
        """Return the last candidate that was not on the path yet."""
        for one in reversed(candidates):
            if one.key not in self._seen:
                self._seen.add(one.key)
                return one
        return None


def _place(part: str) -> tuple[str, str, int]:
    """Return node, item and iteration of a part of a path."""
    found = _PLACE.match(part)
    if found is None:
        return part, "", 1
    item = _ESCAPES.sub(lambda code: chr(int(code[1], 16)), found["item"] or "")
    return found["node"], item, int(found["iteration"] or 1)


def _parent(one: Execution, known: set[tuple[str, str, int]]) -> tuple[str, str, int] | None:
    """Return what *one* is a part of: the node of an item, the node whose workflow it belongs to."""
    if one.item and (one.node, "", one.iteration) in known:
        return one.node, "", one.iteration
    scope, _, _ = one.node.rpartition("/")
    if not scope:
        return None
    outer, slash, last = scope.rpartition("/")
    node, item, iteration = _place(last)
    key = (f"{outer}{slash}{node}", item, iteration)
    return key if key in known else None


def _merged(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Join neighbours that are alike."""
    last: Segment | None = None
    for one in segments:
        alike = last is not None and (last.spent, last.node, last.item, last.iteration) == (
            *(one.spent, one.node),
            *(one.item, one.iteration),
        )
        if last is not None and alike:
            last = Segment(last.spent, last.start, one.end, last.node, last.item, last.iteration)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last


def _node_times(facts: RunFacts, on_path: Mapping[str, timedelta]) -> Iterator[NodeTime]:
    by_node: dict[str, list[Execution]] = {}
    for one in facts.executions:
        by_node.setdefault(definition_path(one.node), []).append(one)
    spent: dict[str, dict[Spent, timedelta]] = {}
    calls: dict[str, int] = {}
    for each in facts.activities:
        node = definition_path(each.node)
        of_node = spent.setdefault(node, {})
        of_node[each.spent] = of_node.get(each.spent, _ZERO) + (each.end - each.start)
        for outer in _with_those_around(node):  # as cost and tokens are summed
            calls[outer] = calls.get(outer, 0) + (each.spent in (Spent.MODEL, Spent.TOOL))
    for node, every in by_node.items():
        items = [one for one in every if one.item]
        whole = [one for one in every if not one.item] or items
        ran = [one for one in items or whole if one.state != "Skipped"]
        yield NodeTime(
            node=node,
            executions=len(ran),
            total=sum((one.end - one.start for one in whole), _ZERO),
            on_path=on_path.get(node, _ZERO),
            spent=spent.get(node, {}),
            failures=sum(one.state == "Failed" for one in whole),
            tries=sum(one.tries for one in ran),
            cost=add_costs(one.cost for one in whole),
            tokens=sum(one.tokens for one in whole),
            calls=calls.get(node, 0),
            reused=any(one.reused for one in whole),
        )


def _with_those_around(path: str) -> Iterator[str]:
    """Yield the path of a node, and those of the nodes whose workflows it is in."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def add_costs(costs: Iterable[int | None]) -> int | None:
    """Return a sum; None where a part of it is not known."""
    total = 0
    for one in costs:
        if one is None:
            return None
        total += one
    return total


@dataclass(frozen=True, slots=True)
class Spread:
    """How something is spread over runs: the middle, and what nineteen of twenty stay below."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run with its profile."""

    name: str
    state: str
    reason: str
    profile: RunProfile
    cost: int | None
    """Picodollars; None: not known."""
    tokens: int


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """A node of a workflow, over many runs."""

    node: str
    """Its path in the definition."""
    runs: int
    """In how many it ran."""
    seconds: Spread
    share: float
    """The part of all runs' time that they waited for it."""
    failures: int
    executions: Spread
    calls: Spread
    tokens: Spread
    cost: Spread | None
    """Picodollars; None: not known for some run."""


@dataclass(frozen=True, slots=True)
class WorkflowProfile:
    """Where the time of a workflow's runs goes."""

    runs: int
    failures: Mapping[str, int]
    """How many runs failed, by reason."""
    seconds: Spread
    shares: Mapping[Spent, float]
    """Parts of all runs' time; they add up to 1, where there was any."""
    cost: Spread | None
    """Picodollars for a run; None: not known for some run."""
    tokens: Spread
    nodes: tuple[NodeProfile, ...]
    slowest: str


def profile_workflow(runs: Sequence[FinishedRun]) -> WorkflowProfile:
    """Return what the profiles of a workflow's runs have in common."""
    whole = sum((run.profile.total for run in runs), _ZERO)
    failures: dict[str, int] = {}
    by_node: dict[str, list[NodeTime]] = {}
    for run in runs:
        if run.state == "Failed":
            failures[run.reason] = failures.get(run.reason, 0) + 1
        for node in run.profile.nodes:
            by_node.setdefault(node.node, []).append(node)
    nodes = tuple(_node_profile(node, times, whole) for node, times in by_node.items())
    shares = {kind: _part(sum((run.profile.shares[kind] for run in runs), _ZERO), whole) for kind in Spent}
    return WorkflowProfile(
        runs=len(runs),
        failures=failures,
        seconds=spread([run.profile.total.total_seconds() for run in runs]),
        shares=shares,
        cost=_cost_spread([run.cost for run in runs]),
        tokens=spread([run.tokens for run in runs]),
        nodes=nodes,
        slowest=max(nodes, key=lambda node: node.share).node if nodes else "",
    )


def _node_profile(node: str, times: Sequence[NodeTime], whole: timedelta) -> NodeProfile:
    ran = [time for time in times if time.executions and not time.reused]
    return NodeProfile(
        node=node,
        runs=len(ran),
        seconds=spread([time.total.total_seconds() for time in ran]),
        share=_part(sum((time.on_path for time in times), _ZERO), whole),
        failures=sum(time.failures for time in times),
        executions=spread([time.executions for time in ran]),
        calls=spread([time.calls for time in ran]),
        tokens=spread([time.tokens for time in ran]),
        cost=_cost_spread([time.cost for time in ran]),
    )


def _part(one: timedelta, whole: timedelta) -> float:
    return one / whole if whole else 0.0


def _cost_spread(costs: Sequence[int | None]) -> Spread | None:
    known = [cost for cost in costs if cost is not None]
    return spread(known) if len(known) == len(costs) else None


def spread(values: Sequence[float]) -> Spread:
    """Return the 50th and the 95th percentile, each a value that occurred; 0 for none."""
    if not values:
        return Spread(0, 0)
    ordered = sorted(values)
    return Spread(*(ordered[-(-len(ordered) * part // 100) - 1] for part in (50, 95)))
