"""Workflows that run workflows: what is wrong with all of them together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fairlead_agent.graph.checks import check
from fairlead_agent.graph.model import MAX_DEPTH
from fairlead_agent.graph.paths import HANDLERS
from fairlead_agent.inputs import declared_inputs
from fairlead_agent.problems import Problem, did_you_mean

Specs = Mapping[str, Mapping[str, Any]]


def workflow_names(spec: Any) -> list[str]:
    """Return the names of the workflows that a spec's nodes and handlers run, each once."""
    return list(dict.fromkeys(name for _, wire in _runners(spec) if (name := _name(wire))))


def has_handlers(names: Collection[str], workflows: Specs) -> bool:
    """Return whether any of some workflows has a handler, or one that it runs, directly or not."""
    seen, waiting = set(names), list(names)
    while waiting:
        spec = workflows.get(waiting.pop(), {})
        if any(spec.get(field) for field in HANDLERS.values()):
            return True
        new = set(workflow_names(spec)) - seen
        seen |= new
        waiting += new
    return False


def check_nested(spec: Any, workflows: Specs, *, name: str = "") -> list[Problem]:
    """Return what is wrong with the workflows that a spec runs, directly or not; not with *spec* itself.

    Args:
        spec: the spec of a run.
        workflows: the specs that nodes name. What is not there is no problem here: it may come yet.
        name: of the workflow that *spec* is of.
    """
    problems = _cycles_and_depth(spec, workflows, name)
    if problems:
        return problems
    seen: dict[str, None] = {}
    waiting = [("", spec)]
    while waiting:
        where, one = waiting.pop(0)
        problems += _misfits(where, one, workflows)
        for inner in workflow_names(one):
            if inner in workflows and inner not in seen:
                seen[inner] = None
                problems += _wrong_inside(inner, workflows[inner])
                waiting.append((inner, workflows[inner]))
    return problems


def _wrong_inside(name: str, spec: Mapping[str, Any]) -> Iterator[Problem]:
    for problem in check(spec):
        yield Problem("nodes", f'workflow "{name}": {problem.message} (at {problem.path})', reason=problem.reason)


def _cycles_and_depth(spec: Any, workflows: Specs, name: str) -> list[Problem]:
    """Go through every chain of workflows, none longer than the limit."""
    problems: dict[str, Problem] = {}
    checked: dict[str, int] = {}
    waiting = [(name, (name,) if name else (), 1, spec)]
    while waiting and not problems:
        _, chain, depth, one = waiting.pop()
        for path, wire in _runners(one):
            inner = _name(wire)
            if inner in chain:
                shown = " -> ".join((*chain[chain.index(inner) :], inner))
                text = f'workflow "{inner}" would run itself ({shown}): remove one of these nodes'
                problems[path] = Problem(f"{path}.workflow.name", text)
            elif depth >= MAX_DEPTH:
                text = f"workflows run each other more than {MAX_DEPTH} deep ({' -> '.join((*chain, inner))})"
                problems[path] = Problem(f"{path}.workflow.name", text)
            elif inner in workflows and checked.get(inner, 0) <= depth:
                checked[inner] = depth + 1
                waiting.append((inner, (*chain, inner), depth + 1, workflows[inner]))
    return list(problems.values())


def _misfits(where: str, spec: Any, workflows: Specs) -> Iterator[Problem]:
    """Yield inputs that are given and not declared, or required and not given."""
    for path, wire in _runners(spec):
        inner = _name(wire)
        if inner not in workflows:
            continue
        given = wire["workflow"].get("inputs") or {}
        declared = {entry["name"]: entry for entry in declared_inputs(workflows[inner].get("inputs"))}
        prefix = f'workflow "{where}": ' if where else ""
        label = wire.get("name", path)
        for name in given if isinstance(given, Mapping) else ():
            if name not in declared:
                text = f'workflow "{inner}" has no input "{name}"{did_you_mean(str(name), declared)}'
                yield Problem(f"{path}.workflow.inputs.{name}", f'{prefix}node "{label}": {text}', node=label)
        for name, entry in declared.items():
            if entry.get("required") and entry.get("default") is None and given.get(name) is None:
                text = f'workflow "{inner}" requires input "{name}": give it'
                yield Problem(f"{path}.workflow.inputs", f'{prefix}node "{label}": {text}', node=label)


def _runners(spec: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the nodes and handlers that run a workflow, with their paths."""
    if not isinstance(spec, Mapping):
        return
    nodes = spec.get("nodes")
    places = [(f"nodes[{i}]", wire) for i, wire in enumerate(nodes if isinstance(nodes, list | tuple) else ())]
    places += [(field, spec.get(field)) for field in HANDLERS.values()]
    for path, wire in places:
        if isinstance(wire, Mapping) and isinstance(wire.get("workflow"), Mapping) and _name(wire):
            yield path, wire


def _name(wire: Mapping[str, Any]) -> str:
    name = wire["workflow"].get("name")
    return name if isinstance(name, str) else ""
