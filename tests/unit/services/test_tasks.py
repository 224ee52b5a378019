from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fairlead.services.tasks import TaskContext


class Nodes(Sequence[Any]):
    """Nodes that count how often somebody goes through them."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.nodes = nodes
        self.scans = 0

    def __getitem__(self, index: Any) -> Any:
        return self.nodes[index]

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Any]:
        self.scans += 1
        return iter(self.nodes)


INNER = {"name": "b", "tool": {"name": "t"}}


def build() -> tuple[TaskContext, Nodes]:
    nodes = Nodes({"name": "a", "workflow": {"name": "w"}})
    document = {"workflow": {"spec": {"nodes": nodes}}, "workflows": {"w": {"nodes": [INNER]}}}
    return TaskContext("task-1", "run-1", "ns", "run", "w", None, document), nodes


def test_node_is_looked_for_once_whatever_item_or_iteration_it_is_of() -> None:
    context, nodes = build()
    assert all(context.node(f"a[{item}]#{item}.1/b") is INNER for item in range(1, 100))
    assert nodes.scans == 1


@pytest.mark.parametrize("path", ["a/c", "c", "b", "a[/b", "a/b/", "a/b#1", "a#1/b"])
def test_node_that_is_not_there_or_is_no_path_is_none(path: str) -> None:
    context, _ = build()
    assert (context.node(path), context.node(path)) == (None, None)
