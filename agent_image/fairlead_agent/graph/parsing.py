"""From a spec on the wire to a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead_agent.compiling import Expression, compile_expression
from fairlead_agent.graph.checks import check
from fairlead_agent.graph.model import ACTIONS, DEFAULT_PARALLEL, Graph, Node, Retry
from fairlead_agent.problems import GraphError


def parse_graph(spec: Any) -> Graph:
    """Return the graph of a ``Workflow.spec``.

    Raises:
        GraphError: with everything that `check` finds.
    """
    problems = check(spec)
    if problems:
        raise GraphError(problems)
    nodes = {wire["name"]: _node(wire) for wire in spec["nodes"]}
    dependents: dict[str, tuple[str, ...]] = {
        name: tuple(other.name for other in nodes.values() if name in other.needs) for name in nodes
    }
    return Graph(nodes, dependents, output=spec.get("output"), model=spec.get("model") or "")


def _node(wire: Mapping[str, Any]) -> Node:
    action = next(name for name in ACTIONS if wire.get(name) is not None)
    return Node(
        name=wire["name"],
        needs=tuple(dict.fromkeys(wire.get("needs") or ())),
        action=action,
        config=wire[action],
        when=_expression(wire.get("when")),
        for_each=_expression(wire.get("forEach")),
        max_parallel=int(wire.get("maxParallel") or DEFAULT_PARALLEL),
        retry=_retry(wire.get("retry")),
        timeout_seconds=wire.get("timeoutSeconds"),
        continue_on_error=wire.get("onError") == "Continue",
    )


def _expression(source: str | None) -> Expression | None:
    return None if source is None else compile_expression(source)


def _retry(wire: Mapping[str, Any] | None) -> Retry:
    if wire is None:
        return Retry()
    given = {
        "limit": wire.get("limit", 3),
        "backoff_seconds": wire.get("backoffSeconds", 1),
        "factor": wire.get("factor", 2),
        "max_backoff_seconds": wire.get("maxBackoffSeconds", 60),
    }
    return Retry(**given, on=frozenset(wire.get("on") or ()))
