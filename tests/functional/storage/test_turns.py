from __future__ import annotations

from datetime import timedelta

import pytest

from fairlead.core import names
from fairlead.storage import Storage
from fairlead.storage.base import (
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    ApprovalState,
    Effects,
    Event,
    Fence,
    Fenced,
    RunState,
    Signal,
    TaskState,
)
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, POOL, claim, make_approval, make_turn, start_run

OWN = names.run_pool(CLUSTER, NAMESPACE, "run-1")
LATER = NOW + timedelta(minutes=5)
ANSWER = {"output": {"cause": "a typo"}}
TURN = make_turn()


async def states(storage: Storage) -> list[TaskState]:
    return [task.state for task in await storage.tasks_of_run("run-1")]


async def test_start_turn_is_a_task_of_the_same_run_in_another_pool(storage: Storage) -> None:
    fence = await start_run(storage)

    assert await storage.start_turn(fence, make_turn(deadline=LATER))

    turn_fence, claimed = await claim(storage, "pod-2")
    task, run = claimed.task, claimed.run
    assert (task.id, task.run_uid, task.kind, task.parent, task.key) == (
        TURN.id,
        "run-1",
        "turn",
        "run-1-task",
        TURN.key,
    )
    assert (task.request, task.deadline, claimed.journal) == ({"prompt": "Fix it."}, LATER, ())
    assert (run.pod, run.attempt) == ("run-1-pod", 1), "the run's own pod is shown"
    assert await storage.check_fence(turn_fence) == task


async def test_start_turn_again_changes_nothing(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.start_turn(fence, TURN)

    assert not await storage.start_turn(fence, make_turn(id="another", request={}))

    assert len(await storage.tasks_of_run("run-1")) == 2
    assert await storage.queue_depths(CLUSTER) == {OWN: (0, 1), POOL: (1, 0)}


async def test_start_turn_by_who_lost_the_claim_is_fenced(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.requeue_pod("run-1-pod-uid", at=NOW)

    with pytest.raises(Fenced):
        await storage.start_turn(fence, TURN)
    with pytest.raises(Fenced):
        await storage.cancel_turns(fence, keys=[TURN.key], at=NOW)

    assert len(await storage.tasks_of_run("run-1")) == 1


async def test_end_of_a_turn_is_a_signal_to_the_parent(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.start_turn(fence, TURN)
    await storage.park(fence, keys=[TURN.key], wake_at=None, reason="Turn", at=NOW)
    turn_fence, _ = await claim(storage, "pod-2")
    events = storage.subscribe("signal")
    entries, effects = [{"kind": "TurnFinished"}], Effects(turn=ANSWER)

    assert (await storage.append(turn_fence, first=0, entries=entries, effects=effects, at=LATER)).length == 1
    assert (await storage.append(turn_fence, first=0, entries=entries, effects=effects, at=LATER)).length == 1

    assert await states(storage) == [TaskState.QUEUED, TaskState.DONE]
    assert await anext(events) == Event("signal", "run-1-task")
    _, claimed = await claim(storage, "pod-3", pool=OWN)
    assert claimed.signals == (Signal("run-1-task", TURN.key, ANSWER, LATER),)
    assert claimed.journal == (), "a turn has a journal of its own"
    assert [entry["kind"] for entry in await storage.journal(TURN.id)] == ["TurnFinished"]
    with pytest.raises(Fenced):
        await storage.check_fence(turn_fence)
    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.state, run.parked) == (RunState.RUNNING, "")


async def test_a_turn_that_parks_leaves_the_run_as_it_is_shown(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.start_turn(fence, TURN)
    turn_fence, _ = await claim(storage, "pod-2")

    await storage.park(turn_fence, keys=["k"], wake_at=None, reason="Approval", at=NOW)

    run = await storage.get_run("run-1")
    assert run is not None
    assert run.parked == ""
    assert await states(storage) == [TaskState.CLAIMED, TaskState.PARKED]
    await storage.signal(Signal(TURN.id, "k", {}, NOW))
    assert await states(storage) == [TaskState.CLAIMED, TaskState.QUEUED]


async def test_a_turn_whose_pods_are_lost_answers_with_an_error(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.start_turn(fence, TURN)
    for number in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        assert await storage.signals_of_task("run-1-task") == []
        await claim(storage, f"pod-{number}")
        assert await storage.requeue_pod(f"pod-{number}-uid", at=LATER) == ["run-1"]

    [signal] = await storage.signals_of_task("run-1-task")
    assert signal.key == TURN.key
    assert signal.value["error"]["reason"] == "AttemptsExhausted"
    assert await states(storage) == [TaskState.CLAIMED, TaskState.DONE]
    assert (await storage.check_fence(fence)).state is TaskState.CLAIMED, "the run goes on"


async def test_a_turn_of_a_run_that_is_being_cancelled_ends_with_its_pod(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.start_turn(fence, TURN)
    turn_fence, _ = await claim(storage, "pod-2")
    await storage.cancel_run("run-1", reason="Stopped", message="", at=NOW, handlers=True)

    await storage.release(turn_fence, at=LATER)

    [signal] = await storage.signals_of_task("run-1-task")
    assert signal.value["error"]["reason"] == "Stopped"
    assert await states(storage) == [TaskState.CLAIMED, TaskState.DONE]


async def test_cancel_turns_ends_only_those(storage: Storage) -> None:
    fence = await start_run(storage)
    for key in ("a/-/1/1/0", "b/-/1/1/0"):
        await storage.start_turn(fence, make_turn(key))
    turn_fence, claimed = await claim(storage, "pod-2")
    assert claimed.task.key == "a/-/1/1/0"
    await storage.open_approval(turn_fence, make_approval("ask", task_id=turn_fence.task_id))

    await storage.cancel_turns(fence, keys=["a/-/1/1/0", "unknown"], at=LATER)

    assert await states(storage) == [TaskState.CLAIMED, TaskState.DONE, TaskState.QUEUED]
    assert await storage.signals_of_task("run-1-task") == []
    assert [one.state for one in await storage.approvals_of_run("run-1")] == [ApprovalState.CANCELLED]
    run = await storage.get_run("run-1")
    assert run is not None
    assert run.pending_approvals == 0
    assert await storage.tasks_of_pod("pod-2-uid") == []
    with pytest.raises(Fenced):
        await storage.append(turn_fence, first=0, entries=[{"kind": "X"}], effects=Effects(turn={}), at=NOW)


async def test_a_pod_may_hold_turns_of_a_run_and_lose_them_all(storage: Storage) -> None:
    fence = await start_run(storage)
    for number in range(3):
        await storage.start_turn(fence, make_turn(f"k{number}"))
    _, first = await claim(storage, "pod-2")
    session = first.task.session
    found = await storage.tasks_of_pod("pod-2-uid")
    assert [task.session for task in found] == [session]

    assert await storage.requeue_pod("pod-2-uid", at=NOW) == ["run-1"]

    assert await storage.queue_depths(CLUSTER) == {OWN: (0, 1), POOL: (3, 0)}
    with pytest.raises(Fenced):
        await storage.check_fence(Fence(first.task.id, session, 1))
