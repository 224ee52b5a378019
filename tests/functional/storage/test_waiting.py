from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fairlead.core import names
from fairlead.storage import Storage
from fairlead.storage.base import (
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    Effects,
    Event,
    Fence,
    Fenced,
    Run,
    RunEnd,
    RunState,
    Signal,
    Task,
    TaskState,
)
from fairlead.testing.storage import (
    CLUSTER,
    NAMESPACE,
    NOW,
    claim,
    make_revision,
    make_run,
    make_session,
    make_task,
    make_turn,
    start_run,
)
from fairlead_agent.protocol import RESUME

OWN = names.run_pool(CLUSTER, NAMESPACE, "run-1")
LATER = NOW + timedelta(hours=1)
SIGNAL = Signal("run-1-task", "ship/-/1/1/0", {"approved": True}, NOW)
END = RunEnd(RunState.FAILED, "Timeout", "", None, LATER)
STOP: dict[str, Any] = {"reason": "Stopped", "message": "You stopped it.", "at": LATER}


async def run_of(storage: Storage) -> Run:
    run = await storage.get_run("run-1")
    assert run is not None
    return run


async def task_of(storage: Storage) -> Task:
    return (await storage.tasks_of_run("run-1"))[0]


async def park(storage: Storage, fence: Fence, **changes: object) -> list[Signal]:
    options = {"keys": (SIGNAL.key,), "wake_at": None, "reason": "Approval", "at": NOW} | changes
    return await storage.park(fence, **options)  # type: ignore[arg-type]


async def queued(storage: Storage) -> int:
    return (await storage.queue_depths(CLUSTER)).get(OWN, (0, 0))[0]


async def test_park_gives_the_task_back_until_its_signal_comes(storage: Storage) -> None:
    fence = await start_run(storage)

    assert await park(storage, fence) == []

    task, run = await task_of(storage), await run_of(storage)
    assert (task.state, task.session, task.pod_uid) == (TaskState.PARKED, "", "")
    assert (run.state, run.parked) == (RunState.RUNNING, "Approval")
    assert await storage.queue_depths(CLUSTER) == {}
    with pytest.raises(Fenced):
        await storage.check_fence(fence)

    assert await storage.signal(SIGNAL)

    assert (await task_of(storage)).state is TaskState.QUEUED
    assert (await run_of(storage)).parked == ""
    _, claimed = await claim(storage, "pod-2", pool=OWN)
    assert claimed.signals == (SIGNAL,)
    assert (claimed.task.attempt, claimed.run.attempt) == (2, 1), "parking is no attempt"


async def test_park_changes_nothing_when_a_signal_is_there(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.signal(SIGNAL)
    await storage.signal(replace(SIGNAL, key="another"))

    assert await park(storage, fence, keys=("not yet", SIGNAL.key)) == [SIGNAL]

    assert await storage.check_fence(fence) == await task_of(storage)
    assert (await run_of(storage)).parked == ""


async def test_park_often_is_no_attempt_without_progress(storage: Storage) -> None:
    fence = await start_run(storage)
    for number in range(MAX_ATTEMPTS_WITHOUT_PROGRESS * 2):
        await park(storage, fence, keys=(f"key-{number}",))
        await storage.signal(replace(SIGNAL, key=f"key-{number}"))
        fence, _ = await claim(storage, f"pod-{number}", pool=OWN)

    assert (await run_of(storage)).attempt == 1


async def test_park_by_who_lost_the_claim_is_fenced(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.requeue_pod("run-1-pod-uid", at=NOW)

    with pytest.raises(Fenced):
        await park(storage, fence)

    assert await queued(storage) == 1


async def test_signal_comes_once(storage: Storage) -> None:
    await start_run(storage)

    assert await storage.signal(SIGNAL)
    assert not await storage.signal(replace(SIGNAL, value={"approved": False}))

    assert await storage.signals_of_task("run-1-task") == [SIGNAL]
    assert not await storage.signal(replace(SIGNAL, task_id="nobody"))


async def test_signal_for_something_else_wakes_nobody(storage: Storage) -> None:
    await park(storage, await start_run(storage))

    await storage.signal(replace(SIGNAL, key="another"))

    assert (await task_of(storage)).state is TaskState.PARKED


async def test_signal_after_the_end_wakes_nobody(storage: Storage) -> None:
    await park(storage, await start_run(storage))
    await storage.end_run("run-1", END)

    await storage.signal(SIGNAL)

    assert (await task_of(storage)).state is TaskState.DONE
    assert (await run_of(storage)).parked == ""


async def test_signal_is_announced_with_what_it_wakes(storage: Storage) -> None:
    await park(storage, await start_run(storage))
    events = storage.subscribe("signal", "queue", "run")

    await storage.signal(SIGNAL)

    heard = {await anext(events) for _ in range(3)}
    assert heard == {Event("signal", "run-1-task"), Event("queue", OWN), Event("run", "run-1")}


async def test_wake_queues_what_is_due_and_says_when_to_look_again(storage: Storage) -> None:
    assert await storage.wake(at=NOW) is None
    await park(storage, await start_run(storage), wake_at=LATER, keys=(), reason="Time")

    assert await storage.wake(at=NOW) == LATER
    assert (await task_of(storage)).state is TaskState.PARKED
    assert await storage.wake(at=LATER) is None

    assert await queued(storage) == 1
    assert (await run_of(storage)).parked == ""


async def test_wake_counts_the_deadline_of_a_parked_task(storage: Storage) -> None:
    task = make_task(pool=OWN, deadline=NOW + timedelta(minutes=1))
    await storage.submit(make_run(), revision=make_revision(), task=task)
    fence, _ = await claim(storage, pool=OWN)
    await park(storage, fence, wake_at=LATER)

    assert await storage.wake(at=NOW + timedelta(minutes=1)) is None

    assert await queued(storage) == 1
    fence, _ = await claim(storage, "pod-2", pool=OWN)
    await park(storage, fence, at=NOW + timedelta(minutes=2), wake_at=LATER)
    assert await storage.wake(at=NOW + timedelta(minutes=3)) == LATER, "a deadline that is over wakes nobody again"


async def test_wake_by_two_at_once_queues_once(storage: Storage, other: Storage) -> None:
    for number in range(20):
        fence = await start_run(storage, f"run-{number}")
        await park(storage, fence, wake_at=NOW + timedelta(seconds=number), keys=())
    for each in (storage, other):
        while (due := await each.wake(at=LATER)) is not None:
            assert due <= LATER

    assert sum(waiting for waiting, _ in (await storage.queue_depths(CLUSTER)).values()) == 20


async def test_suspend_run_parks_what_is_queued(storage: Storage) -> None:
    await storage.submit(make_run(), revision=make_revision(), task=make_task(pool=OWN))

    run = await storage.suspend_run("run-1", suspended=True, at=NOW)

    assert run is not None
    assert (run.state, run.suspended, run.parked) == (RunState.QUEUED, True, "Suspended")
    session = make_session(pool=OWN)
    await storage.register(session, at=NOW)
    assert await storage.claim(session, limit=5, at=NOW) == []
    assert await storage.wake(at=LATER) is None
    resumed = await storage.suspend_run("run-1", suspended=False, at=LATER)
    assert resumed is not None
    assert (resumed.suspended, resumed.parked) == (False, "")
    assert len(await storage.claim(session, limit=5, at=LATER)) == 1


async def test_submit_of_a_suspended_run_parks_its_task(storage: Storage) -> None:
    await storage.submit(make_run(suspended=True), revision=make_revision(), task=make_task(pool=OWN))

    assert (await task_of(storage)).state is TaskState.PARKED
    assert (await run_of(storage)).parked == "Suspended"
    await storage.suspend_run("run-1", suspended=False, at=NOW)
    assert await queued(storage) == 1


async def test_suspend_run_leaves_the_pod_its_task_until_it_parks(storage: Storage) -> None:
    fence = await start_run(storage)
    assert await park(storage, fence, keys=(RESUME,)) == [Signal("run-1-task", RESUME, {}, NOW)]

    await storage.suspend_run("run-1", suspended=True, at=NOW)
    assert (await storage.check_fence(fence)).state is TaskState.CLAIMED
    assert await park(storage, fence, keys=(RESUME,), reason="Suspended") == []

    assert (await run_of(storage)).parked == "Suspended"
    await storage.suspend_run("run-1", suspended=False, at=LATER)
    assert await queued(storage) == 1


@pytest.mark.parametrize("how", ["lost", "released"])
async def test_a_suspended_task_that_comes_back_waits(storage: Storage, how: str) -> None:
    fence = await start_run(storage)
    await storage.suspend_run("run-1", suspended=True, at=NOW)

    if how == "lost":
        await storage.requeue_pod("run-1-pod-uid", at=NOW)
    else:
        await storage.release(fence, at=NOW)

    assert (await task_of(storage)).state is TaskState.PARKED
    await storage.suspend_run("run-1", suspended=False, at=LATER)
    assert await queued(storage) == 1


@pytest.mark.parametrize(
    ("signalled", "wake_at", "goes_on"),
    [
        pytest.param(True, None, True, id="signal-came"),
        pytest.param(False, NOW, True, id="time-came"),
        pytest.param(False, LATER + timedelta(hours=1), False, id="nothing-came"),
    ],
)
async def test_resume_queues_only_what_can_go_on(
    storage: Storage, *, signalled: bool, wake_at: object, goes_on: bool
) -> None:
    await park(storage, await start_run(storage), wake_at=wake_at)
    await storage.suspend_run("run-1", suspended=True, at=NOW)
    if signalled:
        await storage.signal(SIGNAL)
    assert await storage.wake(at=LATER) is None
    assert await queued(storage) == 0, "nothing wakes a suspended run"
    assert (await run_of(storage)).parked == "Suspended"

    run = await storage.suspend_run("run-1", suspended=False, at=LATER)

    assert run is not None
    assert (await queued(storage), run.parked) == ((1, "") if goes_on else (0, "Approval"))


async def test_suspend_run_that_is_final_or_unknown_changes_nothing(storage: Storage) -> None:
    await start_run(storage)
    await storage.end_run("run-1", END)

    run = await storage.suspend_run("run-1", suspended=True, at=LATER)

    assert run is not None
    assert not run.suspended
    assert await storage.suspend_run("nobody", suspended=True, at=NOW) is None


async def test_cancel_run_with_handlers_queues_what_started_and_is_held_by_nobody(storage: Storage) -> None:
    await park(storage, await start_run(storage))
    await storage.suspend_run("run-1", suspended=True, at=NOW)

    run = await storage.cancel_run("run-1", handlers=True, **STOP)

    assert run is not None
    assert (run.state, run.cancel_reason, run.parked) == (RunState.RUNNING, "Stopped", "")
    fence, claimed = await claim(storage, "pod-2", pool=OWN)
    assert claimed.run.cancel_reason == "Stopped"
    await storage.release(fence, at=LATER)
    assert await queued(storage) == 1, "its handlers have yet to run"


async def test_cancel_run_with_handlers_ends_what_never_started(storage: Storage) -> None:
    await storage.submit(make_run(), revision=make_revision(), task=make_task(pool=OWN))

    run = await storage.cancel_run("run-1", handlers=True, **STOP)

    assert run is not None
    assert (run.state, run.reason) == (RunState.CANCELLED, "Stopped")


async def test_cancel_run_without_handlers_ends_what_is_parked(storage: Storage) -> None:
    await park(storage, await start_run(storage))

    run = await storage.cancel_run("run-1", **STOP)

    assert run is not None
    assert (run.state, run.reason, run.parked) == (RunState.CANCELLED, "Stopped", "")


@pytest.mark.parametrize(("handlers", "state"), [(True, RunState.RUNNING), (False, RunState.CANCELLED)])
async def test_park_of_a_run_that_is_being_cancelled(storage: Storage, *, handlers: bool, state: RunState) -> None:
    fence = await start_run(storage)
    await storage.cancel_run("run-1", handlers=handlers, **STOP)

    assert await park(storage, fence) == []

    run = await run_of(storage)
    assert (run.state, run.parked) == (state, "")
    assert await queued(storage) == int(handlers)


async def test_a_cancelled_run_whose_handlers_never_get_to_run_ends_cancelled(storage: Storage) -> None:
    await start_run(storage)
    await storage.cancel_run("run-1", handlers=True, **STOP)
    await storage.requeue_pod("run-1-pod-uid", at=LATER)
    for number in range(MAX_ATTEMPTS_WITHOUT_PROGRESS - 1):
        assert not (await run_of(storage)).state.final
        await claim(storage, f"pod-{number}", pool=OWN)
        await storage.requeue_pod(f"pod-{number}-uid", at=LATER)

    run = await run_of(storage)
    assert (run.state, run.reason) == (RunState.CANCELLED, "Stopped")


async def test_submit_without_a_task_is_claimed_by_nobody(storage: Storage) -> None:
    assert await storage.submit(make_run(), revision=make_revision(), task=None)
    assert await storage.tasks_of_run("run-1") == []

    assert await storage.end_run("run-1", replace(END, state=RunState.SUCCEEDED, reason="DryRun", output={"nodes": 1}))

    run = await run_of(storage)
    assert (run.state, run.reason, run.output) == (RunState.SUCCEEDED, "DryRun", {"nodes": 1})


async def test_cancel_run_without_a_task_ends_it(storage: Storage) -> None:
    await storage.submit(make_run(), revision=make_revision(), task=None)

    run = await storage.cancel_run("run-1", **STOP)

    assert run is not None
    assert run.state is RunState.CANCELLED


async def test_claim_never_gives_what_is_parked_or_suspended_and_keeps_the_order(storage: Storage) -> None:
    for uid, priority in (("low", 0), ("first", 5), ("held", 9), ("second", 5)):
        run = make_run(uid, priority=priority, suspended=uid == "held")
        await storage.submit(run, revision=make_revision(), task=make_task(uid, pool=OWN, priority=priority))
    session = make_session(pool=OWN)
    await storage.register(session, at=NOW)

    claimed = await storage.claim(session, limit=10, at=NOW)

    assert [one.run.uid for one in claimed] == ["first", "second", "low"]
    await park(storage, Fence("low-task", session.id, 1))
    assert await storage.claim(session, limit=10, at=NOW) == []


async def test_resume_of_a_suspended_run_goes_on_with_its_turns(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.start_turn(fence, make_turn())
    await storage.suspend_run("run-1", suspended=True, at=NOW)
    await storage.start_turn(fence, make_turn("late/-/1/1/0"))
    turns = (await storage.tasks_of_run("run-1"))[1:]
    assert [task.state for task in turns] == [TaskState.PARKED, TaskState.PARKED]

    await storage.suspend_run("run-1", suspended=False, at=NOW)

    turns = (await storage.tasks_of_run("run-1"))[1:]
    assert [task.state for task in turns] == [TaskState.QUEUED, TaskState.QUEUED]


async def test_end_of_a_run_ends_its_parked_tasks(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.start_turn(fence, make_turn())
    turn_fence, _ = await claim(storage, "pod-2")
    await park(storage, turn_fence, wake_at=LATER)
    end = replace(END, state=RunState.SUCCEEDED, reason="Succeeded")

    await storage.append(fence, first=0, entries=[{"kind": "RunFinished"}], effects=Effects(end=end), at=LATER)

    assert {task.state for task in await storage.tasks_of_run("run-1")} == {TaskState.DONE}
    assert await storage.wake(at=LATER) is None
