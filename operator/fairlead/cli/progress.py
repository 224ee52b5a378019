"""What a run's nodes look like while it runs: pure, from its plan and the gateway's record of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fairlead.cli.printing import duration, seconds_between, shorten

_ENDED: Final = ("Succeeded", "Failed", "Skipped", "Cancelled")
_TEXT: Final = 60


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node, as a person sees it."""

    name: str
    depth: int
    state: str
    detail: str = ""
    items: int = 0
    items_done: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What has to change for a new line to be printed."""
        return self.name, self.state

    def text(self) -> str:
        """Return the line without mark and indentation."""
        items = f" {self.items_done}/{self.items}" if self.items else ""
        return f"{self.name}{items}  {self.detail}".rstrip()


def plan_depths(spec: Mapping[str, Any]) -> dict[str, int]:
    """Return each node of a workflow's spec and the length of the longest path to it, in the order of the file."""
    needs = {node["name"]: tuple(node.get("needs") or ()) for node in spec.get("nodes") or ()}
    depths: dict[str, int] = {}

    def depth(name: str, path: tuple[str, ...]) -> int:
        if name not in depths:
            above = [depth(need, (*path, name)) for need in needs.get(name, ()) if need not in path]
            depths[name] = 1 + max(above, default=-1)
        return depths[name]

    return {name: depth(name, ()) for name in needs}


def node_lines(depths: Mapping[str, int], records: Sequence[Mapping[str, Any]]) -> list[NodeLine]:
    """Return a line for every node, those that have not started among them, sorted by depth."""
    own = {record["node"]: record for record in records if not record.get("item")}
    items: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record.get("item"):
            items.setdefault(record["node"], []).append(record)
    names = dict.fromkeys([*sorted(depths, key=lambda name: depths[name]), *own])
    return [_line(name, depths.get(name, 0), own.get(name), items.get(name, ())) for name in names]


def _line(name: str, depth: int, record: Mapping[str, Any] | None, items: Sequence[Mapping[str, Any]]) -> NodeLine:
    if record is None:
        return NodeLine(name, depth, "Pending")
    done = sum(item["state"] in _ENDED for item in items)
    return NodeLine(name, depth, record["state"], node_detail(record), len(items), done)


def node_detail(record: Mapping[str, Any]) -> str:
    """Return what there is to say of a node: how long it took, how often it was tried, why it did not run."""
    parts = [duration(seconds_between(record.get("startedAt"), record.get("finishedAt")))]
    if (record.get("tries") or 1) > 1:
        parts.append(f"{record['tries']} tries")
    if record["state"] not in ("Succeeded", "Running"):
        why = ": ".join(part for part in (record.get("reason"), record.get("message")) if part)
        parts.append(shorten(why, _TEXT))
    return "  ".join(part for part in parts if part)
