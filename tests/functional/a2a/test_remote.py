"""Calls to agents that someone else runs: the SDK's own server on a socket, and ways in which strangers break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest

from fairlead.a2a.answers import Answer, to_output
from fairlead.a2a.remote import Address, NotSent, Question, Remotes
from fairlead.clock import SystemClock
from fairlead.egress import Policy
from fairlead.errors import FairleadError, RetryableError
from fairlead.testing.kubectl import wait_for
from fairlead.testing.remoteagent import TOKEN, RemoteAgent, running_remote_agent


@pytest.fixture(scope="module")
def server() -> Iterator[RemoteAgent]:
    with running_remote_agent() as agent:
        yield agent


@pytest.fixture
def agent(server: RemoteAgent) -> RemoteAgent:
    server.broken, server.token = False, ""
    server.messages.clear()
    server.cancelled.clear()
    server.tokens.clear()
    return server


@pytest.fixture
async def remotes() -> AsyncIterator[Remotes]:
    made = Remotes(Policy(loopback=True), SystemClock())
    yield made
    await made.aclose()


async def ask(remotes: Remotes, address: Address, prompt: str, *, seconds: float = 20, **more: Any) -> Answer:
    card = await remotes.card(address)
    return await remotes.ask(address, card, Question(more.pop("id", "m-1"), (prompt,), **more), seconds=seconds)


async def test_card_is_read(remotes: Remotes, agent: RemoteAgent) -> None:
    card = await remotes.card(Address(f"{agent.url}/ok/"))
    assert (card.name, card.version, card.protocol, card.skills) == ("Weather", "1.2", "1.0", ("forecast",))
    assert (card.url, card.streaming) == (f"{agent.url}/ok", True)


@pytest.mark.parametrize(
    ("mode", "reason", "text"),
    [
        ("missing", "ProtocolError", "HTTP 404"),
        ("html", "InvalidCard", "no JSON"),
        ("list", "InvalidCard", "not what A2A says"),
        ("nameless", "InvalidCard", "no name"),
        ("deep", "InvalidCard", "no JSON"),
        ("huge", "TooLarge", "more than 262144 bytes"),
        ("grpc", "InvalidCard", "it offers GRPC"),
        ("reset", "Unreachable", "failed"),
    ],
)
async def test_card_that_is_none_is_refused(
    remotes: Remotes, agent: RemoteAgent, mode: str, reason: str, text: str
) -> None:
    with pytest.raises(FairleadError, match=text) as caught:
        await remotes.card(Address(f"{agent.url}/{mode}"))
    assert caught.value.reason == reason


async def test_nobody_listens(remotes: Remotes) -> None:
    with pytest.raises(RetryableError) as caught:
        await remotes.card(Address("http://127.0.0.1:9"))
    assert caught.value.reason == "Unreachable"


async def test_address_that_is_not_allowed_is_not_asked(agent: RemoteAgent) -> None:
    remotes, before = Remotes(Policy(), SystemClock()), agent.cards
    with pytest.raises(FairleadError) as caught:
        await remotes.card(Address(f"{agent.url}/ok"))
    await remotes.aclose()
    assert (caught.value.reason, agent.cards) == ("AddressRefused", before)


async def test_token_goes_to_its_own_origin_only(remotes: Remotes, agent: RemoteAgent) -> None:
    address = Address(f"{agent.url}/elsewhere", TOKEN)
    with pytest.raises(FairleadError, match="a token goes to the origin of") as caught:
        await remotes.card(address)
    assert (caught.value.reason, TOKEN in str(caught.value), TOKEN in repr(address)) == ("InvalidCard", False, False)


@pytest.mark.parametrize("mode", ["ok", "polled", "old"])
@pytest.mark.parametrize(
    ("prompt", "output"), [("hello", "heard: hello"), ("say this", "this"), ("pieces", "one two"), ("data", None)]
)
async def test_ask_gives_what_the_agent_made(
    remotes: Remotes, agent: RemoteAgent, mode: str, prompt: str, output: str | None
) -> None:
    answer = await ask(remotes, Address(f"{agent.url}/{mode}"), prompt)
    expected = output or {"kind": "bug", "count": 3}
    assert (answer.state, to_output(answer.parts, wants_value=False)) == ("completed", expected)


@pytest.mark.parametrize(
    ("prompt", "state", "words"),
    [
        ("fail", "failed", "the disk is full"),
        ("reject", "rejected", "not my job"),
        ("ask", "input-required", "which city?"),
    ],
)
async def test_ask_tells_how_a_task_ended(
    remotes: Remotes, agent: RemoteAgent, prompt: str, state: str, words: str
) -> None:
    answer = await ask(remotes, Address(f"{agent.url}/ok"), prompt)
    assert (answer.state, answer.text) == (state, words)
    assert bool(agent.cancelled) == (state == "input-required"), "nobody will answer: the task is told to end"


async def test_ask_shows_its_token_and_learns_the_cost(remotes: Remotes, agent: RemoteAgent) -> None:
    agent.token = TOKEN
    answer = await ask(remotes, Address(f"{agent.url}/ok", TOKEN), "pay")
    assert (answer.cost, agent.tokens) == (Decimal("0.25"), {f"Bearer {TOKEN}"})
    with pytest.raises(FairleadError) as caught:
        await remotes.card(Address(f"{agent.url}/ok", "another"))
    assert caught.value.reason == "AuthenticationFailed"


@pytest.mark.parametrize(
    ("mode", "reason", "retryable"),
    [
        ("error500", "Unreachable", True),
        ("error403", "AuthenticationFailed", False),
        ("babble", "ProtocolError", False),
        ("wrong", "ProtocolError", False),
        ("cut", "Unreachable", True),
        ("endless", "TooLarge", False),
        ("moved", "ProtocolError", False),
    ],
)
async def test_answer_that_is_none_is_a_clear_failure(
    remotes: Remotes, agent: RemoteAgent, mode: str, reason: str, retryable: bool
) -> None:
    with pytest.raises(FairleadError) as caught:
        await ask(remotes, Address(f"{agent.url}/{mode}", TOKEN), "hello")
    assert (caught.value.reason, isinstance(caught.value, RetryableError)) == (reason, retryable)
    assert TOKEN not in str(caught.value)


async def test_answer_that_is_too_large_is_cut_off(remotes: Remotes, agent: RemoteAgent) -> None:
    with pytest.raises(FairleadError) as caught:
        await ask(remotes, Address(f"{agent.url}/ok"), "flood")
    assert caught.value.reason == "TooLarge"


@pytest.mark.parametrize("mode", ["ok", "polled"])
async def test_task_that_takes_too_long_is_cancelled(remotes: Remotes, agent: RemoteAgent, mode: str) -> None:
    with pytest.raises(RetryableError, match="no end within 1 s") as caught:
        await ask(remotes, Address(f"{agent.url}/{mode}"), "wait", seconds=1)
    assert caught.value.reason == "Timeout"
    await asyncio.to_thread(wait_for, "the task to be cancelled", lambda: agent.cancelled)


class WatchedClock(SystemClock):
    """Tells when somebody waits for the next look at a task."""

    def __init__(self) -> None:
        self.slept = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.set()
        await super().sleep(seconds)


async def test_task_that_nobody_waits_for_any_more_is_cancelled(agent: RemoteAgent) -> None:
    clock = WatchedClock()
    remotes = Remotes(Policy(loopback=True), clock)
    asking = asyncio.create_task(ask(remotes, Address(f"{agent.url}/polled"), "wait"))
    async with asyncio.timeout(30):
        await clock.slept.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await remotes.aclose()
    assert agent.cancelled


async def test_ask_tells_when_the_agent_cannot_have_heard(remotes: Remotes, agent: RemoteAgent) -> None:
    card = await remotes.card(Address(f"{agent.url}/ok"))
    card.raw.supported_interfaces[0].url = "http://127.0.0.1:9"
    with pytest.raises(NotSent) as caught:
        await remotes.ask(Address(f"{agent.url}/ok"), card, Question("m", ("hello",)), seconds=20)
    assert caught.value.reason == "Unreachable"
