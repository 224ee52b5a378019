"""Runs a LangGraph graph through its interrupts: each is a question to people, and its answer resumes the graph.

LangGraph is imported here, so this module is imported only where a graph is about to run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt

from fairlead_agent.desk import Desk
from fairlead_agent.protocol import ToolRequest

_QUESTIONS: Final = "fairlead/questions"
_BITS: Final = 48


def questions(calls: Mapping[int, ToolRequest]) -> dict[str, Any]:
    """Return what to interrupt a graph with, to have people decide about tool calls by the number of their request.

    What the interrupt gives are the `Decision` s as JSON, by the number as a text.
    """
    asked = [{"sequence": number, "tool": call.model_dump(mode="json")} for number, call in calls.items()]
    return {_QUESTIONS: asked}


async def run_through(graph: Pregel[Any, Any, Any, Any], given: Any, config: RunnableConfig, desk: Desk) -> Any:
    """Run *graph* to its end and return its state; whoever is asked meanwhile may take days."""
    state = await graph.ainvoke(given, config, durability="sync")
    while isinstance(state, Mapping) and (interrupts := state.get("__interrupt__")):
        answers = await _answers(interrupts, desk)
        state = await graph.ainvoke(Command(resume=answers), config, durability="sync")
    return state


async def _answers(interrupts: Sequence[Interrupt], desk: Desk) -> dict[str, Any]:
    """Ask everything, then wait for one answer after the other."""
    for interrupt in interrupts:
        for sequence, message, tool in _asked(interrupt):
            await desk.ask(sequence, message, tool=tool)
    answers: dict[str, Any] = {}
    for interrupt in interrupts:
        decisions = {
            str(sequence): (await desk.decision(sequence)).model_dump(mode="json")
            for sequence, _, _ in _asked(interrupt)
        }
        own = isinstance(interrupt.value, Mapping) and _QUESTIONS in interrupt.value
        answers[interrupt.id] = decisions if own else next(iter(decisions.values()))
    return answers


def _asked(interrupt: Interrupt) -> list[tuple[int, str, ToolRequest | None]]:
    value = interrupt.value
    if isinstance(value, Mapping) and _QUESTIONS in value:
        tools = [(int(one["sequence"]), ToolRequest.model_validate(one["tool"])) for one in value[_QUESTIONS]]
        return [(sequence, f"Use the tool {tool.name}?", tool) for sequence, tool in tools]
    message = value.get("message") if isinstance(value, Mapping) else value
    text = message if isinstance(message, str) else json.dumps(value, ensure_ascii=False, default=str)
    return [(number_of(interrupt.id, text), text, None)]


def number_of(*parts: object) -> int:
    """Return a number for a request that is made somewhere in a graph: the same in every replay."""
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: _BITS // 8])
