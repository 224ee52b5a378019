"""What the schema has and this version does not do yet: refused with its path, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = Mapping[str, Any]


def _given(value: Any) -> bool:
    return value is not None and value is not False


def _not_zero(value: Any) -> bool:
    return value not in (None, 0)


@dataclass(frozen=True, slots=True)
class _Gap:
    """A field that is refused where *refused* is true of its value; *fix* completes "is not supported yet: …"."""

    path: str
    fix: str
    refused: Callable[[Any], bool] = _given


_NODE: Final = (
    _Gap("repeat", "use retry with output for answers of the wrong shape, or write the steps out as nodes"),
    _Gap("cache", "remove it; the node then runs every time"),
    _Gap("memory", "remove it and pass what is needed through inputs"),
    _Gap("agent", "use llm with the agent's instructions as system"),
    _Gap("code", "use tool with sql or json_query for calculations"),
    _Gap("workflow", "write its nodes into this workflow"),
    _Gap("approval", "remove the node"),
    _Gap("wait", "remove the node"),
    _Gap("llm.tools", "call the tool in a node of its own and put its output into the prompt"),
    _Gap("llm.maxTurns", "remove it"),
)
_WORKFLOW: Final = (
    _Gap("concurrency", "remove it; the agents' concurrency limits what runs at once"),
    _Gap("budget", "remove it and limit the length of answers by parameters.max_tokens"),
    _Gap("memory", "remove it and pass what is needed through inputs"),
    _Gap("onFailure", "remove it and watch the run's condition Succeeded"),
    _Gap("finally", "make it a node that needs the last ones"),
)
_RUN: Final = (
    _Gap("priority", "remove it", _not_zero),
    _Gap("suspend", "set it to false, or stop the run with stop: true"),
    _Gap("dryRun", "use `fairlead validate`"),
    _Gap("rerunOf", "make a new run of the workflow"),
    _Gap("replyTo", "remove it and read the result with `fairlead output`"),
)
_AGENT: Final = (
    _Gap("graph", "remove it"),
    _Gap("external", "remove it"),
    _Gap("skills", "remove it"),
    _Gap("memory", "remove it"),
    _Gap("tools", "remove it; tools are called by nodes of the workflow"),
    _Gap("scale.targetQueue", "remove it and set scale.min to the number of pods"),
)
_MODEL: Final = (
    _Gap("fallbacks", "remove it; retries are made with this model"),
    _Gap("rateLimit", "remove it and lower the agents' concurrency"),
    _Gap("budget", "remove it and limit the length of answers by parameters.max_tokens"),
)


def unsupported(kind: str, spec: Json) -> list[tuple[str, str]]:
    """Return every field of *spec* that this version does not do: its path below `spec`, and what to do instead."""
    finders: dict[str, Callable[[Json], Iterator[tuple[str, str]]]] = {
        "Workflow": _in_workflow,
        "WorkflowRun": _in_run,
        "Agent": _in_agent,
        "Model": lambda model: _found(model, _MODEL),
    }
    return list(finders[kind](spec)) if kind in finders and isinstance(spec, Mapping) else []


def _found(value: Json, gaps: tuple[_Gap, ...], prefix: str = "") -> Iterator[tuple[str, str]]:
    for gap in gaps:
        if gap.refused(_at(value, gap.path)):
            yield f"{prefix}{gap.path}", f"{gap.path} is not supported yet: {gap.fix}"


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _in_workflow(spec: Json) -> Iterator[tuple[str, str]]:
    yield from _found(spec, _WORKFLOW)
    nodes = spec.get("nodes")
    for index, node in enumerate(nodes if isinstance(nodes, list | tuple) else ()):
        if isinstance(node, Mapping):
            yield from _found(node, _NODE, f"nodes[{index}].")


def _in_run(spec: Json) -> Iterator[tuple[str, str]]:
    yield from _found(spec, _RUN)
    workflow = spec.get("workflow")
    if isinstance(workflow, Mapping):
        yield from ((f"workflow.{path}", message) for path, message in _in_workflow(workflow))


def _in_agent(spec: Json) -> Iterator[tuple[str, str]]:
    yield from _found(spec, _AGENT)
    least, most = _at(spec, "scale.min"), _at(spec, "scale.max")
    if most is not None and most != (1 if least is None else least):
        yield "scale.max", "scale.max other than scale.min is not supported yet: set both to the number of pods"


def gaps(kind: str) -> list[tuple[str, str]]:
    """Return every field of a kind that this version does not do, with what to do instead: for the reference."""
    of_kind = {"Workflow": _WORKFLOW, "WorkflowRun": _RUN, "Agent": _AGENT, "Model": _MODEL}
    found = [(f"spec.{gap.path}", gap.fix) for gap in of_kind.get(kind, ())]
    if kind == "Workflow":
        found += [(f"spec.nodes[].{gap.path}", gap.fix) for gap in _NODE]
    if kind == "Agent":
        found.append(("spec.scale.max", "set it to scale.min, or remove it"))
    return found
