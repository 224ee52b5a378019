"""Runs an agent's own LangGraph graph (``Agent.spec.graph``) for one turn.

The graph gets the prompt as its ``messages`` or its ``prompt`` (whatever its state has), ``instructions`` if its state
has them, and a `Runtime` in its config. Its answer is the ``output`` of its state, or else its last message.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph

from fairlead_agent.answers import parse_answer
from fairlead_agent.checkpointer import JournalSaver
from fairlead_agent.desk import Desk
from fairlead_agent.failures import failure
from fairlead_agent.functions import to_json
from fairlead_agent.pausing import run_through
from fairlead_agent.protocol import TurnInfo
from fairlead_agent.runtime import Runtime

MAX_STEPS: Final = 200
_THREAD: Final = "turn"
Graph = CompiledStateGraph[Any, Any, Any, Any]


async def play(
    turn: TurnInfo, desk: Desk, *, saved: Sequence[Any], save: Callable[[dict[str, Any]], Awaitable[None]]
) -> Any:
    """Run the turn's graph, from its last checkpoint on, and return its answer.

    Raises:
        NodeFailure: the graph cannot be loaded, keeps what cannot be kept, or gives no answer.
    """
    runtime = Runtime(turn, desk)
    if saved:
        runtime.resume(saved[-1]["used"])

    async def keep(entry: dict[str, str]) -> None:
        await save({**entry, "used": runtime.used()})

    saver = JournalSaver(saved, save=keep)
    graph = load(turn.graph, saver)
    given = None if saver.begun else _given(graph, turn)
    config: RunnableConfig = {
        "configurable": {"thread_id": _THREAD, "fairlead": runtime},
        "recursion_limit": MAX_STEPS,
    }
    return _answer(await run_through(graph, given, config, desk), turn)


def load(name: str, saver: JournalSaver) -> Graph:
    """Return the graph at ``module:attribute``, with its checkpoints in the journal.

    Raises:
        NodeFailure: ``TurnFailed``.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise failure("TurnFailed", f"the graph {name} cannot be loaded: {type(error).__name__}: {error}") from error
    if isinstance(found, StateGraph):
        return found.compile(checkpointer=saver)
    if isinstance(found, CompiledStateGraph):
        return found.copy({"checkpointer": saver})
    raise failure("TurnFailed", f"{name} is a {type(found).__name__}: it has to be a StateGraph or a compiled graph")


def _given(graph: Graph, turn: TurnInfo) -> dict[str, Any]:
    """Return what the graph starts with: those of our values that its state has."""
    there = graph.builder.schemas[graph.builder.input_schema]
    told = [{"role": "system", "content": turn.instructions}] if turn.instructions else []
    values = {
        "messages": [*told, {"role": "user", "content": turn.prompt}],
        "prompt": turn.prompt,
        "instructions": turn.instructions,
    }
    if not {"messages", "prompt"} & there.keys():
        raise failure("TurnFailed", f"the state of {turn.graph} has neither messages nor prompt, so it gets no prompt")
    return {name: value for name, value in values.items() if name in there}


def _answer(state: Any, turn: TurnInfo) -> Any:
    values = state if isinstance(state, Mapping) else {}
    if values.get("output") is not None:
        answer = values["output"]
    elif values.get("messages"):
        answer = _text(values["messages"][-1])
    else:
        text = f"{turn.graph} ended without an answer: its state needs output, or a message at the end"
        raise failure("TurnFailed", text)
    try:
        plain = to_json(answer)
    except ValueError:
        raise failure("OutputInvalid", f"the answer of {turn.graph} is no JSON: {type(answer).__name__}") from None
    return plain if turn.output is None else parse_answer(plain, turn.output)


def _text(message: Any) -> Any:
    if isinstance(message, BaseMessage):
        return str(message.text)
    return message.get("content") if isinstance(message, Mapping) else message
