"""Calls over a real storage, with a world outside that the test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fairlead.clock import SystemClock
from fairlead.errors import InvalidObject, Refused, RetryableError, TerminalError, Unavailable
from fairlead.services.calls import Calls, NonDeterministic
from fairlead.services.outcomes import Outcome, build_answer
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.services.wakeups import Wakeups
from fairlead.storage import Storage
from fairlead.storage.base import BudgetLine, CallIntent, CallState, Fence, Fenced, QueuedTask, Reservation
from fairlead.testing.clock import FakeClock
from fairlead.testing.storage import NOW, make_revision, make_run, make_session, make_task, sqlite_storage
from fairlead_agent.protocol import (
    AgentRequest,
    Call,
    CallReply,
    CodeRequest,
    LlmRequest,
    Message,
    ToolRequest,
    Usage,
    call_key,
)

SPEC = {
    "model": "default",
    "nodes": [
        {"name": "ask", "llm": {"prompt": "?"}},
        {"name": "use", "tool": {"name": "sql", "arguments": {}}},
        {"name": "run", "code": {"language": "python", "source": "1"}},
        {"name": "abroad", "agent": {"name": "theirs", "prompt": "?"}},
    ],
}
THEIRS = {"theirs": {"external": {"url": "https://a.example"}}}


@dataclass
class Outside:
    """Models and tools: they answer when `go` is set."""

    asked: int = 0
    answer: Outcome | Exception = field(
        default_factory=lambda: Outcome(CallReply(result="42", usage=Usage(input_tokens=3)), cost=5, priced=True)
    )
    go: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    reservation: Reservation | None = None
    idempotent: bool = True
    granted: int | None = None

    def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation | None:
        del context, request
        return self.reservation

    def is_idempotent(self, context: TaskContext, request: ToolRequest) -> bool:
        del context, request
        return self.idempotent

    async def ask(
        self, context: TaskContext, request: LlmRequest, *, timeout_seconds: float, max_output_tokens: int | None
    ) -> Outcome:
        del context, request, timeout_seconds
        self.granted = max_output_tokens
        self.asked += 1
        self.started.set()
        await self.go.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def may_repeat(self, context: TaskContext, node: str) -> bool:
        del context, node
        return self.idempotent

    async def run(self, context: TaskContext, node: str, request: CodeRequest) -> Outcome:
        del request
        return await self.ask(context, LlmRequest(model=node, messages=()), timeout_seconds=1, max_output_tokens=None)

    async def use(self, context: TaskContext, request: ToolRequest, *, timeout_seconds: float) -> Outcome:
        asked = LlmRequest(model=request.name, messages=())
        return await self.ask(context, asked, timeout_seconds=timeout_seconds, max_output_tokens=None)


class Abroad:
    """Agents that someone else runs."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.sent: list[tuple[str, str]] = []

    def reserve(self, context: TaskContext, request: AgentRequest) -> None:
        del context, request

    async def ask(
        self, context: TaskContext, request: AgentRequest, *, intent: CallIntent, timeout_seconds: float
    ) -> Outcome:
        self.sent.append((intent.task_id, intent.key))
        asked = LlmRequest(model=request.name, messages=())
        return await self.outside.ask(context, asked, timeout_seconds=timeout_seconds, max_output_tokens=None)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with sqlite_storage(tmp_path) as opened:
        bare = make_revision(**SPEC)
        revision = replace(bare, document={**bare.document, "agents": THEIRS})
        await opened.submit(make_run(revision=revision.digest), revision=revision, task=make_task())
        yield opened


async def claim(storage: Storage, pod: str = "pod-1") -> Fence:
    session = make_session(pod)
    await storage.register(session, at=NOW)
    (claimed,) = await storage.claim(session, limit=1, at=NOW)
    return Fence(claimed.task.id, session.id, claimed.task.attempt)


def calls(
    storage: Storage,
    outside: Outside,
    *,
    gateway: str = "gateway-1",
    clock: Any = None,
    wakeups: Wakeups | None = None,
) -> Calls:
    now = clock or SystemClock()
    told = wakeups or Wakeups(storage, now, "budget")
    return Calls(
        storage,
        now,
        gateway=gateway,
        tasks=Tasks(storage),
        models=outside,
        tools=outside,
        programs=outside,
        agents=Abroad(outside),
        wakeups=told,
    )


def ask(fence: Fence, **changes: Any) -> Call:
    request = LlmRequest(model="default", messages=(Message(role="user", content="?"),))
    values = {
        "attempt": fence.attempt,
        "key": call_key("ask", None, 1, 1, 1),
        "digest": "d",
        "action": "llm",
        "node": "ask",
        "llm": request,
    }
    return Call(**values | changes)


def open_world(**changes: Any) -> Outside:
    world = Outside(**changes)
    world.go.set()
    return world


async def test_call_commits_the_intent_before_it_is_sent(storage: Storage) -> None:
    outside = Outside()
    fence = await claim(storage)
    calling = asyncio.create_task(calls(storage, outside).call(fence, ask(fence)))
    await outside.started.wait()

    record = await storage.get_call(fence.task_id, "ask/-/1/1/1")

    assert record is not None
    assert (record.state, record.intent.gateway, record.intent.target) == (CallState.INTENT, "gateway-1", "default")
    outside.go.set()
    assert (await calling).result == "42"
    record = await storage.get_call(fence.task_id, "ask/-/1/1/1")
    assert record is not None
    assert record.state is CallState.DONE
    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.input_tokens, run.cost) == (3, 5)


async def test_call_again_is_answered_from_the_record(storage: Storage) -> None:
    outside = open_world()
    fence = await claim(storage)
    made = calls(storage, outside)
    first, second = await made.call(fence, ask(fence)), await made.call(fence, ask(fence))
    assert (first.replayed, second.replayed, second.result, outside.asked) == (False, True, "42", 1)


async def test_call_of_the_next_attempt_joins_the_one_in_flight(storage: Storage) -> None:
    outside = Outside()
    made = calls(storage, outside)
    old = await claim(storage)
    lost = asyncio.create_task(made.call(old, ask(old)))
    await outside.started.wait()
    await storage.requeue_pod("pod-1-uid", at=NOW)
    new = await claim(storage, "pod-2")
    joined = asyncio.create_task(made.call(new, ask(new)))
    outside.go.set()

    assert (await joined).result == "42"
    assert new.attempt == old.attempt + 1
    assert outside.asked == 1
    await lost


async def test_call_of_an_attempt_that_is_over_is_fenced(storage: Storage) -> None:
    outside = open_world()
    made = calls(storage, outside)
    old = await claim(storage)
    await storage.requeue_pod("pod-1-uid", at=NOW)
    await claim(storage, "pod-2")
    with pytest.raises(Fenced):
        await made.call(old, ask(old))
    assert outside.asked == 0


async def test_call_that_is_hung_up_on_goes_on_and_is_kept(storage: Storage) -> None:
    outside = Outside()
    made = calls(storage, outside)
    fence = await claim(storage)
    calling = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)

    outside.go.set()

    assert (await made.call(fence, ask(fence))).result == "42"
    assert outside.asked == 1


async def test_call_many_at_once_is_sent_once(storage: Storage) -> None:
    outside = Outside()
    made = calls(storage, outside)
    fence = await claim(storage)
    asking = [asyncio.create_task(made.call(fence, ask(fence))) for _ in range(8)]
    await outside.started.wait()
    outside.go.set()
    assert {reply.result for reply in await asyncio.gather(*asking)} == {"42"}
    assert outside.asked == 1


async def test_call_with_another_digest_is_refused(storage: Storage) -> None:
    outside = open_world()
    fence = await claim(storage)
    made = calls(storage, outside)
    await made.call(fence, ask(fence))
    with pytest.raises(NonDeterministic):
        await made.call(fence, ask(fence, digest="other"))


async def test_call_that_failed_is_answered_with_its_failure(storage: Storage) -> None:
    outside = open_world(answer=RetryableError("slow down", reason="RateLimited", retry_after=9))
    fence = await claim(storage)
    made = calls(storage, outside)
    reply = await made.call(fence, ask(fence))
    assert reply.error is not None
    assert (reply.error.reason, reply.error.retryable, reply.error.retry_after_seconds) == ("RateLimited", True, 9)
    again = await made.call(fence, ask(fence))
    assert again.error == reply.error
    assert outside.asked == 1


async def test_call_that_breaks_is_a_failure_without_its_text(storage: Storage) -> None:
    outside = open_world(answer=ValueError("sk-canary-001122"))
    fence = await claim(storage)
    reply = await calls(storage, outside).call(fence, ask(fence))
    assert reply.error is not None
    assert (reply.error.reason, reply.error.retryable) == ("InternalError", False)
    assert "canary" not in reply.error.message


async def test_call_that_takes_too_long_times_out(storage: Storage) -> None:
    fence = await claim(storage)
    reply = await calls(storage, Outside()).call(fence, ask(fence, timeout_seconds=0.05))
    assert reply.error is not None
    assert reply.error.reason == "Timeout"


async def test_call_lost_with_its_gateway_is_repeated_and_marked(storage: Storage) -> None:
    clock = FakeClock()
    fence = await claim(storage)
    lost = Outside()
    dead = calls(storage, lost, gateway="gateway-dead")
    dying = asyncio.create_task(dead.call(fence, ask(fence)))
    await lost.started.wait()
    await storage.beat_gateway("gateway-dead", at=clock.now())
    dying.cancel()
    outside = open_world()

    reply = await calls(storage, outside, gateway="gateway-2", clock=clock).call(fence, ask(fence))

    assert reply.result == "42"
    assert 6 <= sum(clock.slept) <= 7
    record = await storage.get_call(fence.task_id, "ask/-/1/1/1")
    assert record is not None
    assert (record.repeats, record.intent.gateway) == (1, "gateway-2")
    (span,) = await storage.spans_of_run("run-1")
    assert span.attributes["fairlead.repeats"] == 1
    await dead.drain(0)


async def test_call_of_an_external_agent_is_repeated_as_the_same_message(storage: Storage) -> None:
    fence, request = await claim(storage), AgentRequest(name="theirs", prompt="?")
    key = call_key("abroad", None, 1, 1, 0)
    asked = Call(attempt=1, key=key, digest="d", action="agent", node="abroad", agent=request)
    lost, clock = Outside(), FakeClock()
    dead = calls(storage, lost, gateway="gateway-dead")
    dying = asyncio.create_task(dead.call(fence, asked))
    await lost.started.wait()
    await storage.beat_gateway("gateway-dead", at=clock.now())
    dying.cancel()
    living = calls(storage, open_world(), gateway="gateway-2", clock=clock)

    reply = await living.call(fence, asked)

    assert (reply.error, reply.result) == (None, "42")
    assert dead._agents.sent == living._agents.sent == [(fence.task_id, key)]  # type: ignore[attr-defined]  # fakes
    (span,) = await storage.spans_of_run("run-1")
    assert (span.name, span.attributes["fairlead.repeats"]) == ("invoke_agent theirs", 1)
    await dead.drain(0)


async def test_call_of_a_living_gateway_is_waited_for(storage: Storage) -> None:
    class Beating(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await storage.beat_gateway("gateway-1", at=self.now())
            await super().sleep(seconds)
            if len(self.slept) == 100:
                answer = build_answer(Outcome(CallReply(result="theirs")), at=self.now())
                await storage.finish_call(fence.task_id, "ask/-/1/1/1", answer, span=None)

    fence = await claim(storage)
    theirs = Outside()
    first = calls(storage, theirs, gateway="gateway-1")
    calling = asyncio.create_task(first.call(fence, ask(fence)))
    await theirs.started.wait()
    await storage.beat_gateway("gateway-1", at=NOW)
    outside = open_world()

    reply = await calls(storage, outside, gateway="gateway-2", clock=Beating()).call(fence, ask(fence))

    assert (reply.result, reply.replayed, outside.asked) == ("theirs", True, 0)
    await first.drain(0)
    await asyncio.gather(calling, return_exceptions=True)


async def test_drain_lets_calls_finish(storage: Storage) -> None:
    outside = Outside()
    made = calls(storage, outside)
    fence = await claim(storage)
    calling = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    draining = asyncio.create_task(made.drain(10))
    outside.go.set()
    await draining
    assert (await calling).result == "42"


async def test_drain_leaves_what_does_not_finish_as_an_intent(storage: Storage) -> None:
    outside = Outside()
    made = calls(storage, outside)
    fence = await claim(storage)
    calling = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    await made.drain(0.01)
    with pytest.raises(Unavailable, match="ending"):
        await calling
    record = await storage.get_call(fence.task_id, "ask/-/1/1/1")
    assert record is not None
    assert record.state is CallState.INTENT


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        pytest.param({"node": "other", "key": "other/-/1/1/1"}, Refused, id="unknown-node"),
        pytest.param({"llm": LlmRequest(model="dear", messages=())}, Refused, id="other-model"),
        pytest.param({"action": "tool"}, InvalidObject, id="request-of-another-action"),
        pytest.param({"key": "ask/=1/1/1/1"}, InvalidObject, id="key-of-another-item"),
        pytest.param({"key": "use/-/1/1/1"}, InvalidObject, id="key-of-another-node"),
        pytest.param({"key": "ask/-/1/1/x"}, InvalidObject, id="key-without-number"),
        pytest.param(
            {
                "node": "use",
                "key": "use/-/1/1/1",
                "action": "tool",
                "llm": None,
                "tool": ToolRequest(name="http_request"),
            },
            Refused,
            id="other-tool",
        ),
    ],
)
async def test_call_that_the_workflow_does_not_make_is_refused(
    storage: Storage, changes: dict[str, Any], kind: type[Exception]
) -> None:
    outside = open_world()
    fence = await claim(storage)
    with pytest.raises(kind):
        await calls(storage, outside).call(fence, ask(fence, **changes))
    assert outside.asked == 0


async def test_call_secrets_in_the_request_are_not_kept(storage: Storage) -> None:
    fence = await claim(storage)
    arguments = {"headers": {"Authorization": "Bearer abcdefgh-canary", "X-Api-Key": "canary"}, "n": 1}
    request = ToolRequest(name="sql", arguments=arguments)
    changes: dict[str, Any] = {"node": "use", "key": "use/-/1/1/1", "action": "tool", "llm": None, "tool": request}
    await calls(storage, open_world()).call(fence, ask(fence, **changes))
    (record,) = await storage.calls_of_run("run-1")
    assert "canary" not in str(record.intent.request)
    assert record.intent.request["arguments"]["n"] == 1


async def test_call_answer_is_kept_until_storage_takes_it(storage: Storage) -> None:
    class Flaky:
        left = 3

        def __getattr__(self, name: str) -> Any:
            return getattr(storage, name)

        async def finish_call(self, *arguments: Any, **more: Any) -> None:
            self.left -= 1
            if self.left >= 0:
                raise Unavailable("the disk is full")
            await storage.finish_call(*arguments, **more)

    fence = await claim(storage)
    outside = open_world()
    flaky: Any = Flaky()
    reply = await calls(flaky, outside, clock=FakeClock()).call(fence, ask(fence))
    assert (reply.result, outside.asked, flaky.left) == ("42", 1, -1)


async def test_call_of_another_run_has_its_own_answer(storage: Storage) -> None:
    revision = make_revision(**SPEC)
    task = QueuedTask("other-task", "run-2", make_task().pool)
    await storage.submit(replace(make_run("run-2"), revision=revision.digest), revision=revision, task=task)
    outside = open_world()
    made = calls(storage, outside)
    first, second = await claim(storage, "pod-1"), await claim(storage, "pod-2")
    await made.call(first, ask(first))
    assert not (await made.call(second, ask(second))).replayed
    assert outside.asked == 2


async def test_call_by_a_stranger_learns_nothing_of_the_workflow(storage: Storage) -> None:
    made = calls(storage, open_world())
    fence = await claim(storage)
    await made.call(fence, ask(fence))  # the gateway knows the task now
    stranger = replace(fence, session="another")
    with pytest.raises(Fenced):
        await made.call(stranger, ask(fence, node="absent", key="absent/-/1/1/1"))


def reservation(*, limit: int, output: int = 100) -> Reservation:
    """Return what a call may take at worst: 10 tokens of input and *output*, of a budget of *limit* tokens."""
    line = BudgetLine("run/run-1", "", max_tokens=limit, name="the run's budget")
    return Reservation((line,), input_tokens=10, input_cost=0, output_tokens=output, least_output_tokens=50)


async def test_call_is_granted_what_the_budget_leaves(storage: Storage) -> None:
    outside = open_world(reservation=reservation(limit=70))
    fence = await claim(storage)
    reply = await calls(storage, outside).call(fence, ask(fence))
    assert (reply.error, outside.granted) == (None, 60)


async def test_call_over_budget_is_not_sent_and_says_what_was_spent(storage: Storage) -> None:
    used = Outcome(CallReply(usage=Usage(input_tokens=10, output_tokens=45)), cost=0, priced=True)
    outside = open_world(answer=used, reservation=reservation(limit=60))
    fence = await claim(storage)
    made = calls(storage, outside)
    await made.call(fence, ask(fence))

    reply = await made.call(fence, ask(fence, key="ask/-/1/1/2"))

    assert reply.error is not None
    assert (reply.error.reason, reply.error.retryable, outside.asked) == ("BudgetExceeded", False, 1)
    assert "55 tokens of 60 tokens" in reply.error.message
    assert await storage.get_call(fence.task_id, "ask/-/1/1/2") is None


async def test_call_waits_while_calls_in_flight_hold_the_budget(storage: Storage) -> None:
    used = Outcome(CallReply(result="42", usage=Usage(input_tokens=1)), cost=0, priced=True)
    outside = Outside(answer=used, reservation=reservation(limit=61))
    fence = await claim(storage)
    wakeups = Wakeups(storage, SystemClock(), "budget")
    listening = asyncio.create_task(wakeups.run())
    made = calls(storage, outside, wakeups=wakeups)
    first = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    second = asyncio.create_task(made.call(fence, ask(fence, key="ask/-/1/1/2")))
    await asyncio.wait((second,), timeout=0.2)
    assert (second.done(), outside.asked) == (False, 1)

    outside.go.set()

    assert [(await asyncio.wait_for(calling, 20)).result for calling in (first, second)] == ["42", "42"]
    listening.cancel()


async def test_call_waits_for_its_budget_no_longer_than_it_has_time(storage: Storage) -> None:
    outside = Outside(reservation=reservation(limit=61))
    fence = await claim(storage)
    made = calls(storage, outside)
    first = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    late = await made.call(fence, ask(fence, key="ask/-/1/1/2", timeout_seconds=0.2))
    assert late.error is not None
    assert (late.error.reason, outside.asked) == ("BudgetExceeded", 1)
    assert "reserved by calls in flight" in late.error.message
    outside.go.set()
    await first


@pytest.mark.parametrize(("limit", "asked", "spent"), [(120, 1, 63), (119, 0, 60)])
async def test_call_lost_with_its_gateway_is_repeated_only_if_the_budget_allows_both(
    storage: Storage, limit: int, asked: int, spent: int
) -> None:
    clock = FakeClock()
    fence = await claim(storage)
    worst = reservation(limit=limit, output=50)
    lost = Outside(reservation=worst)
    dead = calls(storage, lost, gateway="gateway-dead")
    dying = asyncio.create_task(dead.call(fence, ask(fence)))
    await lost.started.wait()
    await storage.beat_gateway("gateway-dead", at=clock.now())
    dying.cancel()
    outside = open_world(reservation=worst)

    reply = await calls(storage, outside, gateway="gateway-2", clock=clock).call(fence, ask(fence))

    assert (reply.error is None, outside.asked) == (bool(asked), asked)
    assert reply.error is None or (reply.error.reason, reply.error.retryable) == ("BudgetExceeded", False)
    (line,) = await storage.spent(worst.lines)
    assert (line.tokens, line.reserved_tokens) == (spent, 0)
    record = await storage.get_call(fence.task_id, "ask/-/1/1/1")
    assert record is not None
    assert (record.state, record.repeats) == (CallState.DONE, asked)
    await dead.drain(0)


@pytest.mark.parametrize(
    ("outside", "changes", "spent"),
    [
        pytest.param(Outside, {"timeout_seconds": 0.05}, 60, id="timed-out"),
        pytest.param(lambda: open_world(answer=ValueError("?")), {}, 60, id="broke"),
        pytest.param(lambda: open_world(answer=TerminalError("no")), {}, 0, id="refused"),
    ],
)
async def test_call_that_nobody_saw_answered_counts_at_its_worst(
    storage: Storage, outside: Any, changes: dict[str, Any], spent: int
) -> None:
    world = outside()
    world.reservation = reservation(limit=1000, output=50)
    fence = await claim(storage)
    reply = await calls(storage, world).call(fence, ask(fence, **changes))
    assert reply.error is not None
    (line,) = await storage.spent(world.reservation.lines)
    assert (line.tokens, line.reserved_tokens) == (spent, 0)


async def test_call_that_is_answered_needs_no_price_any_more(storage: Storage) -> None:
    class Forgetful(Outside):
        def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation | None:
            del context, request
            if self.asked:
                raise TerminalError("nobody knows the price", reason="PriceUnknown")
            return None

    outside = Forgetful()
    outside.go.set()
    fence = await claim(storage)
    made = calls(storage, outside)
    first, second = await made.call(fence, ask(fence)), await made.call(fence, ask(fence))
    assert (first.result, second.result, second.replayed, outside.asked) == ("42", "42", True, 1)


async def test_call_whose_budget_cannot_be_kept_is_not_sent(storage: Storage) -> None:
    class Unpriced(Outside):
        def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation | None:
            del context, request
            raise TerminalError("nobody knows the price", reason="PriceUnknown")

    outside = Unpriced()
    fence = await claim(storage)
    reply = await calls(storage, outside).call(fence, ask(fence))
    assert reply.error is not None
    assert (reply.error.reason, reply.error.retryable, outside.asked) == ("PriceUnknown", False, 0)


TOOL_CALL: dict[str, Any] = {"node": "use", "action": "tool", "tool": ToolRequest(name="sql", arguments={})}
CODE_CALL: dict[str, Any] = {"node": "run", "action": "code", "code": CodeRequest(inputs={"x": 1})}


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("made", [pytest.param(TOOL_CALL, id="tool"), pytest.param(CODE_CALL, id="program")])
async def test_call_lost_with_its_gateway(storage: Storage, made: dict[str, Any], *, idempotent: bool) -> None:
    clock = FakeClock()
    fence = await claim(storage)
    key = call_key(made["node"], None, 1, 1, 1)
    changes: dict[str, Any] = {"llm": None, "key": key, **made}
    lost = Outside()
    dead = calls(storage, lost, gateway="gateway-dead")
    dying = asyncio.create_task(dead.call(fence, ask(fence, **changes)))
    await lost.started.wait()
    await storage.beat_gateway("gateway-dead", at=clock.now())
    dying.cancel()
    outside = open_world(idempotent=idempotent)

    reply = await calls(storage, outside, gateway="gateway-2", clock=clock).call(fence, ask(fence, **changes))

    assert outside.asked == int(idempotent)
    assert (reply.error is None) is idempotent
    assert reply.error is None or (reply.error.reason, reply.error.retryable) == ("OutcomeUnknown", False)
    lost.go.set()
    await dead.drain(5)
    record = await storage.get_call(fence.task_id, key)
    assert record is not None
    assert record.answer is not None
    assert record.repeats == int(idempotent)
    assert ("error" in record.answer.reply) is not idempotent, "what the dead one says later changes nothing"


async def test_call_of_a_program_keeps_what_was_run(storage: Storage) -> None:
    fence = await claim(storage)
    changes = {"llm": None, "key": call_key("run", None, 1, 1, 1), **CODE_CALL}
    await calls(storage, open_world()).call(fence, ask(fence, **changes))
    record = await storage.get_call(fence.task_id, changes["key"])
    assert record is not None
    assert (record.intent.action, record.intent.target) == ("code", "python")
    assert record.intent.request == {"inputs": {"x": 1}, "language": "python", "source": "1"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"node": "use", "key": "use/-/1/1/1"}, Refused, id="of-a-node-that-runs-none"),
        pytest.param({"tool": ToolRequest(name="sql")}, InvalidObject, id="with-a-tool"),
        pytest.param({"code": None}, InvalidObject, id="without-a-program"),
    ],
)
async def test_call_of_a_program_that_nobody_wrote(storage: Storage, changes: dict[str, Any], error: type) -> None:
    fence, outside = await claim(storage), open_world()
    wanted = {"llm": None, "key": call_key("run", None, 1, 1, 1), **CODE_CALL, **changes}
    with pytest.raises(error):
        await calls(storage, outside).call(fence, ask(fence, **wanted))
    assert outside.asked == 0


async def test_call_answer_that_cannot_be_kept_is_a_failure_and_not_asked_for_again(storage: Storage) -> None:
    answer = Outcome(CallReply(result=2**70, usage=Usage(input_tokens=3)), cost=5, priced=True)
    outside = open_world(answer=answer)
    fence = await claim(storage)
    made = calls(storage, outside)
    first, second = await made.call(fence, ask(fence)), await made.call(fence, ask(fence))
    assert first.error is not None
    assert (first.error, first.error.retryable, outside.asked) == (second.error, False, 1)
    run = await storage.get_run("run-1")
    assert run is not None
    assert run.cost == 5, "it was paid for"
