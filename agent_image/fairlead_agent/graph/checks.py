"""Every mistake in a workflow at once, from its spec alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from fairlead_agent.compiling import KEYWORDS, Expression, ExpressionError, compile_expression
from fairlead_agent.expressions import expressions_in, kind
from fairlead_agent.graph.model import ACTIONS, MAX_NODES
from fairlead_agent.inputs import check_declared, declared_inputs
from fairlead_agent.problems import Problem, did_you_mean
from fairlead_agent.schemas import check_schema

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MAX_CYCLES: Final = 10
_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "llm": ("prompt", "system"),
    "agent": ("prompt",),
    "tool": ("arguments",),
    "code": ("inputs",),
    "workflow": ("inputs",),
    "approval": ("message",),
    "wait": (),
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "llm": ("prompt",),
    "agent": ("name", "prompt"),
    "tool": ("name",),
    "code": ("language", "source"),
    "workflow": ("name",),
    "approval": ("message",),
    "wait": (),
}
_NUMBERS: Final = ("maxParallel", "timeoutSeconds")


def check(spec: Any) -> list[Problem]:
    """Return everything that is wrong with a ``Workflow.spec``, whatever shape it has."""
    if not isinstance(spec, Mapping):
        return [Problem("", f"the spec is a map, not {kind(spec)}")]
    nodes = spec.get("nodes")
    if not isinstance(nodes, list | tuple) or not nodes:
        return [*check_declared(spec.get("inputs")), Problem("nodes", "a workflow needs a list of at least one node")]
    problems = check_declared(spec.get("inputs"))
    if len(nodes) > MAX_NODES:
        return [*problems, Problem("nodes", f"{len(nodes)} nodes are declared, at most {MAX_NODES} are allowed")]
    found = _Workflow.read(spec, nodes)
    problems += found.name_problems()
    problems += found.edge_problems()
    for node in found.places:
        problems += _action_problems(node, has_model=bool(spec.get("model")))
        problems += _modifier_problems(node)
        problems += found.expression_problems(node)
    problems += found.output_problems(spec.get("output"))
    return problems


@dataclass(frozen=True, slots=True)
class _Place:
    """A node that is at least a map, and where it is."""

    index: int
    name: str
    wire: Mapping[str, Any]

    @property
    def path(self) -> str:
        return f"nodes[{self.index}]"

    @property
    def label(self) -> str:
        return f'node "{self.name}"' if self.name else f"node {self.index}"

    def problem(self, at: str, text: str) -> Problem:
        return Problem(f"{self.path}.{at}" if at else self.path, f"{self.label}: {text}", node=self.name)


@dataclass(slots=True)
class _Workflow:
    """The readable part of a spec."""

    inputs: frozenset[str]
    places: list[_Place]
    shapeless: list[Problem]
    needs: dict[str, list[str]] = field(default_factory=dict)
    cycles: list[list[str]] = field(default_factory=list)
    ancestors: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, spec: Mapping[str, Any], nodes: list[Any] | tuple[Any, ...]) -> _Workflow:
        """Take what can be understood of *spec*; the rest becomes problems."""
        places = [
            _Place(i, _string(wire.get("name")), wire) for i, wire in enumerate(nodes) if isinstance(wire, Mapping)
        ]
        shapeless = [
            Problem(f"nodes[{i}]", f"node {i} is a map, not {kind(node)}")
            for i, node in enumerate(nodes)
            if not isinstance(node, Mapping)
        ]
        inputs = frozenset(entry["name"] for entry in declared_inputs(spec.get("inputs")))
        workflow = cls(inputs, places, shapeless)
        names = {place.name for place in places if place.name}
        for place in places:
            if place.name and place.name not in workflow.needs:
                workflow.needs[place.name] = [need for need in _needs(place.wire) if need in names]
        workflow._order()
        return workflow

    def _order(self) -> None:
        """Find cycles, cutting each to find the next, and then everyone's ancestors."""
        edges = {name: list(dict.fromkeys(needs)) for name, needs in self.needs.items()}
        while True:
            sorter = TopologicalSorter(edges)
            try:
                order = list(sorter.static_order())
            except CycleError as error:
                cycle = list(reversed(error.args[1]))
                self.cycles.append(cycle)
                edges[cycle[0]].remove(cycle[1])
                continue
            break
        for name in order:
            self.ancestors[name] = frozenset(edges[name]).union(*(self.ancestors[need] for need in edges[name]))

    def name_problems(self) -> Iterator[Problem]:
        """Yield what is wrong with names."""
        yield from self.shapeless
        seen: dict[str, int] = {}
        for place in self.places:
            name = place.wire.get("name")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                shown = f'"{name}"' if isinstance(name, str) else kind(name)
                yield place.problem(
                    "name", f"a name begins with a-z, goes on with a-z, 0-9 and _ (63 at most): not {shown}"
                )
            elif name in KEYWORDS:
                yield place.problem("name", f'"{name}" is a word of CEL: choose another name')
            elif name in seen:
                yield place.problem("name", f"the name is taken by nodes[{seen[name]}]: rename one of them")
            else:
                seen[name] = place.index

    def edge_problems(self) -> Iterator[Problem]:
        """Yield what is wrong with ``needs``."""
        for place in self.places:
            needs = place.wire.get("needs")
            if needs is not None and not isinstance(needs, list | tuple):
                yield place.problem("needs", f"needs is a list of node names, not {kind(needs)}")
                continue
            for i, need in enumerate(needs or ()):
                if not isinstance(need, str):
                    yield place.problem(f"needs[{i}]", f"needs is a list of node names, not of {kind(need)}")
                elif need not in self.needs:
                    others = [name for name in self.needs if name != place.name]
                    yield place.problem(f"needs[{i}]", f'needs unknown node "{need}"{did_you_mean(need, others)}')
        for cycle in self.cycles[:_MAX_CYCLES]:
            first = next(place for place in self.places if place.name == cycle[0])
            text = "it needs itself: remove it" if len(set(cycle)) == 1 else "the nodes need each other in a cycle"
            fix = "" if len(set(cycle)) == 1 else ": remove one of these needs"
            yield first.problem("needs", f"{text} ({' -> '.join(cycle)}){fix}")

    def expression_problems(self, place: _Place) -> Iterator[Problem]:
        """Yield what is wrong with a node's expressions and texts."""
        per_item = {"item", "index"} if place.wire.get("forEach") is not None else set()
        for at, source in _sources(place.wire):
            yield from self._source(place, at, source)
        for action in ACTIONS:
            config = place.wire.get(action)
            texts = {name: config.get(name) for name in _TEMPLATES[action]} if isinstance(config, Mapping) else {}
            for at, found in expressions_in(texts, action):
                yield from self._found(place, at, found, allowed=per_item)

    def _source(self, place: _Place, at: str, source: Any) -> Iterator[Problem]:
        if not isinstance(source, str):
            yield place.problem(at, f"{at} is a CEL expression in a text, not {kind(source)}: put it in quotes")
            return
        try:
            found: Expression | ExpressionError = compile_expression(source)
        except ExpressionError as error:
            hint = f"; {at} is CEL already: leave out the {{{{ }}}}" if source.lstrip().startswith("{{") else ""
            found = ExpressionError(f"{error}{hint}")
        yield from self._found(place, at, found, allowed=set())

    def _found(
        self, place: _Place, at: str, found: Expression | ExpressionError, *, allowed: set[str]
    ) -> Iterator[Problem]:
        if isinstance(found, ExpressionError):
            yield place.problem(at, f"{at}: {found}")
            return
        for name in sorted(found.variables & ({"item", "index"} - allowed)):
            why = "is there only in the action of a node with forEach"
            yield place.problem(at, f'{at} uses "{name}", which {why}')
        yield from self._inputs(place, at, found)
        reachable = self.ancestors.get(place.name, frozenset()) | _region(place, self.ancestors)
        for name in sorted(found.outputs - reachable):
            if name not in self.needs:
                yield place.problem(at, f'{at} refers to unknown node "{name}"{did_you_mean(name, self.needs)}')
            elif name == place.name:
                yield place.problem(at, f"{at} refers to the node's own output, which is not there yet")
            else:
                yield place.problem(at, f'{at} refers to outputs.{name}, but "{name}" is no ancestor: add it to needs')

    def _inputs(self, place: _Place | None, at: str, found: Expression) -> Iterator[Problem]:
        for name in sorted(found.inputs - self.inputs):
            hint = did_you_mean(name, self.inputs) or "; declare it in spec.inputs"
            text = f'{at} refers to unknown input "{name}"{hint}'
            yield place.problem(at, text) if place else Problem(at, text)

    def output_problems(self, output: Any) -> Iterator[Problem]:
        """Yield what is wrong with ``spec.output``."""
        for at, found in expressions_in(output, "output"):
            if isinstance(found, ExpressionError):
                yield Problem(at, f"{at}: {found}")
                continue
            for name in sorted(found.variables & {"item", "index", "iteration"}):
                yield Problem(at, f'{at} uses "{name}", which is there only in nodes')
            yield from self._inputs(None, at, found)
            for name in sorted(found.outputs - self.needs.keys()):
                yield Problem(at, f'{at} refers to unknown node "{name}"{did_you_mean(name, self.needs)}')


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _needs(wire: Mapping[str, Any]) -> list[str]:
    needs = wire.get("needs")
    return [need for need in needs if isinstance(need, str)] if isinstance(needs, list | tuple) else []


def _sources(wire: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("when", "forEach"):
        if wire.get(name) is not None:
            yield name, wire[name]
    for name in ("repeat", "wait"):
        within = wire.get(name)
        if isinstance(within, Mapping) and within.get("until") is not None:
            yield f"{name}.until", within["until"]


def _region(place: _Place, ancestors: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the nodes that *place*, at the end of a ``repeat``, goes through again."""
    repeat = place.wire.get("repeat")
    if not isinstance(repeat, Mapping):
        return frozenset()
    first = repeat.get("from")
    between = {name for name in ancestors.get(place.name, ()) if first in ancestors.get(name, ())}
    return frozenset(between | {place.name})


def _action_problems(place: _Place, *, has_model: bool) -> Iterator[Problem]:
    actions = [action for action in ACTIONS if place.wire.get(action) is not None]
    if len(actions) != 1:
        has = " and ".join(actions) or "none"
        yield place.problem("", f"a node has exactly one of {', '.join(ACTIONS)}; this one has {has}")
    for action in actions:
        config = place.wire[action]
        if not isinstance(config, Mapping):
            yield place.problem(action, f"{action} is a map of fields, not {kind(config)}")
            continue
        for name in _REQUIRED[action]:
            value = config.get(name)
            if not isinstance(value, str) or not value:
                yield place.problem(f"{action}.{name}", f"{action}.{name} is required and is a text")
        yield from _field_problems(place, action, config)
        if action == "llm" and not has_model and not config.get("model"):
            yield place.problem("llm.model", "no model: set spec.model for the workflow or llm.model for the node")


def _field_problems(place: _Place, action: str, config: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("system", "model"):
        if config.get(name) is not None and not isinstance(config[name], str):
            yield place.problem(f"{action}.{name}", f"{action}.{name} is a text, not {kind(config[name])}")
    for name in ("arguments", "parameters", "inputs"):
        if config.get(name) is not None and not isinstance(config[name], Mapping):
            yield place.problem(f"{action}.{name}", f"{action}.{name} is a map, not {kind(config[name])}")
    if config.get("output") is not None and action in ("llm", "agent"):
        mistake = check_schema(config["output"])
        if mistake:
            yield place.problem(f"{action}.output", f"{action}.output is no valid JSON Schema: {mistake}")


def _modifier_problems(place: _Place) -> Iterator[Problem]:
    wire = place.wire
    if wire.get("forEach") is not None and wire.get("repeat") is not None:
        yield place.problem("repeat", "forEach and repeat do not go together: put one of them into a node of its own")
    for name in _NUMBERS:
        value = wire.get(name)
        if value is not None and not (_is_number(value) and value > 0):
            yield place.problem(name, f"{name} is a number over 0")
    if wire.get("maxParallel") is not None and wire.get("forEach") is None:
        yield place.problem("maxParallel", "maxParallel is for nodes with forEach: remove it")
    if wire.get("onError") not in (None, "Fail", "Continue"):
        yield place.problem("onError", "onError is Fail or Continue")
    retry = wire.get("retry")
    if retry is not None:
        yield from _retry_problems(place, retry)


def _retry_problems(place: _Place, retry: Any) -> Iterator[Problem]:
    if not isinstance(retry, Mapping):
        yield place.problem("retry", f"retry is a map, not {kind(retry)}")
        return
    for name in ("limit", "backoffSeconds", "factor", "maxBackoffSeconds"):
        value = retry.get(name)
        if value is not None and not (_is_number(value) and value >= 0):
            yield place.problem(f"retry.{name}", f"retry.{name} is a number, 0 or more")
    reasons = retry.get("on")
    if reasons is not None and not (
        isinstance(reasons, list | tuple) and all(isinstance(reason, str) for reason in reasons)
    ):
        yield place.problem("retry.on", "retry.on is a list of reasons, such as Timeout or RateLimited")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
