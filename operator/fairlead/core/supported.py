"""What the schema has and this version does not do yet: refused with its path, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = Mapping[str, Any]


def _given(value: Any) -> bool:
    return value is not None and value is not False


@dataclass(frozen=True, slots=True)
class _Gap:
    """A field that is refused where it is given; *fix* completes "is not supported yet: …"."""

    path: str
    fix: str


_NODE: Final = (_Gap("memory", "remove it and pass what is needed through inputs"),)
_WORKFLOW: Final = (_Gap("memory", "remove it and pass what is needed through inputs"),)
_RUN: Final = (_Gap("replyTo", "remove it and read the result with `fairlead output`"),)
_AGENT: Final = (_Gap("memory", "remove it"),)
_TOOL: Final = (_Gap("mcp", "use builtin, or http for a single call"),)


def unsupported(kind: str, spec: Json) -> list[tuple[str, str]]:
    """Return every field of *spec* that this version does not do: its path below `spec`, and what to do instead."""
    finders: dict[str, Callable[[Json], Iterator[tuple[str, str]]]] = {
        "Workflow": _in_workflow,
        "WorkflowRun": _in_run,
        "Agent": lambda agent: _found(agent, _AGENT),
        "Tool": lambda tool: _found(tool, _TOOL),
    }
    return list(finders[kind](spec)) if kind in finders and isinstance(spec, Mapping) else []


def _found(value: Json, gaps: tuple[_Gap, ...], prefix: str = "") -> Iterator[tuple[str, str]]:
    for gap in gaps:
        if _given(_at(value, gap.path)):
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


def gaps(kind: str) -> list[tuple[str, str]]:
    """Return every field of a kind that this version does not do, with what to do instead: for the reference."""
    of_kind = {"Workflow": _WORKFLOW, "WorkflowRun": _RUN, "Agent": _AGENT, "Tool": _TOOL}
    found = [(f"spec.{gap.path}", gap.fix) for gap in of_kind.get(kind, ())]
    if kind == "Workflow":
        found += [(f"spec.nodes[].{gap.path}", gap.fix) for gap in _NODE]
    return found
