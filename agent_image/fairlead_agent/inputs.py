"""The inputs of a run: what a workflow declares and what it is given. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fairlead_agent.expressions import kind
from fairlead_agent.problems import Problem, did_you_mean

TYPES: Final = ("string", "number", "integer", "boolean", "array", "object")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_WORDS: Final = frozenset({"true", "false", "null", "in"})
MAX_BYTES: Final = 1 << 20
"""The most that the inputs of one run may take, as JSON."""


def check_inputs(declared: Any, given: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Fill in defaults and check what a run is given.

    Args:
        declared: ``Workflow.spec.inputs``, as on the wire.
        given: ``WorkflowRun.spec.inputs``.

    Returns:
        The inputs of the run, every declared one among them (null where there is nothing), and what is wrong.
    """
    if given is not None and not isinstance(given, Mapping):
        return {}, [_problem("inputs", f"inputs are a map of names to values, not {kind(given)}")]
    values = dict(given or {})
    known = {entry["name"]: entry for entry in declared_inputs(declared)}
    unknown = [name for name in values if name not in known]
    problems = [_problem(f"inputs.{name}", f'unknown input "{name}"{_hint(str(name), known)}') for name in unknown]
    filled: dict[str, Any] = {}
    for name, entry in known.items():
        filled[name] = values.get(name, entry.get("default"))
        missing = filled[name] is None
        if missing and entry.get("required"):
            problems.append(_problem(f"inputs.{name}", f'input "{name}" is required: give it a value'))
        elif not missing and (mistake := _mistake(entry, filled[name])):
            problems.append(_problem(f"inputs.{name}", f'input "{name}" {mistake}'))
    if _bytes(filled) > MAX_BYTES:
        problems.append(_problem("inputs", f"the inputs are over {MAX_BYTES} bytes: put the data in a ConfigMap"))
    return filled, problems


def check_declared(declared: Any) -> list[Problem]:
    """Return what is wrong with ``Workflow.spec.inputs``."""
    if declared is None:
        return []
    if not isinstance(declared, list | tuple):
        return [_problem("inputs", f"inputs are a list, not {kind(declared)}")]
    problems: list[Problem] = []
    seen: set[str] = set()
    for index, entry in enumerate(declared):
        path = f"inputs[{index}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            problems.append(_problem(path, f"input {index} needs a name and a type"))
            continue
        problems += _entry_problems(path, entry)
        if entry["name"] in seen:
            problems.append(_problem(f"{path}.name", f'input "{entry["name"]}" is declared twice: rename one'))
        seen.add(entry["name"])
    return problems


def declared_inputs(declared: Any) -> list[Mapping[str, Any]]:
    """Return those declared inputs that have a name."""
    entries = declared if isinstance(declared, list | tuple) else []
    return [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)]


def _entry_problems(path: str, entry: Mapping[str, Any]) -> Iterator[Problem]:
    name = entry["name"]
    if not _NAME.fullmatch(name):
        yield _problem(f"{path}.name", f'input name "{name}" must be letters, digits and _, not beginning with a digit')
    if name in _WORDS:
        yield _problem(f"{path}.name", f'input name "{name}" is a word of CEL: choose another name')
    if entry.get("type", "string") not in TYPES:
        yield _problem(f"{path}.type", f'input "{name}": type is one of {", ".join(TYPES)}')
        return
    choices = entry.get("enum")
    if choices is not None and (not isinstance(choices, list | tuple) or not choices):
        yield _problem(f"{path}.enum", f'input "{name}": enum is a list of at least one value')
        return
    for index, choice in enumerate(choices or ()):
        if not _has_type(choice, entry.get("type", "string")):
            yield _problem(f"{path}.enum[{index}]", f'input "{name}": {_wrong_type(entry, choice)}')
    if entry.get("default") is not None and (mistake := _mistake(entry, entry["default"])):
        yield _problem(f"{path}.default", f'input "{name}": the default {mistake}')


def _mistake(entry: Mapping[str, Any], value: Any) -> str:
    if not _has_type(value, entry.get("type", "string")):
        return _wrong_type(entry, value)
    choices = entry.get("enum")
    if choices and not any(value == choice and kind(value) == kind(choice) for choice in choices):
        shown = ", ".join(json.dumps(choice, ensure_ascii=False, default=str) for choice in choices)
        return f"must be one of {shown}"
    return ""


def _wrong_type(entry: Mapping[str, Any], value: Any) -> str:
    return f"must be of type {entry.get('type', 'string')}, but is {kind(value)}"


def _has_type(value: Any, wanted: Any) -> bool:
    actual = kind(value)
    match wanted:
        case "number":
            return actual in ("number", "integer")
        case "integer":
            return actual == "integer" or (isinstance(value, float) and value.is_integer())
        case _:
            return bool(actual == wanted)


def _bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace"))


def _hint(name: str, known: Mapping[str, Any]) -> str:
    there = f"; there are: {', '.join(known)}" if known else "; the workflow has no inputs"
    return did_you_mean(name, known) or there


def _problem(path: str, message: str) -> Problem:
    return Problem(path, message, reason="InvalidInputs")
