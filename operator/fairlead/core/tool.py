"""Decides what to say of a Tool, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.schema import schema_of
from fairlead.core import conditions
from fairlead.core.actions import Obj, Plan, meta, spec_of
from fairlead.core.mistakes import Path, did_you_mean, to_text
from fairlead.core.problems import Refusal, refusal
from fairlead.core.shapes import check_shape
from fairlead_agent.graph.code_checks import file_mistake
from fairlead_agent.schemas import check_schema

BUILT_IN_TOOLS: Final = ("http_request", "json_query", "python", "shell", "sql")
CODE_TOOLS: Final = {"python": "source", "shell": "command"}
"""Those that run programs, and the argument that holds the program."""
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_ARGUMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
Spec = Mapping[str, Any]


def plan_tool(tool: Obj) -> Plan:
    """Check a Tool. Nothing is called: whether the other side answers shows in the runs."""
    spec, generation = spec_of(tool), meta(tool)["generation"]
    status = {"type": tool_type(spec)}
    wrong = refusal("Tool", spec) or tool_mistake(spec)
    if wrong is not None:
        return Plan((), conditions.stalled(ConditionType.READY, *wrong, generation=generation), status)
    return Plan((), conditions.ready(Reason.ACCEPTED, _says(spec), generation=generation), status)


def tool_type(spec: Spec) -> str:
    """Return the built-in tool, ``http`` or ``mcp``."""
    builtin = (spec.get("builtin") or {}).get("name")
    return str(builtin) if builtin else next((name for name in ("http", "mcp") if spec.get(name)), "")


def _says(spec: Spec) -> str:
    http = spec.get("http")
    what = f"Requests go to {urlsplit(http['url']).netloc}." if http else f"It is the built-in tool {tool_type(spec)}."
    return f"{what} Each call needs an approval." if spec.get("requireApproval") else what


def tool_mistake(spec: Spec) -> Refusal | None:
    """Return what is wrong with a Tool's spec, or None."""
    found = next(tool_mistakes(spec), None)
    return None if found is None else (found[2], f"{found[0]}: {found[1]}")


def tool_mistakes(spec: Spec) -> Iterator[tuple[str, str, Reason]]:
    """Return everything that is wrong with a Tool's spec: path, words and reason."""
    name = (spec.get("builtin") or {}).get("name")
    if name and name not in BUILT_IN_TOOLS:
        hint = did_you_mean(name, BUILT_IN_TOOLS) or f"use one of {', '.join(BUILT_IN_TOOLS)}"
        yield "spec.builtin.name", f'there is no built-in tool "{name}": {hint}', Reason.TOOL_NOT_FOUND
    if name in CODE_TOOLS:
        yield from ((path, words, Reason.INVALID_SPEC) for path, words in _config_mistakes(name, spec))
    if spec.get("http"):
        yield from ((path, words, Reason.INVALID_SPEC) for path, words in _http_mistakes(spec))


def _config_mistakes(name: str, spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the fixed arguments of a tool that runs programs."""
    config = spec["builtin"].get("config") or {}
    path: Path = ("spec", "builtin", "config")
    allowed = {field: _code_schema()[field] for field in ("inputs", "files", "network", "limits")}
    schema = {"type": "object", "properties": {CODE_TOOLS[name]: _code_schema()["source"], **allowed}}
    for problem in check_shape(schema, config, path, written=lambda _path: ""):
        yield problem.path, ": ".join(filter(None, (problem.message, problem.fix)))
    for file in config.get("files") or () if isinstance(config.get("files"), Mapping) else ():
        if mistake := file_mistake(file):
            yield to_text((*path, "files")), f"{mistake} (it has {file[:255]!r})"


@cache
def _code_schema() -> Spec:
    nodes = schema_of("Workflow")["properties"]["spec"]["properties"]["nodes"]
    found: Spec = nodes["items"]["properties"]["code"]["properties"]
    return found


def _http_mistakes(spec: Spec) -> Iterator[tuple[str, str]]:
    http: Spec = spec["http"]
    host, *rest = re.split(r"[/?#]", http["url"].partition("://")[2], maxsplit=1)
    if "{" in host:
        yield "spec.http.url", "an argument cannot choose the host: write the host out"
    for place in _PLACE.findall("".join(rest)):
        if not _ARGUMENT.fullmatch(place):
            yield "spec.http.url", f'"{{{place}}}" is no argument: write a name of letters, digits and underscores'
    parameters = spec.get("parameters")
    if parameters is not None:
        yield from _parameter_mistakes(parameters, placed(http))
    doubled = sorted(set(http.get("query") or ()) & set(http.get("body") or ()))
    if doubled:
        yield "spec.http.body", f'"{doubled[0]}" is in query, too: remove one of them'


def placed(http: Spec) -> dict[str, str]:
    """Return the arguments that an HTTP tool names itself, each with the field that does."""
    names = [(name, "url") for name in _PLACE.findall(http["url"])]
    names += [(name, part) for part in ("query", "body") for name in http.get(part) or ()]
    return dict(reversed(names))


def _parameter_mistakes(parameters: Spec, named: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    mistake = check_schema(parameters)
    if mistake:
        yield "spec.parameters", f"no JSON Schema: {mistake}"
    elif parameters.get("type") != "object":
        yield "spec.parameters.type", "arguments are an object: set type: object"
    else:
        properties = parameters.get("properties") or {}
        for name, part in named.items():
            if name not in properties:
                fix = did_you_mean(name, properties) or "add it to spec.parameters.properties"
                yield f"spec.http.{part}", f'"{name}" is no parameter: {fix}'
