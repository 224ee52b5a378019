from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from fairlead.errors import FairleadError, RetryableError, TerminalError
from fairlead.llm.base import AnswerLost, ChatMessage, ChatRequest, Completion, TokenUsage, to_model_error
from fairlead.llm.breaker import FAILURES, OPEN_SECONDS, Breaker, CircuitOpen
from fairlead.llm.limits import Rate, RateLimiter
from fairlead.llm.retrying import Care, Retrying
from fairlead.testing.clock import FakeClock

DONE = Completion("ok", TokenUsage(10, 5), "m")
ASK = ChatRequest((ChatMessage("user", "?"),), timeout_seconds=30)
FAR = 10_000.0


class Plays:
    """A model that does what it is told, one thing after the other; the last one for ever."""

    def __init__(self, *answers: Completion | Exception) -> None:
        self.answers = list(answers)
        self.seconds: list[float] = []

    async def complete(self, request: ChatRequest) -> Completion:
        self.seconds.append(request.timeout_seconds)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """A model with its breaker and limiter on one clock."""

    def __init__(self, *answers: Completion | Exception, jitter: Iterable[float] = (), **care: Any) -> None:
        self.clock = FakeClock()
        self.model = Plays(*answers)
        draws = iter(jitter)
        self.care = Care(Breaker(self.clock), RateLimiter(self.clock), lambda: next(draws, 1.0), **care)

    async def ask(self, request: ChatRequest = ASK, *, within: float = FAR) -> Completion:
        deadline = self.clock.monotonic() + within
        return await Retrying(self.model, self.clock, self.care).complete(request, deadline=deadline)


def down(after: float | None = None) -> FairleadError:
    return to_model_error(503, "down", retry_after=after)


async def test_complete_full_jitter_grows_and_is_bounded() -> None:
    world = World(down(), jitter=[1.0, 0.5, 0.0, 1.0], retries=4)
    with pytest.raises(RetryableError, match=r"^after 5 tries: .*down"):
        await world.ask()
    assert world.clock.slept == [1.0, 1.0, 0.0, 8.0]


async def test_complete_waits_for_an_open_circuit_as_for_a_provider() -> None:
    world = World(*[down()] * FAILURES, DONE, jitter=[0.0] * 10, retries=FAILURES + 1)
    assert (await world.ask()).text == "ok"
    assert world.clock.slept == [0.0] * FAILURES + [OPEN_SECONDS]


async def test_complete_keeps_to_retry_after() -> None:
    limited = to_model_error(429, "slow", retry_after=7)
    world = World(limited, limited, DONE, jitter=[0.25, 0.25])
    done = await world.ask()
    assert (done.text, done.tries) == ("ok", 3)
    assert world.clock.slept == [7.25, 7.5], "never earlier than the provider said, and not all at the same moment"


async def test_complete_does_not_repeat_what_cannot_succeed() -> None:
    world = World(TerminalError("no", reason="AuthenticationFailed"))
    with pytest.raises(TerminalError):
        await world.ask()
    assert world.clock.slept == []


@pytest.mark.parametrize(("after", "within"), [(3600, FAR), (20, 15)], ids=["too-long", "beyond-the-deadline"])
async def test_complete_does_not_wait_in_vain(after: float, within: float) -> None:
    world = World(to_model_error(429, "tomorrow", retry_after=after))
    with pytest.raises(RetryableError) as failed:
        await world.ask(within=within)
    assert (failed.value.retry_after, world.clock.slept) == (after, [])


async def test_complete_a_try_gets_what_is_left_of_the_time() -> None:
    world = World(down(), DONE, jitter=[1.0])
    await world.ask(within=20)
    assert world.model.seconds == [20, 19]


async def test_complete_what_lost_answers_used_is_told() -> None:
    used = TokenUsage(10, 3, estimated=True)
    world = World(AnswerLost(down(), used), AnswerLost(down(), used), DONE)
    assert (await world.ask()).lost == (used, used)

    world = World(AnswerLost(down(), used), TerminalError("no"))
    with pytest.raises(AnswerLost) as failed:
        await world.ask()
    assert (failed.value.lost, str(failed.value.error)) == ((used,), "after 2 tries: no")


async def test_complete_a_budgets_grant_is_for_one_answer() -> None:
    world = World(AnswerLost(down(), TokenUsage(10, 3)), DONE)
    with pytest.raises(AnswerLost):
        await world.ask(replace(ASK, granted_output_tokens=100))
    world = World(down(), DONE)
    assert (await world.ask(replace(ASK, granted_output_tokens=100))).text == "ok", "a refusal has used nothing"


async def test_breaker_opens_then_lets_one_through() -> None:
    world = World(down(), retries=0)
    for _ in range(FAILURES):
        with pytest.raises(RetryableError, match=r"^down$"):
            await world.ask()
    with pytest.raises(CircuitOpen, match=r"5 tries in a row failed, .* down; it is asked again in 30 s") as failed:
        await world.ask()
    assert failed.value.retry_after == OPEN_SECONDS
    assert len(world.model.seconds) == FAILURES, "nobody was asked"

    world.clock.advance(OPEN_SECONDS)
    world.care.breaker.enter()
    with pytest.raises(CircuitOpen):
        await world.ask()
    world.care.breaker.failed(down())
    with pytest.raises(CircuitOpen, match="6 tries"):
        await world.ask()

    world.clock.advance(OPEN_SECONDS)
    world.model.answers = [DONE]
    assert (await world.ask()).text == "ok"
    world.care.breaker.check()


@pytest.mark.parametrize("reason", ["RateLimited", "AuthenticationFailed", "ModelRefused"])
async def test_breaker_counts_only_silence_and_broken_servers(reason: str) -> None:
    world = World(RetryableError("no", reason=reason), retries=0)
    for _ in range(2 * FAILURES):
        with pytest.raises(RetryableError, match="no"):
            await world.ask()


async def test_breaker_does_not_count_a_try_that_had_no_time() -> None:
    world = World(RetryableError("late", reason="Timeout"), retries=0)
    for _ in range(2 * FAILURES):
        with pytest.raises(RetryableError, match="late"):
            await world.ask(within=5)


async def test_breaker_cancelled_probe_makes_room_for_the_next() -> None:
    clock = FakeClock()
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        breaker.failed(down())
    clock.advance(OPEN_SECONDS)
    breaker.enter()
    breaker.left()
    breaker.enter()


async def test_complete_counts_the_tokens_that_were_used() -> None:
    world = World(DONE, rate=Rate(None, 100))
    for _ in range(7):
        await world.ask()
    assert world.clock.slept == [], "fifteen tokens each"
    await world.ask()
    assert world.clock.slept == [60.0]
