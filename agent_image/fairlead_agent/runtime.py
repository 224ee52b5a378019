"""What a user's own LangGraph graph is given: models and tools through the gateway.

A node of the graph gets it from its config::

    async def think(state: State, config: RunnableConfig) -> dict[str, Any]:
        fairlead: Runtime = config["configurable"]["fairlead"]
        answer = await fairlead.ask(state["question"], tools=("sql",))

Nodes that make calls are coroutines. A call is recorded under a key that follows from the step of the graph and from
the order in which the node makes its calls, so that a replay after a crash sends nothing twice. A node that makes calls
side by side therefore creates them in a fixed order: ``await asyncio.gather(fairlead.ask(a), fairlead.ask(b))``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from itertools import count
from typing import Any, Final

from langgraph.config import get_config
from langgraph.types import interrupt

from fairlead_agent.answers import parse_answer
from fairlead_agent.conversation import opening
from fairlead_agent.desk import Desk
from fairlead_agent.failures import NodeFailure, failure
from fairlead_agent.nodes.approval import granted
from fairlead_agent.pausing import number_of, questions
from fairlead_agent.protocol import CallReply, Decision, LlmRequest, Message, ToolRequest, TurnInfo

_COUNTERS: Final = "fairlead/calls"


class Runtime:
    """The gateway, as a graph's nodes see it.

    Attributes:
        turn: what the agent is asked to do: its prompt, instructions, tools and schema.
    """

    def __init__(self, turn: TurnInfo, desk: Desk) -> None:
        self.turn = turn
        self._desk = desk
        self._asked: dict[int, int] = {}
        """The tokens of each request to the model, by its number: a node that is run again asks nothing new."""
        self._uses: set[int] = set()
        """The numbers of the tool calls."""

    def used(self) -> dict[str, Any]:
        """Return what the turn has used of its limits."""
        return {"asked": [list(one) for one in self._asked.items()], "uses": sorted(self._uses)}

    def resume(self, used: Mapping[str, Any]) -> None:
        """Go on counting where an earlier attempt was at its last checkpoint."""
        self._asked.update((number, tokens) for number, tokens in used["asked"])
        self._uses.update(used["uses"])

    def ask(
        self,
        messages: str | Sequence[Message | Mapping[str, Any]],
        *,
        tools: Sequence[str] = (),
        output: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Awaitable[CallReply]:
        """Ask the agent's model: a text, or messages with ``role`` and ``content``.

        With *output*, a JSON Schema, `CallReply.result` is the value that the answer holds. With *tools*,
        `CallReply.tool_calls` are what the model wants done; use them by `use`.

        Raises:
            NodeFailure: the model's failure, ``TurnLimitExceeded`` or ``OutputInvalid``.
        """
        given = opening(messages, system=self.turn.instructions) if isinstance(messages, str) else messages
        request = LlmRequest(
            model=self.turn.model,
            messages=tuple(one if isinstance(one, Message) else Message.model_validate(one) for one in given),
            output=None if output is None else dict(output),
            parameters=dict(parameters or {}),
            tools=tuple(tools),
        )
        return self._ask(self._number(), request)

    async def _ask(self, number: int, request: LlmRequest) -> CallReply:
        if number not in self._asked:
            _check(sum(self._asked.values()), self.turn.max_tokens, "maxTokens")
            _check(len(self._asked), self.turn.max_turns, "maxTurns")
            self._asked[number] = 0
        reply = await self._desk.call(number, request)
        if reply.error is not None:
            raise NodeFailure(reply.error)
        self._asked[number] = reply.usage.input_tokens + reply.usage.output_tokens
        if request.output is None or reply.tool_calls:
            return reply
        return reply.model_copy(update={"result": parse_answer(reply.result, request.output)})

    def use(self, tool: str, arguments: Mapping[str, Any] | None = None) -> Awaitable[Any]:
        """Use one of the agent's tools and return what it gives.

        One that requires approval interrupts the graph until a person has decided.

        Raises:
            NodeFailure: the tool's failure, ``ApprovalRejected``, ``ApprovalTimeout`` or ``TurnLimitExceeded``.
        """
        if tool not in self._desk.tools:
            there = ", ".join(self._desk.tools) or "none"
            raise failure("ToolCallInvalid", f'the agent has no tool "{tool}"; there are: {there}')
        return self._use(self._number(), ToolRequest(name=tool, arguments=dict(arguments or {})))

    async def _use(self, number: int, request: ToolRequest) -> Any:
        if self._desk.needs_approval(request.name):
            decisions = interrupt(questions({number: request}))
            granted(Decision.model_validate(decisions[str(number)]))
        if number not in self._uses:
            _check(len(self._uses), self.turn.max_tool_calls, "maxToolCalls")
            self._uses.add(number)
        return await self._desk.result(number, request)

    def _number(self) -> int:
        """Return the number of the next request of the graph's node that runs here."""
        within = get_config()["configurable"]
        place = within.get("checkpoint_ns", "")
        counters = within.setdefault(_COUNTERS, {})
        return number_of(place, next(counters.setdefault(place, count())))


def _check(used: int, limit: int | None, name: str) -> None:
    if limit is not None and used >= limit:
        raise failure("TurnLimitExceeded", f"the limit of {limit} ({name}) is used up")
