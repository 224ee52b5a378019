"""What a workflow refers to, and freezing it together with that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.core import names
from fairlead.core.actions import Obj, meta, spec_of
from fairlead.core.problems import Refusal, refusal

BUILT_IN_TOOLS: Final = ("http_request", "json_query", "sql")


@dataclass(frozen=True, slots=True)
class References:
    """The objects of one namespace that a workflow may refer to, by name."""

    models: Mapping[str, Obj] = field(default_factory=dict)
    agents: Mapping[str, Obj] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """A workflow: from its object, or written into a run."""

    name: str
    uid: str
    generation: int
    spec: Mapping[str, Any]

    @classmethod
    def of(cls, workflow: Obj) -> Source:
        """Return the workflow that an object declares."""
        return cls(meta(workflow)["name"], meta(workflow)["uid"], meta(workflow)["generation"], spec_of(workflow))


def models_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the Models that a workflow names, each with the first place that does."""
    found: dict[str, str] = {}
    if spec.get("model"):
        found[spec["model"]] = "spec.model"
    for index, node in enumerate(spec.get("nodes") or ()):
        name = (node.get("llm") or {}).get("model")
        if name:
            found.setdefault(name, f"spec.nodes[{index}].llm.model")
    return found


def agent_of(spec: Mapping[str, Any]) -> str:
    """Return the Agent whose pool takes the runs; empty: each gets a pod of its own."""
    return str((spec.get("runsOn") or {}).get("agent") or "")


def unknown_tools(spec: Mapping[str, Any]) -> Refusal | None:
    """Return what is wrong with the tools' names, or None."""
    for index, node in enumerate(spec.get("nodes") or ()):
        name = (node.get("tool") or {}).get("name")
        if name and name not in BUILT_IN_TOOLS:
            known = ", ".join(BUILT_IN_TOOLS)
            where = f'spec.nodes[{index}].tool.name: node "{node.get("name")}"'
            return Reason.TOOL_NOT_FOUND, f'{where} names the tool "{name}", which does not exist; there are: {known}'
    return None


def missing(source: Source, there: References) -> Refusal | None:
    """Return the first thing that the workflow waits for, and how to mend it; None: everything is there."""
    return next(_missing(source.spec, there), None)


def _missing(spec: Mapping[str, Any], there: References) -> Iterator[Refusal]:
    for name, where in models_of(spec).items():
        yield from _look(("Model", name, where), there.models.get(name), Reason.MODEL_NOT_FOUND)
    name = agent_of(spec)
    if name:
        yield from _look(("Agent", name, "spec.runsOn.agent"), there.agents.get(name), Reason.AGENT_NOT_FOUND)


def _look(what: tuple[str, str, str], found: Obj | None, reason: Reason) -> Iterator[Refusal]:
    kind, name, where = what
    if found is None:
        yield reason, f'{kind} "{name}" does not exist in this namespace: apply it, or correct {where}.'
        return
    refused = refusal(kind, spec_of(found))
    if refused is not None:
        yield refused[0], f'{kind} "{name}" (named in {where}) cannot be used: {refused[1]}'


def freeze(source: Source, there: References) -> dict[str, Any]:
    """Return the document of a revision: the workflow with everything that it uses, as it is now."""
    agent = agent_of(source.spec)
    return {
        "workflow": {
            "name": source.name,
            "uid": source.uid,
            "generation": source.generation,
            "spec": dict(source.spec),
        },
        "agents": {agent: dict(spec_of(there.agents[agent]))} if agent else {},
        "models": {name: dict(spec_of(there.models[name])) for name in sorted(models_of(source.spec))},
        "tools": {},
    }


def revision_of(source: Source, there: References) -> str:
    """Return the digest of the revision that a run would get now."""
    return names.digest(freeze(source, there))
