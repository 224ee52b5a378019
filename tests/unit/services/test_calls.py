"""Calls over a real storage, with a world outside that the test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import InvalidObject, Refused, RetryableError, Unavailable
from fairlead.services.calls import NonDeterministic
from fairlead.services.outcomes import Outcome
from fairlead.storage import Storage
from fairlead.storage.base import (
    CallState,
    Effects,
    Fence,
    Fenced,
    NodeRecord,
    QueuedTask,
    RunEnd,
    RunState,
)
from fairlead.testing.clock import FakeClock
from fairlead.testing.outside import CODE_CALL, SPEC, Outside, ask, calls, claim, open_world, queued_run
from fairlead.testing.storage import NOW, make_revision, make_run, make_task
from fairlead_agent.protocol import (
    CallReply,
    LlmRequest,
    ToolRequest,
    Usage,
    call_key,
)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with queued_run(tmp_path) as opened:
        yield opened


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


@pytest.mark.parametrize("levels", [150, 300])
async def test_call_whose_answer_cannot_be_kept_is_paid_for_once_and_says_so(storage: Storage, levels: int) -> None:
    deep: Any = 1
    for _ in range(levels):
        deep = {"a": deep}
    outside = open_world()
    outside.answer = Outcome(CallReply(result=deep, usage=Usage(input_tokens=3)), cost=5, priced=True)
    fence, made = await claim(storage), calls(storage, outside)

    replies = [await made.call(fence, ask(fence)) for _ in range(2)]

    assert {reply.error.reason for reply in replies if reply.error} == {"TooLarge"}
    assert outside.asked == 1
    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.input_tokens, run.cost) == (3, 5)


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


async def ended(storage: Storage, fence: Fence, *, node: str) -> None:
    """Commit that a node has ended; the run goes on."""
    record = NodeRecord(run_uid="run-1", node=node, item="", iteration=1, state="Cancelled", finished_at=NOW)
    entry = {"kind": "NodeFinished", "node": node}
    await storage.append(fence, first=0, entries=[entry], effects=Effects(nodes=(record,)), at=NOW)


@pytest.mark.parametrize("whole_run", [True, False], ids=["run", "node"])
async def test_call_of_a_program_ends_with_what_wanted_it(storage: Storage, *, whole_run: bool) -> None:
    fence, outside, key = await claim(storage), Outside(), call_key("run", None, 1, 1, 1)
    made = calls(storage, outside, clock=FakeClock(NOW))
    calling = asyncio.create_task(made.call(fence, ask(fence, llm=None, key=key, **CODE_CALL)))
    await outside.started.wait()
    beating = asyncio.create_task(made.beat())
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert not calling.done()

    if whole_run:
        await storage.end_run("run-1", RunEnd(RunState.CANCELLED, "Stopped", "", None, NOW))
    else:
        await ended(storage, fence, node="run")

    reply = await calling
    beating.cancel()
    assert reply.error is not None
    assert reply.error.reason == "Cancelled"
    record = await storage.get_call(fence.task_id, key)
    assert record is not None
    assert record.state is CallState.DONE


async def test_call_of_a_model_is_waited_for_when_its_run_has_ended(storage: Storage) -> None:
    fence, outside = await claim(storage), Outside()
    made = calls(storage, outside, clock=FakeClock(NOW))
    calling = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    await storage.end_run("run-1", RunEnd(RunState.CANCELLED, "Stopped", "", None, NOW))
    beating = asyncio.create_task(made.beat())
    for _ in range(50):
        await asyncio.sleep(0.001)
    beating.cancel()
    outside.go.set()
    assert (await calling).result == "42"
    run = await storage.get_run("run-1")
    assert run is not None
    assert run.cost == 5
