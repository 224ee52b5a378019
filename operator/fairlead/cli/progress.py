"""What a run's nodes look like while it runs: pure, from its plan and the gateway's record of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fairlead.cli.printing import duration, money, parse_time, seconds_between, shorten
from fairlead.redaction import visible

_ENDED: Final = ("Succeeded", "Failed", "Skipped", "Cancelled")
_BY_WEIGHT: Final = ("Running", "Waiting", "Failed", "Cancelled", "Succeeded", "Skipped")
"""What many records of one node are together: the first of these that one of them is."""
_TEXT: Final = 60
_WAITS: Final = {"Turn": "for its agent", "Time": "for its time", "Approval": "for a person"}
_DEEPEST: Final = 8
_TIMES: Final = re.compile(r"#[^/]*")
_PLACES: Final = re.compile(r"\[[^\]]*\]|#[^/]*")

Record = Mapping[str, Any]
Plan = Mapping[str, int]
"""The nodes of a workflow in order, those of the workflows in it below their node (``outer/inner``), each with its
indentation."""


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node, as a person sees it."""

    name: str
    depth: int
    state: str
    detail: str = ""
    items: int = 0
    items_done: int = 0
    path: str = ""
    """The whole name of a node of a workflow within the workflow; empty: `name`."""

    @property
    def key(self) -> str:
        """What tells it from other lines."""
        return self.path or self.name

    def text(self, name: str = "") -> str:
        """Return the line without mark and indentation."""
        return f"{name or self.name}{self._entries()}  {self.detail}".rstrip()

    def _entries(self) -> str:
        """Return how far a forEach is; how many entries there are is known when all of them have begun."""
        if not self.items:
            return ""
        if self.state in ("Running", "Waiting"):
            return f" {self.items_done} done, {self.items - self.items_done} at work"
        return f" {self.items_done}/{self.items}"


def plan_depths(spec: Mapping[str, Any], workflows: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, int]:
    """Return each node of a workflow's spec and its indentation: the length of the longest path to it.

    Args:
        spec: the workflow's.
        workflows: the specs of the workflows that its nodes run, by name.
    """
    return dict(_planned(spec, workflows or {}, prefix="", base=0))


def _planned(
    spec: Mapping[str, Any], workflows: Mapping[str, Mapping[str, Any]], *, prefix: str, base: int
) -> Iterator[tuple[str, int]]:
    nodes = {node["name"]: node for node in spec.get("nodes") or ()}
    depths = _depths({name: tuple(node.get("needs") or ()) for name, node in nodes.items()})
    for name in sorted(depths, key=lambda name: depths[name]):
        yield prefix + name, base + depths[name]
        inner = workflows.get((nodes[name].get("workflow") or {}).get("name", ""))
        if inner is not None and prefix.count("/") < _DEEPEST:
            yield from _planned(inner, workflows, prefix=f"{prefix}{name}/", base=base + depths[name] + 1)


def _depths(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    depths: dict[str, int] = {}

    def depth(name: str, path: tuple[str, ...]) -> int:
        if name not in depths:
            above = [depth(need, (*path, name)) for need in needs.get(name, ()) if need not in path]
            depths[name] = 1 + max(above, default=-1)
        return depths[name]

    return {name: depth(name, ()) for name in needs}


def node_lines(
    plan: Plan, records: Iterable[Record], *, approvals: Iterable[Record] = (), now: datetime | None = None
) -> list[NodeLine]:
    """Return a line for every node, those that have not started among them.

    Args:
        plan: what there is to do.
        records: the gateway's, of nodes and of items.
        approvals: those that wait for a person.
        now: to show how long what runs has been running.
    """
    grouped: dict[str, list[Record]] = {}
    for record in records:
        grouped.setdefault(_PLACES.sub("", record["node"]), []).append(record)
    asked = {_PLACES.sub("", approval["node"]): approval for approval in approvals}
    order = _order(plan, grouped)
    depths = {**plan}
    for key in order:
        depths.setdefault(key, depths.get(key.rpartition("/")[0], -1) + 1)
    return [_line(key, depths, grouped.get(key, ()), asked=asked.get(key), now=now) for key in order]


def _order(plan: Plan, keys: Iterable[str]) -> list[str]:
    """Return what is planned, and what is not, as handlers are not, behind the last line of its workflow."""
    order = list(plan)
    for key in keys:
        if key not in plan:
            scope = key.rpartition("/")[0]
            inside = [at for at, other in enumerate(order) if not scope or f"{other}/".startswith(f"{scope}/")]
            order.insert(inside[-1] + 1 if inside else len(order), key)
    return order


def _line(key: str, plan: Plan, records: Sequence[Record], *, asked: Record | None, now: datetime | None) -> NodeLine:
    name = key.rpartition("/")[2]
    depth = plan[key]
    newest = _newest(records)
    if not newest:
        return NodeLine(name, depth, "Pending", path=key)
    if len(newest) > 1:
        return _many(NodeLine(name, depth, "", path=key), newest, asked)
    (record,) = newest
    items = [
        one
        for one in records
        if one.get("item") and (one["node"], one.get("iteration")) == (record["node"], record.get("iteration"))
    ]
    done = sum(item["state"] in _ENDED for item in items)
    state = "Waiting" if asked is not None else record["state"]
    detail = question(asked) if asked is not None else node_detail(record, now=now)
    return NodeLine(name, depth, state, detail, len(items), done, path=key)


def _newest(records: Sequence[Record]) -> list[Record]:
    """Return the record of each place where a node stands, of its latest round: one, unless a forEach is around it."""
    latest: dict[str, Record] = {}
    for record in records:
        if not record.get("item"):
            place = _TIMES.sub("", record["node"])
            if place not in latest or _when(record) >= _when(latest[place]):
                latest[place] = record
    return list(latest.values())


def _when(record: Record) -> tuple[int, str]:
    return int(record.get("iteration") or 1), str(record.get("startedAt") or "")


def _many(line: NodeLine, records: Sequence[Record], asked: Record | None) -> NodeLine:
    states = [record["state"] for record in records]
    state = "Waiting" if asked is not None else next((one for one in _BY_WEIGHT if one in states), states[0])
    detail = question(asked) if asked is not None else ""
    done = sum(one in _ENDED for one in states)
    return NodeLine(line.name, line.depth, state, detail, len(records), done, path=line.path)


def question(approval: Record) -> str:
    """Return what a person is asked."""
    tool = approval.get("tool")
    what = f"may {tool['name']} be used? " if tool else ""
    return visible(shorten(f"approval: {what}{approval.get('message') or ''}", _TEXT))


def node_detail(record: Record, *, now: datetime | None = None) -> str:
    """Return what there is to say of a node: how long it took, how often it was tried, what it cost, why it failed."""
    ended = record.get("finishedAt")
    seconds = seconds_between(record.get("startedAt"), ended)
    if not ended and now is not None and record["state"] == "Running":
        began = parse_time(record.get("startedAt"))
        seconds = None if began is None else max((now - began).total_seconds(), 0.0)
    parts = [duration(seconds)]
    if (record.get("iteration") or 1) > 1:
        parts.append(f"round {record['iteration']}")
    if (record.get("tries") or 1) > 1:
        parts.append(f"{record['tries']} tries")
    parts += [*_spent(record), *(["reused"] if record.get("reused") else [])]
    if record["state"] == "Waiting":
        parts.append(_WAITS.get(record.get("reason") or "", ""))
    elif record["state"] not in ("Succeeded", "Running"):
        why = ": ".join(part for part in (record.get("reason"), record.get("message")) if part)
        parts.append(shorten(why, _TEXT))
    return visible("  ".join(part for part in parts if part))


def _spent(record: Record) -> list[str]:
    """Return what a node's calls cost, if they cost anything; an unknown price is n/a."""
    cost = record.get("cost")
    if not isinstance(cost, Mapping) or (cost.get("total") == "0"):
        return []
    return [money(cost.get("total"))]
