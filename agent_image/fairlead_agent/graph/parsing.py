"""From a spec on the wire to a graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from graphlib import TopologicalSorter
from typing import Any, Final

from fairlead_agent.compiling import Expression, compile_expression
from fairlead_agent.expressions import expressions_in
from fairlead_agent.graph.checks import check
from fairlead_agent.graph.model import (
    ACTIONS,
    DEFAULT_PARALLEL,
    HANDLER_TIMEOUT,
    TEMPLATES,
    Cache,
    Graph,
    Node,
    Repeat,
    Retry,
    Uses,
)
from fairlead_agent.graph.paths import HANDLERS
from fairlead_agent.graph.regions import Region, ancestors_of, enclosing, region, released
from fairlead_agent.graph.tokens import token
from fairlead_agent.problems import GraphError, Problem

_KEPT: Final = 64


def parse_graph(spec: Any) -> Graph:
    """Return the graph of a ``Workflow.spec``. Those that were asked for last are kept.

    Raises:
        GraphError: with everything that `check` finds.
    """
    try:
        text = json.dumps(spec)
    except (TypeError, ValueError, RecursionError):
        raise GraphError(check(spec) or [Problem("", "the spec is no JSON")]) from None
    return _parse(text)


@lru_cache(maxsize=_KEPT)
def _parse(text: str) -> Graph:
    spec = json.loads(text)
    problems = check(spec)
    if problems:
        raise GraphError(problems)
    nodes = {wire["name"]: _node(wire) for wire in spec["nodes"]}
    needs = {name: node.needs for name, node in nodes.items()}
    ancestors = ancestors_of(needs, TopologicalSorter(needs).static_order())
    regions = _regions(spec["nodes"], ancestors)
    innermost = {name: ends for name in nodes if (ends := enclosing(name, regions))}
    dependents: dict[str, list[str]] = {name: [] for name in nodes}
    for node in nodes.values():
        for need in node.needs:
            dependents[need].append(node.name)
    return Graph(
        nodes,
        {name: tuple(names) for name, names in dependents.items()},
        output=spec.get("output"),
        model=spec.get("model") or "",
        declared=spec.get("inputs"),
        timeout_seconds=spec.get("timeoutSeconds"),
        handlers={path: _handler(path, spec[field]) for path, field in HANDLERS.items() if spec.get(field)},
        ancestors=ancestors,
        regions=regions,
        innermost=innermost,
        released=released(needs, regions, innermost),
    )


def _regions(wires: list[Mapping[str, Any]], ancestors: Mapping[str, frozenset[str]]) -> dict[str, Region]:
    repeated = [(wire["repeat"]["from"], wire["name"]) for wire in wires if wire.get("repeat") is not None]
    return {end: found for first, end in repeated if (found := region(first, end, ancestors))}


def _node(wire: Mapping[str, Any]) -> Node:
    action = _action(wire)
    given, for_each = _given(action, wire[action]), _expression(wire.get("forEach"))
    return Node(
        name=wire["name"],
        needs=tuple(dict.fromkeys(wire.get("needs") or ())),
        action=action,
        config=wire[action],
        when=_expression(wire.get("when")),
        for_each=for_each,
        max_parallel=int(wire.get("maxParallel") or DEFAULT_PARALLEL),
        repeat=_repeat(wire.get("repeat")),
        retry=_retry(wire.get("retry")),
        timeout_seconds=wire.get("timeoutSeconds"),
        continue_on_error=wire.get("onError") == "Continue",
        cache=_cache(wire.get("cache")),
        until=_expression(wire[action].get("until")) if action == "wait" else None,
        uses=Uses.of(given),
        uses_in_all=Uses.of((*given, for_each) if for_each else given),
        token=token({"action": action, "config": wire[action]}),
    )


def _handler(path: str, wire: Mapping[str, Any]) -> Node:
    action = _action(wire)
    return Node(
        name=path,
        needs=(),
        action=action,
        config=wire[action],
        retry=_retry(wire.get("retry")),
        timeout_seconds=wire.get("timeoutSeconds") or HANDLER_TIMEOUT,
        token=token({"action": action, "config": wire[action]}),
    )


def _action(wire: Mapping[str, Any]) -> str:
    return next(name for name in ACTIONS if wire.get(name) is not None)


def _given(action: str, config: Mapping[str, Any]) -> tuple[Expression, ...]:
    texts = [config.get(name) for name in TEMPLATES[action]]
    found = [one for _, one in expressions_in(texts) if isinstance(one, Expression)]
    until = _expression(config.get("until")) if action == "wait" else None
    return (*found, until) if until else tuple(found)


def _expression(source: str | None) -> Expression | None:
    return None if source is None else compile_expression(source)


def _repeat(wire: Mapping[str, Any] | None) -> Repeat | None:
    if wire is None:
        return None
    exhausted = wire.get("onExhausted") or "Fail"
    return Repeat(compile_expression(wire["until"]), int(wire.get("maxIterations") or 5), exhausted == "Fail")


def _cache(wire: Mapping[str, Any] | None) -> Cache | None:
    return None if wire is None else Cache(int(wire.get("ttlSeconds", 86_400)), _expression(wire.get("key")))


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
