"""What is wrong with one node or handler, whatever the others are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fairlead_agent.expressions import kind
from fairlead_agent.graph.code_checks import code_problems
from fairlead_agent.graph.model import ACTIONS, HANDLER_ACTIONS
from fairlead_agent.graph.places import Place, is_number
from fairlead_agent.problems import Problem
from fairlead_agent.schemas import check_schema

_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "llm": ("prompt",),
    "agent": ("name", "prompt"),
    "tool": ("name",),
    "code": ("language", "source"),
    "workflow": ("name",),
    "approval": ("message",),
    "wait": (),
}
_MAX_SECONDS: Final = 31_536_000
"""A year."""
_UNCACHED: Final = ("approval", "wait")
_NODE_ONLY: Final = ("needs", "when", "forEach", "maxParallel", "repeat", "onError", "cache", "approval", "wait")
"""Fields that handlers do not have."""


def action_problems(place: Place, *, has_model: bool) -> Iterator[Problem]:
    """Yield what is wrong with what a node does."""
    allowed = HANDLER_ACTIONS if place.is_handler else ACTIONS
    actions = [action for action in allowed if place.wire.get(action) is not None]
    if len(actions) != 1:
        has = " and ".join(actions) or "none"
        what = "a handler" if place.is_handler else "a node"
        yield place.problem("", f"{what} has exactly one of {', '.join(allowed)}; this one has {has}")
    for action in actions:
        config = place.wire[action]
        if not isinstance(config, Mapping):
            yield place.problem(action, f"{action} is a map of fields, not {kind(config)}")
            continue
        for name in _REQUIRED[action]:
            value = config.get(name)
            if not isinstance(value, str) or not value:
                yield place.problem(f"{action}.{name}", f"{action}.{name} is required and is a text")
        yield from _field_problems(place, action, config)
        yield from _special_problems(place, action, config, has_model=has_model)


def _field_problems(place: Place, action: str, config: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("system", "model"):
        if config.get(name) is not None and not isinstance(config[name], str):
            yield place.problem(f"{action}.{name}", f"{action}.{name} is a text, not {kind(config[name])}")
    for name in ("arguments", "parameters", "inputs"):
        if config.get(name) is not None and not isinstance(config[name], Mapping):
            yield place.problem(f"{action}.{name}", f"{action}.{name} is a map, not {kind(config[name])}")
    for name in ("tools", "approvers"):
        value = config.get(name)
        if value is not None and not (isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)):
            yield place.problem(f"{action}.{name}", f"{action}.{name} is a list of names")
    if config.get("output") is not None and action in ("llm", "agent"):
        mistake = check_schema(config["output"])
        if mistake:
            yield place.problem(f"{action}.output", f"{action}.output is no valid JSON Schema: {mistake}")


def _special_problems(place: Place, action: str, config: Mapping[str, Any], *, has_model: bool) -> Iterator[Problem]:
    match action:
        case "llm":
            if not has_model and not config.get("model"):
                yield place.problem("llm.model", "no model: set spec.model for the workflow or llm.model for the node")
            yield from _integer(place, "llm.maxTurns", config.get("maxTurns"))
        case "approval":
            yield from seconds_problems(place, "approval.timeoutSeconds", config.get("timeoutSeconds"))
            if config.get("onTimeout") not in (None, "Reject", "Approve"):
                yield place.problem("approval.onTimeout", "approval.onTimeout is Reject or Approve")
        case "code":
            yield from code_problems(place, config)
        case "wait":
            yield from _wait_problems(place, config)
        case _:
            return


def _wait_problems(place: Place, config: Mapping[str, Any]) -> Iterator[Problem]:
    seconds, until = config.get("seconds"), config.get("until")
    if (seconds is None) == (until is None):
        yield place.problem("wait", "wait has exactly one of seconds and until")
    if seconds is not None and not (is_number(seconds) and 0 <= seconds <= _MAX_SECONDS):
        yield place.problem("wait.seconds", f"wait.seconds is a number from 0 to {_MAX_SECONDS}")
    if place.wire.get("timeoutSeconds") is not None:
        yield place.problem("timeoutSeconds", "a wait lasts as long as it says: remove timeoutSeconds")


def modifier_problems(place: Place) -> Iterator[Problem]:
    """Yield what is wrong with the rest of a node."""
    wire = place.wire
    yield from seconds_problems(place, "timeoutSeconds", wire.get("timeoutSeconds"))
    if wire.get("retry") is not None:
        yield from _retry_problems(place, wire["retry"])
    if place.is_handler:
        for name in _NODE_ONLY:
            if wire.get(name) is not None:
                yield place.problem(name, f"{name} is for nodes: remove it")
        return
    if wire.get("forEach") is not None and wire.get("repeat") is not None:
        yield place.problem("repeat", "forEach and repeat do not go together: put one of them into a node of its own")
    yield from _integer(place, "maxParallel", wire.get("maxParallel"))
    if wire.get("maxParallel") is not None and wire.get("forEach") is None:
        yield place.problem("maxParallel", "maxParallel is for nodes with forEach: remove it")
    if wire.get("onError") not in (None, "Fail", "Continue"):
        yield place.problem("onError", "onError is Fail or Continue")
    if wire.get("cache") is not None:
        yield from _cache_problems(place, wire["cache"])
    if wire.get("repeat") is not None:
        yield from _repeat_problems(place, wire["repeat"])


def _cache_problems(place: Place, cache: Any) -> Iterator[Problem]:
    if not isinstance(cache, Mapping):
        yield place.problem("cache", f"cache is a map, not {kind(cache)}")
        return
    yield from _integer(place, "cache.ttlSeconds", cache.get("ttlSeconds"))
    for action in _UNCACHED:
        if place.wire.get(action) is not None:
            yield place.problem("cache", f"what {action} gives is never used again: remove cache")


def _repeat_problems(place: Place, repeat: Any) -> Iterator[Problem]:
    if not isinstance(repeat, Mapping):
        yield place.problem("repeat", f"repeat is a map, not {kind(repeat)}")
        return
    if not isinstance(repeat.get("from"), str) or not repeat["from"]:
        yield place.problem("repeat.from", "repeat.from is required: the node to go back to")
    if repeat.get("until") is None:
        yield place.problem("repeat.until", "repeat.until is required: CEL that is true when it is good")
    yield from _integer(place, "repeat.maxIterations", repeat.get("maxIterations"))
    if repeat.get("onExhausted") not in (None, "Fail", "Continue"):
        yield place.problem("repeat.onExhausted", "repeat.onExhausted is Fail or Continue")


def _retry_problems(place: Place, retry: Any) -> Iterator[Problem]:
    if not isinstance(retry, Mapping):
        yield place.problem("retry", f"retry is a map, not {kind(retry)}")
        return
    for name in ("limit", "backoffSeconds", "factor", "maxBackoffSeconds"):
        value = retry.get(name)
        if value is not None and not (is_number(value) and 0 <= value <= _MAX_SECONDS):
            yield place.problem(f"retry.{name}", f"retry.{name} is a number, 0 or more")
    reasons = retry.get("on")
    if reasons is not None and not (
        isinstance(reasons, list | tuple) and all(isinstance(reason, str) for reason in reasons)
    ):
        yield place.problem("retry.on", "retry.on is a list of reasons, such as Timeout or RateLimited")


def seconds_problems(place: Place, at: str, value: Any) -> Iterator[Problem]:
    """Yield what is wrong with a time-out."""
    if value is not None and not (is_number(value) and 0 < value <= _MAX_SECONDS):
        yield place.problem(at, f"{at} is a number over 0, at most {_MAX_SECONDS}")


def _integer(place: Place, at: str, value: Any) -> Iterator[Problem]:
    if value is not None and not (is_number(value) and value == int(value) and value >= 1):
        yield place.problem(at, f"{at} is a whole number over 0")
