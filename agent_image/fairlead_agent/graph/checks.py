"""Every mistake in a workflow at once, from its spec alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead_agent.expressions import kind
from fairlead_agent.graph.model import MAX_NODES
from fairlead_agent.graph.node_checks import action_problems, modifier_problems, seconds_problems
from fairlead_agent.graph.paths import HANDLERS
from fairlead_agent.graph.places import Place, handler_places
from fairlead_agent.graph.references import References
from fairlead_agent.graph.structure import Structure
from fairlead_agent.inputs import check_declared, declared_inputs
from fairlead_agent.problems import Problem


def check(spec: Any) -> list[Problem]:
    """Return everything that is wrong with a ``Workflow.spec``, whatever shape it has."""
    if not isinstance(spec, Mapping):
        return [Problem("", f"the spec is a map, not {kind(spec)}")]
    nodes = spec.get("nodes")
    problems = check_declared(spec.get("inputs"))
    if not isinstance(nodes, list | tuple) or not nodes:
        return [*problems, Problem("nodes", "a workflow needs a list of at least one node")]
    if len(nodes) > MAX_NODES:
        return [*problems, Problem("nodes", f"{len(nodes)} nodes are declared, at most {MAX_NODES} are allowed")]
    structure = Structure.read(nodes)
    references = References(structure, frozenset(one["name"] for one in declared_inputs(spec.get("inputs"))))
    problems += structure.problems()
    problems += _spec_problems(spec)
    for place in (*structure.places, *handler_places(spec)):
        problems += action_problems(place, has_model=bool(spec.get("model")))
        problems += modifier_problems(place)
        problems += references.problems(place)
    problems += references.output_problems(spec.get("output"))
    return problems


def _spec_problems(spec: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the fields beside the nodes."""
    whole = Place("", "the workflow", "", spec)
    problems = list(seconds_problems(whole, "timeoutSeconds", spec.get("timeoutSeconds")))
    if not isinstance(spec.get("model"), str | None):
        problems.append(Problem("model", f"model is the name of a Model, not {kind(spec['model'])}"))
    wrong = [field for field in HANDLERS.values() if not isinstance(spec.get(field), Mapping | None)]
    return problems + [Problem(field, f"{field} is a map, not {kind(spec[field])}") for field in wrong]
