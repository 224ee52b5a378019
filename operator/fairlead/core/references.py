"""What a workflow refers to, directly and through other objects, and freezing it together with that."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.core import names
from fairlead.core.actions import Obj, meta, spec_of
from fairlead.core.mistakes import did_you_mean
from fairlead.core.problems import Refusal, refusal
from fairlead.core.tool import BUILT_IN_TOOLS, tool_mistake

HANDLERS: Final = ("onFailure", "finally")
Spec = Mapping[str, Any]
Find = Callable[[str, str], Obj | None]
"""Returns the object of a kind and a name in the namespace, or None."""


@dataclass(frozen=True, slots=True)
class Use:
    """One name of another object."""

    kind: str
    name: str
    where: str
    """The field that names it, as a person finds it."""
    plays: bool = True
    """Of an Agent: whether it has turns, for which it needs its Model and tools; else only its pods are used."""


@dataclass(frozen=True, slots=True)
class References:
    """The objects of one namespace that a workflow may refer to, by name."""

    models: Mapping[str, Obj] = field(default_factory=dict)
    agents: Mapping[str, Obj] = field(default_factory=dict)
    tools: Mapping[str, Obj] = field(default_factory=dict)
    workflows: Mapping[str, Obj] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> Obj | None:
        """Return an object, or None."""
        return self.of_kind(kind).get(name)

    def of_kind(self, kind: str) -> Mapping[str, Obj]:
        """Return the objects of a kind."""
        kinds = {"Model": self.models, "Agent": self.agents, "Tool": self.tools, "Workflow": self.workflows}
        return kinds[kind]

    def specs(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the specs of the objects of a kind."""
        return {name: dict(spec_of(obj)) for name, obj in sorted(self.of_kind(kind).items())}


@dataclass(frozen=True, slots=True)
class Source:
    """A workflow: from its object, written into a run, or frozen with an earlier one."""

    name: str
    uid: str
    generation: int
    spec: Spec

    @classmethod
    def of(cls, workflow: Obj) -> Source:
        """Return the workflow that an object declares."""
        return cls(meta(workflow)["name"], meta(workflow)["uid"], meta(workflow)["generation"], spec_of(workflow))


def agent_of(spec: Spec) -> str:
    """Return the Agent whose pool takes the runs; empty: each gets a pod of its own."""
    return _name(spec.get("runsOn"), "agent")


def uses_of(spec: Spec) -> Iterator[Use]:
    """Return what a workflow names itself. What has another shape than the schema says is passed over."""
    agent = agent_of(spec)
    if agent:
        yield Use("Agent", agent, "spec.runsOn.agent", plays=False)
    yield from _uses_inside(spec, "spec")


def _uses_inside(spec: Spec, where: str) -> Iterator[Use]:
    yield from _use("Model", spec, where, "model")
    for index, node in enumerate(_list(spec.get("nodes"))):
        yield from _uses_of_action(node, f"{where}.nodes[{index}]")
    for handler in HANDLERS:
        yield from _uses_of_action(spec.get(handler), f"{where}.{handler}")


def _uses_of_action(action: Any, where: str) -> Iterator[Use]:
    if not isinstance(action, Mapping):
        return
    llm = action.get("llm")
    yield from _use("Model", llm, f"{where}.llm", "model")
    yield from _uses_of_tools(llm, f"{where}.llm")
    for field_name, kind in (("agent", "Agent"), ("tool", "Tool"), ("workflow", "Workflow")):
        yield from _use(kind, action.get(field_name), f"{where}.{field_name}", "name")


def uses_of_agent(spec: Spec, where: str) -> Iterator[Use]:
    """Return what an Agent names for its turns."""
    yield from _use("Model", spec, where, "model")
    yield from _uses_of_tools(spec, where)


def uses_of_model(spec: Spec, where: str) -> Iterator[Use]:
    """Return the Models that are asked instead of a Model."""
    for index, name in enumerate(_list(spec.get("fallbacks"))):
        if isinstance(name, str):
            yield Use("Model", name, f"{where}.fallbacks[{index}]")


def _uses_of_tools(holder: Any, where: str) -> Iterator[Use]:
    tools = holder.get("tools") if isinstance(holder, Mapping) else None
    for index, name in enumerate(_list(tools)):
        if isinstance(name, str):
            yield Use("Tool", name, f"{where}.tools[{index}]")


def _use(kind: str, holder: Any, where: str, field_name: str) -> Iterator[Use]:
    name = _name(holder, field_name)
    if name:
        yield Use(kind, name, f"{where}.{field_name}")


def _name(holder: Any, field_name: str) -> str:
    name = holder.get(field_name) if isinstance(holder, Mapping) else None
    return name if isinstance(name, str) else ""


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _uses_through(use: Use, obj: Obj) -> Iterator[Use]:
    """Return what a named object names in turn."""
    spec, where = spec_of(obj), f'spec of {use.kind} "{use.name}"'
    if use.kind == "Workflow":
        yield from _uses_inside(spec, where)
    elif use.kind == "Agent" and use.plays:
        yield from uses_of_agent(spec, where)
    elif use.kind == "Model":
        yield from uses_of_model(spec, where)


def walk(spec: Spec, find: Find) -> Iterator[tuple[Use, Obj | None]]:
    """Return everything that a workflow uses, each once, nearest first, with its object if there is one."""
    seen: set[tuple[str, str, bool]] = set()
    todo = deque(uses_of(spec))
    while todo:
        use = todo.popleft()
        key = (use.kind, use.name, use.plays)
        if key not in seen:
            seen.add(key)
            obj = find(use.kind, use.name)
            yield use, obj
            todo.extend(_uses_through(use, obj) if obj is not None else ())


def collect(spec: Spec, find: Find) -> References:
    """Return those objects that a workflow uses and that exist."""
    found: dict[str, dict[str, Obj]] = {"Model": {}, "Agent": {}, "Tool": {}, "Workflow": {}}
    for use, obj in walk(spec, find):
        if obj is not None:
            found[use.kind][use.name] = obj
    return References(found["Model"], found["Agent"], found["Tool"], found["Workflow"])


def missing(source: Source, there: References) -> Refusal | None:
    """Return the first thing that the workflow waits for, and how to mend it; None: everything is there."""
    return next((found for use, obj in walk(source.spec, there.find) if (found := lacking(use, obj)) is not None), None)


_NOT_FOUND: Final = {
    "Model": Reason.MODEL_NOT_FOUND,
    "Agent": Reason.AGENT_NOT_FOUND,
    "Workflow": Reason.SUB_WORKFLOW_NOT_FOUND,
}


def lacking(use: Use, obj: Obj | None) -> Refusal | None:
    """Return why a named object cannot be used, or None."""
    if obj is None:
        return _absent(use)
    refused = refusal(use.kind, spec_of(obj)) or _unfit(use, spec_of(obj))
    if refused is None:
        return None
    return refused[0], f'{use.kind} "{use.name}" (named in {use.where}) cannot be used: {refused[1]}'


def _absent(use: Use) -> Refusal | None:
    if use.kind != "Tool":
        text = f'{use.kind} "{use.name}" does not exist in this namespace: apply it, or correct {use.where}.'
        return _NOT_FOUND[use.kind], text
    if use.name in BUILT_IN_TOOLS:
        return None
    hint = did_you_mean(use.name, BUILT_IN_TOOLS) or f"built in are {', '.join(BUILT_IN_TOOLS)}"
    text = f'Tool "{use.name}" does not exist in this namespace: apply it, or correct {use.where} ({hint}).'
    return Reason.TOOL_NOT_FOUND, text


def _unfit(use: Use, spec: Spec) -> Refusal | None:
    if use.kind == "Tool":
        return tool_mistake(spec)
    if use.kind == "Agent" and spec.get("external"):
        if use.plays:
            return None
        return Reason.INVALID_SPEC, "it is external and has no pods here: name another one, or remove runsOn."
    if use.kind == "Agent" and use.plays and not (spec.get("model") or spec.get("graph")):
        return Reason.INVALID_SPEC, "it has nothing to think with: set spec.model of the Agent."
    return None


def freeze(source: Source, there: References) -> dict[str, Any]:
    """Return the document of a revision: the workflow with everything of *there* that it uses, as it is now."""
    used = collect(source.spec, there.find)
    return {
        "workflow": {
            "name": source.name,
            "uid": source.uid,
            "generation": source.generation,
            "spec": dict(source.spec),
        },
        "workflows": used.specs("Workflow"),
        "agents": used.specs("Agent"),
        "models": used.specs("Model"),
        "tools": used.specs("Tool"),
    }


def thawed(document: Mapping[str, Any], find: Find) -> tuple[Source, Find]:
    """Return a frozen workflow, and how what it uses is found.

    The workflows that it runs are the frozen ones; the rest is as it is now, or as it was frozen where it is gone.
    """
    frozen = document["workflow"]
    source = Source(frozen["name"], frozen["uid"], frozen["generation"], frozen["spec"])
    keys = {"Model": "models", "Agent": "agents", "Tool": "tools", "Workflow": "workflows"}

    def look(kind: str, name: str) -> Obj | None:
        current = find(kind, name) if kind != "Workflow" else None
        spec = (document.get(keys[kind]) or {}).get(name)
        return current if current is not None or spec is None else {"kind": kind, "metadata": {}, "spec": spec}

    return source, look


def revision_of(source: Source, there: References) -> str:
    """Return the digest of the revision that a run would get now."""
    return names.digest(freeze(source, there))
