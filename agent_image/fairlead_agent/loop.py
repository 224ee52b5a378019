"""The loop of model and tools, as a LangGraph graph: ask the model, have its calls approved, use the tools, ask again.

Every request has a number that follows from the conversation alone, so that a replay sends nothing twice. Importing
this module imports LangGraph.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from fairlead_agent.answers import parse_answer, repair
from fairlead_agent.conversation import Talk
from fairlead_agent.desk import Desk
from fairlead_agent.failures import NodeFailure, failure
from fairlead_agent.functions import to_text
from fairlead_agent.nodes.approval import refusal
from fairlead_agent.pausing import questions, run_through
from fairlead_agent.problems import did_you_mean
from fairlead_agent.protocol import MAX_MESSAGES, CallReply, Decision, Message, ToolRequest, ToolUse
from fairlead_agent.schemas import mistakes

MAX_MALFORMED: Final = 3
"""How many answers in a row with calls that cannot be made are given back to the model."""
MAX_TOLD: Final = 1 << 18
"""Characters of a tool's result that a model is told."""
_ENDING: Final = frozenset({"OutcomeUnknown", "BudgetExceeded"})
"""Failures of a tool that end the conversation: the model must not try again."""
_STEPS_PER_TURN: Final = 4


class _State(TypedDict, total=False):
    messages: list[dict[str, Any]]
    sequence: int
    """The number of the next request to the model; its tool calls have those that follow."""
    turns: int
    calls: int
    """Of tools."""
    tokens: int
    malformed: int
    """Answers in a row with calls that could not be made."""
    mended: bool
    """Whether the model has been told that its answer does not fit the schema."""
    decisions: dict[str, Any]
    final: bool
    result: Any


async def converse(talk: Talk, desk: Desk) -> Any:
    """Return what the model says when it needs no more tools.

    Raises:
        NodeFailure: the model's, a limit's, ``ToolCallInvalid`` or ``OutputInvalid``.
    """
    loop = _Loop(talk, desk)
    graph = StateGraph(_State)
    graph.add_node("ask", loop.ask)
    graph.add_node("approve", loop.approve)
    graph.add_node("use", loop.use)
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", _after_ask, ["ask", "approve", END])
    graph.add_edge("approve", "use")
    graph.add_edge("use", "ask")
    given = _State(
        messages=[one.model_dump(mode="json") for one in talk.messages],
        sequence=0,
        turns=0,
        calls=0,
        tokens=0,
        malformed=0,
        mended=False,
        final=False,
    )
    steps = _STEPS_PER_TURN * (talk.limits.turns + 1)
    compiled = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "turn"}, "recursion_limit": steps}
    state = await run_through(compiled, given, config, desk)  # type: ignore[arg-type]
    return state["result"]


def _after_ask(state: _State) -> str:
    if state["final"]:
        return END
    return "approve" if state["messages"][-1]["role"] == "assistant" else "ask"


@dataclass(frozen=True, slots=True)
class _Loop:
    """The steps of one conversation."""

    talk: Talk
    desk: Desk

    async def ask(self, state: _State) -> _State:
        """Ask the model."""
        self._check_limits(state)
        messages = tuple(Message.model_validate(one) for one in state["messages"])
        sequence = state["sequence"]
        reply = await self.desk.call(sequence, self.talk.request(messages))
        if reply.error is not None:
            raise NodeFailure(reply.error)
        spent = reply.usage.input_tokens + reply.usage.output_tokens
        new = _State(turns=state["turns"] + 1, tokens=state["tokens"] + spent)
        new["sequence"] = sequence + 1 + len(reply.tool_calls)
        if reply.tool_calls:
            said = Message(role="assistant", content=to_text(reply.result), tool_calls=reply.tool_calls)
            new["messages"] = [*state["messages"], said.model_dump(mode="json")]
            new["malformed"] = self._count_malformed(state, reply.tool_calls)
            return new
        return {**new, **self._end(state, reply)}

    def _check_limits(self, state: _State) -> None:
        limits = self.talk.limits
        turns = state["turns"] - state["mended"]  # to mend an answer is none of the work
        for used, limit, what in (
            (turns, limits.turns, "maxTurns"),
            (state["tokens"], limits.tokens, "maxTokens"),
            (len(state["messages"]), MAX_MESSAGES, "messages in a conversation"),
        ):
            if limit is not None and used >= limit:
                text = f"there is no answer yet, and the limit of {limit} ({what}) is used up"
                raise failure("TurnLimitExceeded", text)

    def _end(self, state: _State, reply: CallReply) -> _State:
        """Take the answer, or tell the model once what is wrong with it."""
        if self.talk.output is None:
            return _State(final=True, result=reply.result)
        try:
            return _State(final=True, result=parse_answer(reply.result, self.talk.output))
        except NodeFailure as wrong:
            if state["mended"]:
                raise
            told = [one.model_dump(mode="json") for one in repair(reply.result, wrong.error.message)]
            return _State(mended=True, messages=[*state["messages"], *told])

    def _count_malformed(self, state: _State, uses: tuple[ToolUse, ...]) -> int:
        problems = [problem for use in uses if (problem := self._problem(use))]
        if not problems:
            return 0
        if state["malformed"] >= MAX_MALFORMED:
            text = f"the model made {MAX_MALFORMED + 1} calls in a row that cannot be made, the last: {problems[0]}"
            raise failure("ToolCallInvalid", text, retryable=True)
        return state["malformed"] + 1

    def _problem(self, use: ToolUse) -> str:
        """Return why a call cannot be made, or nothing."""
        if use.name not in self.talk.tools or use.name not in self.desk.tools:
            there = f"; there are: {', '.join(self.talk.tools)}"
            return f'there is no tool "{use.name}"{did_you_mean(use.name, self.talk.tools) or there}'
        if use.arguments is None:
            return f"the arguments of {use.name} are no JSON object: {use.raw[:200]}"
        schema = self.desk.tools[use.name].parameters
        found = mistakes(schema, use.arguments, root="the arguments") if schema else []
        return f"the arguments of {use.name} do not fit: {'; '.join(found)}" if found else ""

    def _asked(self, state: _State) -> dict[int, ToolUse]:
        """Return the tool calls of the last answer, by the number of their request."""
        uses = [ToolUse.model_validate(one) for one in state["messages"][-1]["tool_calls"]]
        return dict(enumerate(uses, state["sequence"] - len(uses)))

    async def approve(self, state: _State) -> _State:
        """Have people decide about the calls that ask for it."""
        asked = self._asked(state)
        calls = state["calls"] + len(asked)
        if calls > self.talk.limits.tool_calls:
            limit = self.talk.limits.tool_calls
            raise failure("TurnLimitExceeded", f"the model asks for more than {limit} tool calls (maxToolCalls)")
        delicate = {
            number: ToolRequest(name=use.name, arguments=use.arguments or {})
            for number, use in asked.items()
            if self.desk.needs_approval(use.name) and not self._problem(use)
        }
        return _State(calls=calls, decisions=interrupt(questions(delicate)) if delicate else {})

    async def use(self, state: _State) -> _State:
        """Use the tools, side by side, and tell the model what they gave."""
        asked = self._asked(state)
        told = await asyncio.gather(*(self._told(number, use, state) for number, use in asked.items()))
        answers = [
            Message(role="tool", tool_call_id=use.id, content=text).model_dump(mode="json")
            for use, text in zip(asked.values(), told, strict=True)
        ]
        return _State(messages=[*state["messages"], *answers])

    async def _told(self, number: int, use: ToolUse, state: _State) -> str:
        problem = self._problem(use)
        if problem:
            return f"error: {problem}"
        decision = state["decisions"].get(str(number))
        if decision is not None and not decision["approved"]:
            return f"error: this call was not approved: {refusal(Decision.model_validate(decision))}"
        reply = await self.desk.call(number, ToolRequest(name=use.name, arguments=use.arguments or {}))
        return _result(reply)


def _result(reply: CallReply) -> str:
    """Return what a tool gave as the text that the model reads."""
    if reply.error is not None:
        if reply.error.reason in _ENDING:
            raise NodeFailure(reply.error)
        return f"error: {reply.error.reason}: {reply.error.message}"
    text = to_text(reply.result)
    if len(text) <= MAX_TOLD:
        return text
    return f"{text[:MAX_TOLD]}\n(cut: {len(text)} characters in all)"
