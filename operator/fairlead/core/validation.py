"""Checks objects before anything acts on them: one function for `fairlead validate`, the operator and the chat.

It finds every mistake at once: shape and CEL rules (the CRD's own), the graph, what this version does not support, and
references between the objects that are given. Nothing is read or asked elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from fairlead.api import group
from fairlead.api.conditions import Reason
from fairlead.api.meta import DNS_NAME
from fairlead.api.schema import schema_of
from fairlead.api.v1alpha1 import RESOURCES
from fairlead.core.documents import Document, Loaded, load_documents
from fairlead.core.mistakes import Path, Problem, did_you_mean, to_path, to_text
from fairlead.core.references import Use, uses_of, uses_of_agent, uses_of_model
from fairlead.core.shapes import check_shape
from fairlead.core.supported import unsupported
from fairlead.core.tool import BUILT_IN_TOOLS, tool_mistakes
from fairlead_agent import graph
from fairlead_agent.inputs import check_inputs

__all__ = ["Document", "Loaded", "Problem", "load_documents", "validate_documents", "validate_object", "validate_text"]

_FIX: Final = re.compile(
    r"(?:: |; )((?:add|choose|did you mean|give|leave|make|name|put|remove|rename|set|there are|use|write)\b.*)$",
    re.DOTALL,
)
_NEAR_GROUPS: Final = (group.GROUP, group.VERSION, "fairlead")


def validate_text(text: str, file: str = "") -> list[Problem]:
    """Return every problem of a YAML text with objects of any kind, each with its line and column."""
    loaded = load_documents(text, file)
    return [*loaded.problems, *validate_documents(loaded.documents)]


def validate_object(obj: Mapping[str, Any]) -> list[Problem]:
    """Return the problems of one object as an API server gives it. References are not looked at."""
    return list(_Checked(Document(dict(obj))).problems())


def validate_documents(documents: Sequence[Document]) -> list[Problem]:
    """Return every problem of *documents*, which are taken to be applied together."""
    checked = [_Checked(document) for document in documents]
    found = []
    for one in checked:
        mine = list(one.problems())
        one.sound = not mine
        found += mine
    given = {(one.kind, one.name): one for one in checked}
    found += [problem for one in checked for problem in _references(one, given)]
    return sorted(found, key=lambda problem: (problem.file, problem.line, problem.column))


class _Checked:
    """One document, seen as an object."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.value: Mapping[str, Any] = document.value if isinstance(document.value, dict) else {}
        self.kind = str(self.value.get("kind", ""))
        metadata = self.value.get("metadata")
        self.metadata: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
        self.name = str(self.metadata.get("name") or self.metadata.get("generateName") or "")
        spec = self.value.get("spec")
        self.spec: Mapping[str, Any] = spec if isinstance(spec, dict) else {}
        self.sound = False
        """Whether nothing is wrong with it alone."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with this object alone."""
        yield from self.placed(self._envelope())
        if self.value.get("apiVersion") != group.API_VERSION or self.kind not in RESOURCES:
            return
        shape = [*self._name(), *self._shape()]
        yield from self.placed(shape)
        known = [problem.path for problem in shape]
        later = [*self._unsupported(), *self._meaning(fits=not shape)]
        yield from self.placed(problem for problem in later if not _covered(problem.path, known))

    def placed(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Yield the problems with their subject and their place in the file."""
        for problem in problems:
            path = to_path(problem.path)
            place = self.document.place(path, key=problem.message.startswith("unknown field"))
            node = self._node(path)
            yield replace(
                problem,
                subject=self._subject(node),
                message=problem.message.removeprefix(f'node "{node}"').removeprefix(":").removeprefix(" "),
                file=self.document.file,
                line=place.line,
                column=place.column,
            )

    def _subject(self, node: str) -> str:
        kind = self.kind.lower() if self.kind in RESOURCES else self.kind
        subject = f'{kind} "{self.name}"' if self.name else kind or "object"
        return f'{subject} node "{node}"' if node else subject

    def _node(self, path: Path) -> str:
        """Return the name of the node that *path* lies in."""
        value: Any = self.value
        for step, following in pairwise(path):
            if step == "nodes" and isinstance(following, int) and isinstance(value, dict):
                nodes = value.get("nodes")
                node = nodes[following] if isinstance(nodes, list) and following < len(nodes) else None
                return str(node.get("name", "")) if isinstance(node, dict) else ""
            value = value.get(step) if isinstance(value, dict) else None
        return ""

    def _envelope(self) -> Iterator[Problem]:
        if not isinstance(self.document.value, dict):
            yield Problem("", "the document is no object", "begin with apiVersion, kind and metadata")
            return
        for name in ("apiVersion", "kind"):
            if not isinstance(self.value.get(name), str) or not self.value[name]:
                example = group.API_VERSION if name == "apiVersion" else "Workflow"
                yield Problem("", f'"{name}" is missing', f"set {name}, for example {example}")
        api = self.value.get("apiVersion")
        if not isinstance(api, str) or not self.kind:
            return
        if api.partition("/")[0] not in _NEAR_GROUPS:
            return
        if api != group.API_VERSION:
            yield Problem("apiVersion", f'there is no "{api}"', f"set apiVersion: {group.API_VERSION}")
        if self.kind not in RESOURCES:
            fix = did_you_mean(self.kind, RESOURCES) or f"use one of {', '.join(RESOURCES)}"
            yield Problem("kind", f'there is no kind "{self.kind}"', fix)

    def _name(self) -> Iterator[Problem]:
        if not self.name:
            yield Problem("metadata", '"name" is missing', "set metadata.name")
        elif not re.fullmatch(DNS_NAME.removeprefix("^").removesuffix("$"), self.name.rstrip("-") or "-"):
            fix = "use lower-case letters, digits and hyphens, with a letter or digit first and last"
            yield Problem("metadata.name", f'"{self.name}" cannot be a name', fix)

    def _shape(self) -> Iterator[Problem]:
        schema = schema_of(self.kind)
        envelope = {key: value for key, value in self.value.items() if key not in {"status", "metadata"}}
        seen = envelope | {"metadata": {"name": self.name}}
        yield from check_shape(schema, seen, written=self.document.written)

    def _unsupported(self) -> Iterator[Problem]:
        for path, message in unsupported(self.kind, self.spec):
            what, _, fix = message.partition(": ")
            yield Problem(f"spec.{path}", what, fix, reason=Reason.NOT_SUPPORTED)

    def _meaning(self, *, fits: bool) -> Iterator[Problem]:
        """Yield what the schema cannot say. *fits*: the schema finds nothing."""
        match self.kind:
            case "Workflow":
                yield from _graph(self.spec, "spec")
            case "WorkflowRun":
                if isinstance(self.spec.get("workflow"), dict):
                    yield from _graph(self.spec["workflow"], "spec.workflow")
            case "Model":
                yield from _scripts(self.spec)
            case "Tool" if fits:
                yield from _tool(self.spec)
            case _:
                pass


def _covered(path: str, known: Sequence[str]) -> bool:
    """Return whether *path*, or something in it, is a problem already."""
    return any(one == path or one.startswith((f"{path}.", f"{path}[")) for one in known)


def _split(message: str) -> tuple[str, str]:
    """Return what is wrong and how to mend it, where the message ends in that."""
    found = _FIX.search(message)
    return (message[: found.start()], found[1]) if found else (message, "")


def _graph(spec: Mapping[str, Any], prefix: str) -> Iterator[Problem]:
    for problem in graph.check(spec):
        what, fix = _split(problem.message)
        path = f"{prefix}.{problem.path}" if problem.path else prefix
        yield Problem(path, what, fix, reason=problem.reason)


def _scripts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    scripted = spec.get("scripted")
    responses = scripted.get("responses") if isinstance(scripted, dict) else None
    for index, response in enumerate(responses if isinstance(responses, list) else ()):
        pattern = response.get("match") if isinstance(response, dict) else None
        if not isinstance(pattern, str):
            continue
        try:
            re.compile(pattern)
        except re.error as error:
            where = f"spec.scripted.responses[{index}].match"
            yield Problem(
                where, f"not a regular expression: {error}", "put a backslash before a sign that is meant as it is"
            )


def _tool(spec: Mapping[str, Any]) -> Iterator[Problem]:
    for path, message, reason in tool_mistakes(spec):
        what, fix = _split(message)
        yield Problem(path, what, fix, reason=reason)


@dataclass(frozen=True, slots=True)
class _Reference:
    """A name in *path* that should be an object of *kind*."""

    kind: str
    path: Path
    name: str


def _references(one: _Checked, given: Mapping[tuple[str, str], _Checked]) -> Iterator[Problem]:
    """Yield what does not fit between objects that are applied together. What is not there may be in the cluster."""
    if one.value.get("apiVersion") != group.API_VERSION:
        return
    yield from one.placed(_missing(reference, given) for reference in _names(one) if not _found(reference, given))
    yield from one.placed(_nested(one, given))
    if one.kind == "WorkflowRun":
        yield from one.placed(_run_inputs(one, given))
    yield from one.placed(_no_pods(one, given))


def _no_pods(one: _Checked, given: Mapping[tuple[str, str], _Checked]) -> Iterator[Problem]:
    """Yield a problem where runs are sent to the pods of an agent that has none."""
    inside: Path = ("workflow",) if one.kind == "WorkflowRun" else ()
    name = _at(one.spec, *inside, "runsOn", "agent")
    agent = given.get(("Agent", str(name)))
    if one.kind in {"Workflow", "WorkflowRun"} and agent is not None and agent.spec.get("external"):
        path = to_text(("spec", *inside, "runsOn", "agent"))
        what = f'the Agent "{name}" is external and has no pods here'
        yield Problem(path, what, "name another one, or remove runsOn", reason=Reason.INVALID_SPEC)


def _nested(one: _Checked, given: Mapping[tuple[str, str], _Checked]) -> Iterator[Problem]:
    """Yield what is wrong between a workflow and those that it runs."""
    inline = one.spec.get("workflow") if one.kind == "WorkflowRun" else None
    spec = one.spec if one.kind == "Workflow" else inline
    if not one.sound or not isinstance(spec, dict):
        return
    workflows = {name: other.spec for (kind, name), other in given.items() if kind == "Workflow" and other.sound}
    for problem in graph.check_nested(spec, workflows, name=one.name if inline is None else ""):
        what, fix = _split(problem.message)
        yield Problem(f"spec.{'workflow.' if inline else ''}{problem.path}", what, fix, reason=problem.reason)


def _found(reference: _Reference, given: Mapping[tuple[str, str], _Checked]) -> bool:
    return (reference.kind, reference.name) in given


def _missing(reference: _Reference, given: Mapping[tuple[str, str], _Checked]) -> Problem:
    kind = reference.kind
    hint = did_you_mean(reference.name, [name for other, name in given if other == kind])
    fix = hint or "apply it as well, or ignore this if the namespace has it"
    message = f'the {kind} "{reference.name}" is not among the files'
    reason = f"{kind}NotFound"
    return Problem(to_text(reference.path), message, fix, reason=reason, severity="warning")


def _names(one: _Checked) -> Iterator[_Reference]:
    """Yield every name of another object."""
    spec = one.spec
    match one.kind:
        case "Workflow":
            yield from _used(uses_of(spec), ("spec",))
        case "WorkflowRun":
            reference = _at(spec, "workflowRef", "name")
            if isinstance(reference, str):
                yield _Reference("Workflow", ("spec", "workflowRef", "name"), reference)
            if isinstance(spec.get("workflow"), dict):
                yield from _used(uses_of(spec["workflow"]), ("spec", "workflow"))
        case "Agent":
            yield from _used(uses_of_agent(spec, "spec"), ("spec",))
        case "Model":
            yield from _used(uses_of_model(spec, "spec"), ("spec",))
        case _:
            pass


def _used(uses: Iterable[Use], prefix: Path) -> Iterator[_Reference]:
    for use in uses:
        if not (use.kind == "Tool" and use.name in BUILT_IN_TOOLS):
            yield _Reference(use.kind, (*prefix, *to_path(use.where)[1:]), use.name)


def _at(value: Any, *path: str | int) -> Any:
    for step in path:
        if isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _run_inputs(one: _Checked, given: Mapping[tuple[str, str], _Checked]) -> Iterator[Problem]:
    """Yield what is wrong with a run's inputs, where its workflow is known."""
    inline = one.spec.get("workflow")
    named = given.get(("Workflow", str(_at(one.spec, "workflowRef", "name"))))
    workflow = inline if isinstance(inline, dict) else named.spec if named else None
    inputs = one.spec.get("inputs", {})
    declared = workflow.get("inputs", []) if workflow is not None else None
    if not isinstance(declared, list) or not isinstance(inputs, dict):
        return
    _, problems = check_inputs(declared, inputs)
    for problem in problems:
        what, fix = _split(problem.message)
        path = f"spec.{problem.path}" if problem.path else "spec.inputs"
        yield Problem(path, what, fix, reason=Reason.INVALID_INPUTS)
