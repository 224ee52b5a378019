from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from a2a.types.a2a_pb2 import Part

from fairlead.a2a.answers import Answer
from fairlead.a2a.cards import Card
from fairlead.a2a.remote import Address, NotSent, Question
from fairlead.egress import Policy
from fairlead.errors import FairleadError, InvalidObject, Refused, RetryableError, TerminalError
from fairlead.services.external import ExternalAgents
from fairlead.services.permits import check_call, check_turn
from fairlead.services.tasks import TaskContext
from fairlead.storage.base import CallIntent
from fairlead.testing.clock import FakeClock
from fairlead.testing.kube import FakeKube
from fairlead_agent.protocol import AgentRequest, Call, StartTurn

CARD = Card("Weather", "1", "1.0", (), "https://a.example", streaming=True, raw=None)  # type: ignore[arg-type]  # unused
DOLLAR = 10**12


class FakeRemotes:
    def __init__(self, answer: Answer | FairleadError) -> None:
        self.answer = answer
        self.asked: list[tuple[Address, Question, float]] = []
        self.cards = 0
        self.failure: FairleadError | None = None

    async def card(self, _: Address) -> Card:
        self.cards += 1
        if self.failure is not None:
            raise self.failure
        return CARD

    async def ask(self, address: Address, _: Card, question: Question, *, seconds: float) -> Answer:
        self.asked.append((address, question, seconds))
        if isinstance(self.answer, FairleadError):
            raise self.answer
        return self.answer


def answered(state: str = "completed", text: str = "sun", *, words: str = "", cost: str | None = None) -> Answer:
    return Answer(state, words, (Part(text=text),), None if cost is None else Decimal(cost), "task-1")


def made(answer: Answer | FairleadError) -> tuple[ExternalAgents, FakeRemotes]:
    kube: Any = FakeKube()
    agents, remotes = ExternalAgents(kube, FakeClock(), Policy()), FakeRemotes(answer)
    agents._opened = remotes  # type: ignore[assignment]  # instead of the network
    return agents, remotes


def context(external: dict[str, Any] | None = None, **spec: Any) -> TaskContext:
    nodes = [{"name": "ask", "agent": {"name": "theirs", "prompt": "x"}}, {"name": "own", "agent": {"name": "ours"}}]
    found = {"url": "https://a.example", **(external or {})}
    workflow = {"name": "w", "spec": {"nodes": nodes, **spec.pop("workflow", {})}}
    agents = {"theirs": {"external": found, **spec}, "ours": {"model": "m"}}
    return TaskContext("t", "r", "ns", "run", "w", None, {"workflow": workflow, "agents": agents}, cluster="c")


def intent(key: str = "ask/-/1/1/0") -> CallIntent:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return CallIntent(
        task_id="t",
        run_uid="r",
        key=key,
        digest="d",
        action="agent",
        node="ask",
        item="",
        gateway="g",
        target="theirs",
        request={},
        started_at=at,
    )


async def ask(
    agents: ExternalAgents, within: TaskContext, *, output: Any = None, key: str = "ask/-/1/1/0", seconds: float = 100
) -> Any:
    request = AgentRequest(name="theirs", prompt="Rain?", output=output)
    return await agents.ask(within, request, intent=intent(key), timeout_seconds=seconds)


async def test_ask_gives_the_answer_and_reads_the_card_once() -> None:
    agents, remotes = made(answered())
    for _ in range(2):
        outcome = await ask(agents, context(turnTimeoutSeconds=30))
    assert (outcome.reply.result, outcome.cost, outcome.priced) == ("sun", None, True), "nobody knows"
    assert remotes.cards == 1
    (_, question, seconds), (_, again, _) = remotes.asked
    assert (question.texts, seconds) == (("Rain?",), 30)
    assert question.message_id == again.message_id
    await ask(agents, context(), key="ask/-/1/2/0")
    assert remotes.asked[2][1].message_id != question.message_id


async def test_ask_tells_the_schema_that_the_answer_should_have() -> None:
    agents, remotes = made(answered(text='{"a": 1}'))
    await ask(agents, context(), output={"type": "object"})
    question = remotes.asked[0][1]
    assert (question.wants_value, '{"type":"object"}' in question.texts[1]) == (True, True)


@pytest.mark.parametrize(
    ("price", "said", "cost"),
    [("0.5", None, DOLLAR // 2), ("0.5", "9", DOLLAR // 2), (None, "0.25", DOLLAR // 4), ("0", None, 0)],
)
async def test_ask_books_the_price_or_what_the_answer_says(price: str | None, said: str | None, cost: int) -> None:
    agents, _ = made(answered(cost=said))
    outcome = await ask(agents, context({"costPerCallUSD": price} if price else {}))
    assert (outcome.cost, outcome.priced) == (cost, True)


@pytest.mark.parametrize(
    ("state", "reason", "retryable"),
    [
        ("failed", "AgentFailed", True),
        ("rejected", "AgentFailed", False),
        ("canceled", "AgentFailed", False),
        ("input-required", "AgentNeedsInput", False),
        ("auth-required", "AgentNeedsInput", False),
    ],
)
async def test_ask_fails_as_the_agent_did(state: str, reason: str, retryable: bool) -> None:
    agents, _ = made(answered(state, words="the disk is full"))
    outcome = await ask(agents, context({"costPerCallUSD": "0.5"}))
    error = outcome.reply.error
    assert (error.reason, error.retryable, "the disk is full" in error.message) == (reason, retryable, True)
    assert outcome.cost == DOLLAR // 2, "it has worked"


@pytest.mark.parametrize(
    ("error", "cost"),
    [
        (RetryableError("late", reason="Timeout"), DOLLAR // 2),
        (RetryableError("HTTP 500", reason="Unreachable"), DOLLAR // 2),
        (TerminalError("babble", reason="ProtocolError"), DOLLAR // 2),
        (TerminalError("flood", reason="TooLarge"), DOLLAR // 2),
        (NotSent("nobody listens", reason="Unreachable"), 0),
    ],
)
async def test_ask_counts_what_may_have_been_paid(error: FairleadError, cost: int) -> None:
    agents, _ = made(error)
    outcome = await ask(agents, context({"costPerCallUSD": "0.5"}))
    assert (outcome.reply.error.reason, outcome.cost) == (error.reason, cost)
    assert outcome.reply.error.message.startswith("Agent theirs (https://a.example): ")
    unknown = await ask(agents, context())
    assert (unknown.cost, unknown.priced) == ((None, True) if cost else (0, False))


async def test_ask_books_nothing_when_the_card_cannot_be_read() -> None:
    agents, remotes = made(answered())
    remotes.failure = RetryableError("late", reason="Timeout")
    outcome = await ask(agents, context({"costPerCallUSD": "0.5"}))
    assert (outcome.reply.error.reason, outcome.cost, outcome.priced, remotes.asked) == ("Timeout", 0, False, [])


async def test_ask_refuses_an_answer_that_cannot_be_kept() -> None:
    agents, _ = made(answered(text="x" * (2 << 20)))
    assert (await ask(agents, context())).reply.error.reason == "OutputTooLarge"


def test_reserve_keeps_the_price_free_in_every_budget() -> None:
    agents, _ = made(answered())
    request, limit = AgentRequest(name="theirs", prompt="x"), {"maxCostUSD": "1"}
    assert agents.reserve(context(), request) is None
    alone = agents.reserve(context({"costPerCallUSD": "0.5"}), request)
    assert alone is not None
    assert (alone.lines, alone.worst(0)) == ((), (DOLLAR // 2, 0)), "what is lost is known without a budget too"
    found = agents.reserve(context({"costPerCallUSD": "0.5"}, workflow={"budget": limit}, budget=limit), request)
    assert found is not None
    assert (len(found.lines), found.worst(0)) == (2, (DOLLAR // 2, 0))
    with pytest.raises(TerminalError, match=r"set spec\.external\.costPerCallUSD") as caught:
        agents.reserve(context(budget=limit), request)
    assert caught.value.reason == "PriceUnknown"
    assert agents.reserve(context(budget={"maxTokens": 5}), request) is not None


def call(node: str, agent: str, **more: Any) -> Call:
    asked = AgentRequest(name=agent, prompt="x")
    key = f"{node}/-/1/1/0"
    return Call(attempt=1, key=key, digest="d", action="agent", node=node, agent=asked, **more)


def test_check_call_lets_a_node_ask_its_own_external_agent_only() -> None:
    check_call(context(), call("ask", "theirs"))
    for node, agent in (("own", "theirs"), ("own", "ours"), ("ask", "ours"), ("nowhere", "theirs")):
        with pytest.raises(Refused):
            check_call(context(), call(node, agent))
    with pytest.raises(InvalidObject):
        check_call(context(), call("ask", "theirs").model_copy(update={"agent": None}))


def test_check_turn_refuses_an_agent_that_someone_else_runs() -> None:
    turn = StartTurn(attempt=1, key="ask/-/1/1/0", node="ask", agent="theirs", prompt="x")
    with pytest.raises(Refused, match="is external"):
        check_turn(context(), turn)
