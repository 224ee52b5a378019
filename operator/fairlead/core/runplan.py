"""What a plan of a run is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.core import plandrawing
from fairlead.core.estimates import Estimate, Range
from fairlead.core.profile import NodeProfile, WorkflowProfile
from fairlead.core.references import References

Json = Mapping[str, Any]
_KINDS: Final = ("models", "agents", "tools", "workflows")


@dataclass(frozen=True, slots=True)
class There:
    """The specs of what a workflow may refer to, by name. What is None could not be looked up."""

    models: Mapping[str, Json] | None = None
    agents: Mapping[str, Json] | None = None
    tools: Mapping[str, Json] | None = None
    workflows: Mapping[str, Json] | None = None
    secrets: Mapping[tuple[str, str], bool] | None = None
    """By a Secret's name and key: whether it is there."""
    sandbox: Mapping[str, str] | None = None
    """The ``name`` of the gateway's sandbox, ``none`` among them, and its ``description``."""
    partly: frozenset[str] = frozenset()
    """Kinds of which only some could be looked up: what is not there may be elsewhere."""

    @classmethod
    def of_document(cls, document: Json) -> There:
        """Return what a frozen revision holds."""
        models, agents, tools, workflows = (document.get(kind) or {} for kind in _KINDS)
        return cls(models, agents, tools, workflows)

    @classmethod
    def of_references(cls, found: References) -> There:
        """Return what a namespace holds."""
        return cls(found.specs("Model"), found.specs("Agent"), found.specs("Tool"), found.specs("Workflow"))


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node, with what it may take in one run."""

    path: str
    wave: int
    """Of its workflow: nodes of one wave may run at the same time."""
    action: str
    target: str
    """The Model, agent, tool or workflow."""
    needs: tuple[str, ...]
    when: str
    notes: tuple[str, ...]
    executions: Range
    estimate: Estimate
    cost: Range | None
    """Picodollars; None: the price is not known."""
    history: NodeProfile | None = None


@dataclass(frozen=True, slots=True)
class Needed:
    """Something that the run needs."""

    kind: str
    name: str
    used_by: tuple[str, ...]
    there: bool | None
    """None: it could not be looked up."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PlanProblem:
    """Something for which the run would be refused. *path* is relative to the spec."""

    path: str
    message: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would do."""

    name: str
    waves: tuple[tuple[str, ...], ...]
    nodes: tuple[PlannedNode, ...]
    """Those of nested workflows after the node that runs them; handlers last."""
    needed: tuple[Needed, ...]
    problems: tuple[PlanProblem, ...]
    model_calls: Range
    tool_calls: Range
    input_tokens: Range
    output_tokens: Range
    cost: Range | None
    unpriced: tuple[str, ...]
    """Models whose price is not known."""
    assumptions: tuple[str, ...]
    budget: Json | None = None
    """``Workflow.spec.budget``."""
    history: WorkflowProfile | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON, as on the wire."""
        return plandrawing.to_json(self)

    def text(self) -> str:
        """Return the plan for a terminal."""
        return plandrawing.to_text(self)

    def mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart."""
        return plandrawing.to_mermaid(self)
