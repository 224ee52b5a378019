from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fairlead.core.validation import validate_object
from fairlead.errors import InvalidObject, Refused
from fairlead.kube import Ref
from fairlead.services.messages import MAX_PROMPT_BYTES, Message, Messages, State, build_run
from fairlead.services.wakeups import Wakeups
from fairlead.storage.base import Run, RunState
from fairlead.testing.clock import FakeClock
from fairlead.testing.kube import FakeKube
from fairlead.testing.storage import make_run

HELLO = Message("m-1", "", "Say {{ run.uid }} and 'quotes'")
FINAL = {"finished_at": make_run().created_at, "output": "sunny"}


class Records:
    """The runs that storage knows."""

    def __init__(self) -> None:
        self.run: Run | None = None

    async def find_run(self, _cluster: str, _namespace: str, name: str) -> Run | None:
        return self.run if self.run is not None and self.run.name == name else None


class World:
    def __init__(self) -> None:
        self.kube, self.records, clock = FakeKube(), Records(), FakeClock()
        parts: Any = (self.kube, self.records, clock)
        self.wakeups = Wakeups(parts[1], clock, "run")
        self.messages = Messages(*parts, wakeups=self.wakeups, cluster="c")

    async def send(self, message: Message = HELLO, *, by: str = "ada", agent: str = "weather") -> Any:
        return await self.messages.send("n", agent, message, by=by)

    def know(self, task: Any, **fields: Any) -> None:
        """Have the run of a task in storage."""
        given = {"agent": task.agent, "context": task.context, "message": task.message, "prompt": task.prompt}
        self.records.run = replace(make_run(), name=task.name, uid=task.uid, namespace="n", inputs=given, **fields)


async def test_send_makes_one_run_of_the_same_message_of_the_same_sender() -> None:
    world = World()
    first, again = await world.send(), await world.send()
    others = [await world.send(by="bob"), await world.send(agent="sea"), await world.send(replace(HELLO, id="m-2"))]
    assert (first.name, first.state) == (again.name, State.SUBMITTED)
    assert len({first.name, *(task.name for task in others)}) == 4
    assert len(world.kube.objects) == 4


async def test_send_tells_what_became_of_a_message_whose_run_is_gone_from_the_cluster() -> None:
    world = World()
    first = await world.send()
    world.know(first, state=RunState.SUCCEEDED, **FINAL)
    world.kube.objects.clear()
    again = await world.send()
    assert (again.name, again.state, again.output) == (first.name, State.COMPLETED, "sunny")
    assert not world.kube.objects


def test_build_run_is_valid_and_keeps_what_was_said_out_of_expressions() -> None:
    run = build_run("n", "weather", HELLO, by="ada")
    assert [problem.text() for problem in validate_object(run)] == []
    (node,) = run["spec"]["workflow"]["nodes"]
    assert node["agent"] == {"name": "weather", "prompt": "{{ inputs.prompt }}"}
    assert run["spec"]["inputs"]["prompt"] == HELLO.prompt
    assert run["spec"]["inputs"]["context"]


@pytest.mark.parametrize(
    "message",
    [
        replace(HELLO, prompt=" \n"),
        replace(HELLO, prompt="ä" * (MAX_PROMPT_BYTES // 2 + 1)),
        replace(HELLO, id=""),
        replace(HELLO, id="x" * 257),
        replace(HELLO, context="x" * 257),
    ],
    ids=["empty", "long", "no-id", "long-id", "long-context"],
)
async def test_send_refuses_what_cannot_be_kept(message: Message) -> None:
    world = World()
    with pytest.raises(InvalidObject):
        await world.send(message)
    assert not world.kube.objects


@pytest.mark.parametrize(
    ("fields", "state", "words"),
    [
        ({"state": RunState.QUEUED}, State.SUBMITTED, ""),
        ({"state": RunState.QUEUED, "attempt": 1}, State.WORKING, ""),
        ({"state": RunState.RUNNING, "pending_approvals": 1}, State.WORKING, ""),
        (
            {"state": RunState.RUNNING, "pending_approvals": 1, "parked": "Turn"},
            State.INPUT_REQUIRED,
            "fairlead approvals",
        ),
        ({"state": RunState.SUCCEEDED}, State.COMPLETED, ""),
        ({"state": RunState.FAILED, "reason": "NodeFailed", "message": "no"}, State.FAILED, "NodeFailed: no"),
        ({"state": RunState.CANCELLED, "reason": "Cancelled"}, State.CANCELED, "Cancelled"),
    ],
)
async def test_find_tells_how_a_run_stands(fields: dict[str, Any], state: State, words: str) -> None:
    world = World()
    task = await world.send()
    world.know(task, **fields)
    found = await world.messages.find("n", "weather", task.name)
    assert found is not None
    assert (found.state, words in found.words, bool(found.words)) == (state, True, bool(words))


async def test_find_knows_the_tasks_of_the_agent_only() -> None:
    world = World()
    task = await world.send()
    assert await world.messages.find("n", "sea", task.name) is None
    world.know(task)
    assert await world.messages.find("n", "sea", task.name) is None
    assert await world.messages.find("n", "weather", "nightly-report") is None


async def test_find_says_why_a_run_was_refused_before_it_was_in_storage() -> None:
    world = World()
    task = await world.send()
    ref = Ref("fairlead.dev/v1alpha1", "WorkflowRun", task.name, "n")
    refused = {"type": "Succeeded", "status": "False", "reason": "PendingTimeout", "message": "No Model."}
    await world.kube.merge_patch(ref, {"status": {"conditions": [refused]}})
    found = await world.messages.find("n", "weather", task.name)
    assert found is not None
    assert (found.state, found.words) == (State.FAILED, "PendingTimeout: No Model.")


async def allowed() -> None:
    """Let whoever asks go on."""


async def test_follow_ends_when_who_asks_may_not_know_any_more() -> None:
    world = World()
    task = await world.send()

    async def check() -> None:
        raise Refused("you may not", reason="Forbidden")

    following = world.messages.follow(task, check=check)
    assert (await anext(following)).state is State.SUBMITTED
    with pytest.raises(Refused, match="may not"):
        await anext(following)


async def test_follow_ends_with_the_task_or_with_the_process() -> None:
    world = World()
    task = await world.send()
    seen: list[State] = []
    async for now in world.messages.follow(task, check=allowed):
        seen.append(now.state)
        world.know(task, state=RunState.RUNNING if len(seen) == 1 else RunState.SUCCEEDED, attempt=1)
    assert seen == [State.SUBMITTED, State.WORKING, State.COMPLETED]
    world.know(task)
    world.wakeups.close()
    assert [now.state async for now in world.messages.follow(task, check=allowed)] == [State.SUBMITTED]
