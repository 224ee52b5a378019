"""What a task may do: what its frozen document says, whatever the pod asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.errors import InvalidObject, Refused
from fairlead.services.tasks import TaskContext
from fairlead_agent.protocol import AskApproval, Call, StartTurn, call_key

_ACTIONS: Final = ("llm", "tool", "code", "agent")
_MAX_DIGITS: Final = (9, 9, 16)
"""Of iteration, try and sequence."""
MAX_APPROVAL_SECONDS: Final = 366 * 86_400.0
_APPROVAL_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Grant:
    """What the calls of a node may use."""

    model: str = ""
    """Empty: none."""
    tools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Question:
    """Who may decide an approval, until when, and what no answer means."""

    approvers: tuple[str, ...]
    timeout_seconds: float
    on_timeout: str


def check_call(context: TaskContext, request: Call) -> None:
    """Let only calls pass that the frozen document asks for.

    Raises:
        InvalidObject: the request contradicts itself.
        Refused: the node, or the agent whose turn it is, does not use this model or tool.
    """
    given = [action for action in _ACTIONS if getattr(request, action) is not None]
    if given != [request.action]:
        raise InvalidObject("a call has exactly the request of its action", field="action")
    check_key(request.key, request.node, request.item)
    if request.agent is not None:
        _check_abroad(context, request, request.agent.name)
        return
    if request.code is not None and (context.turn is not None or not (context.node(request.node) or {}).get("code")):
        raise Refused(f"node {request.node[:200]} has no program to run")
    who, grant = _grant(context, request)
    if request.llm is not None:
        if request.llm.model != grant.model:
            raise Refused(f"{who} asks {_named('model', grant.model)}, not {request.llm.model}")
        _check_tools(who, grant, request.llm.tools)
    if request.tool is not None:
        _check_tools(who, grant, (request.tool.name,))


def _check_abroad(context: TaskContext, request: Call, agent: str) -> None:
    """Let a call pass whose node hands its task to an agent that someone else runs."""
    node = None if context.turn is not None else context.node(request.node)
    named = ((node or {}).get("agent") or {}).get("name")
    frozen: Mapping[str, Any] = (context.document.get("agents") or {}).get(agent) or {}
    if named is None or named != agent or not frozen.get("external"):
        raise Refused(f"node {request.node[:200]} does not ask the external agent {agent[:200]}")


def check_question(context: TaskContext, request: AskApproval) -> Question:
    """Return how an approval is to be decided: as the frozen document says.

    Raises:
        Refused: nothing there asks people.
    """
    check_key(request.key, request.node, request.item)
    if request.tool is None:
        return _question_of_node(context, request) if context.turn is None else _question_of_graph(context, request)
    who, grant = _grant(context, request)
    _check_tools(who, grant, (request.tool.name,))
    spec = tool_spec(context.document, request.tool.name)
    if not spec.get("requireApproval"):
        raise Refused(f"the tool {request.tool.name} requires no approval")
    seconds = min(request.timeout_seconds, MAX_APPROVAL_SECONDS)
    return Question(tuple(spec.get("approvers") or ()), seconds, "Reject")


def _question_of_node(context: TaskContext, request: AskApproval) -> Question:
    asked = (context.node(request.node) or {}).get("approval")
    if asked is None:
        raise Refused(f"node {request.node[:200]} does not ask for an approval")
    seconds = asked.get("timeoutSeconds") or _APPROVAL_SECONDS
    return Question(tuple(asked.get("approvers") or ()), float(seconds), asked.get("onTimeout") or "Reject")


def _question_of_graph(context: TaskContext, request: AskApproval) -> Question:
    """An agent's own graph may ask people whatever it likes; no answer means no."""
    _turn_grant(context, request)
    if not context.agent_spec().get("graph"):
        raise Refused(f"the agent {context.agent} has no graph that asks people")
    return Question((), min(request.timeout_seconds, MAX_APPROVAL_SECONDS), "Reject")


def check_turn(context: TaskContext, request: StartTurn) -> Mapping[str, Any]:
    """Return the frozen spec of the Agent that the node hands a task to.

    Raises:
        Refused: the node hands nothing to this Agent.
    """
    check_key(request.key, request.node, request.item)
    node = None if context.turn is not None else context.node(request.node)
    name = ((node or {}).get("agent") or {}).get("name")
    if name is None or name != request.agent:
        raise Refused(f"node {request.node} does not hand anything to the agent {request.agent}")
    found: Mapping[str, Any] | None = (context.document.get("agents") or {}).get(name)
    if found is None:
        raise Refused(f"the run's revision has no Agent {name}", reason="AgentNotFound")
    if found.get("external"):
        raise Refused(f"the agent {name} is external: it is asked by a call; does the pod have an older image?")
    return found


def check_key(key: str, node: str, item: str | None) -> tuple[int, int, int]:
    """Return the iteration, try and sequence in a call's key.

    Raises:
        InvalidObject: it is no key of this node and item.
    """
    numbers = key.rsplit("/", len(_MAX_DIGITS))[1:]
    if len(numbers) == len(_MAX_DIGITS) and all(map(_is_number, numbers, _MAX_DIGITS)):
        iteration, tried, sequence = (int(number) for number in numbers)
        if key == call_key(node, item, iteration, tried, sequence):
            return iteration, tried, sequence
    raise InvalidObject(f"{key[:200]!r} is no key of a call of node {node[:200]}", field="key")


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= digits


def tool_spec(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the frozen spec of a Tool; empty for one that is built in."""
    found: Mapping[str, Any] = (document.get("tools") or {}).get(name) or {}
    return found


def _grant(context: TaskContext, request: Call | AskApproval) -> tuple[str, Grant]:
    """Return who asks, in words, and what it may use."""
    if context.turn is not None:
        return f"the agent {context.agent}", _turn_grant(context, request)
    node = context.node(request.node) or {}
    if isinstance(request, AskApproval):
        action = "llm" if "llm" in node else "tool"
    else:
        action = "llm" if request.action == "tool" and _offers_tools(node) else request.action
    config = node.get(action)
    if config is None:
        raise Refused(f"the workflow has no node {request.node[:200]} with the action {action}")
    who = f"node {request.node}"
    if action == "code":
        return who, Grant()
    if action == "tool":
        return who, Grant(tools=frozenset((config.get("name"),)))
    model = config.get("model") or context.default_model(request.node)
    return who, Grant(model, frozenset(config.get("tools") or ()))


def _offers_tools(node: Mapping[str, Any]) -> bool:
    return bool((node.get("llm") or {}).get("tools"))


def _turn_grant(context: TaskContext, request: Call | AskApproval) -> Grant:
    turn = context.turn
    iteration, _, _ = check_key(request.key, request.node, request.item)
    asked = None if turn is None else (turn.node, turn.item, turn.iteration)
    if asked != (request.node, request.item, iteration):
        raise Refused(f"this turn of the agent {context.agent} is not one of node {request.node[:200]}")
    spec = context.agent_spec()
    model = spec.get("model") or context.default_model(request.node)
    return Grant(model, frozenset(spec.get("tools") or ()))


def _check_tools(who: str, grant: Grant, wanted: tuple[str, ...]) -> None:
    for name in wanted:
        if name not in grant.tools:
            allowed = ", ".join(sorted(grant.tools))
            raise Refused(f"{who} uses {_named('tool', allowed)}, not {name[:200]}")


def _named(what: str, name: str) -> str:
    return f"the {what} {name}" if name else f"no {what}"
