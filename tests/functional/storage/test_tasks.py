from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fairlead.errors import Conflict, InvalidObject, TooLarge
from fairlead.storage import Storage
from fairlead.storage.base import (
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    MAX_JOURNAL_BYTES,
    AgentSession,
    CallIntent,
    Claimed,
    Effects,
    Fence,
    Fenced,
    Grown,
    NodeRecord,
    PoolLoad,
    RunEnd,
    RunState,
    Span,
    TaskState,
)
from fairlead.testing.storage import CLUSTER, NOW, POOL, make_revision, make_run, make_session, make_task

LATER = NOW + timedelta(seconds=30)
STARTED: Mapping[str, Any] = {"kind": "NodeStarted", "node": "a", "at": "2026-01-02T03:04:05Z"}
NOTHING = Effects()


async def submit(storage: Storage, uid: str = "run-1", **changes: object) -> None:
    assert await storage.submit(make_run(uid), revision=make_revision(), task=make_task(uid, **changes))


async def start(storage: Storage, pod: str = "pod-1") -> tuple[AgentSession, Claimed]:
    """Register a pod and claim what is there."""
    session = make_session(pod)
    await storage.register(session, at=NOW)
    [claimed] = await storage.claim(session, limit=1, at=NOW)
    return session, claimed


def fence_of(session: AgentSession, claimed: Claimed) -> Fence:
    return Fence(claimed.task.id, session.id, claimed.task.attempt)


async def test_claim_gives_the_task_with_all_that_it_needs(storage: Storage) -> None:
    await submit(storage)

    session, claimed = await start(storage)

    assert (claimed.task.state, claimed.task.attempt, claimed.task.session) == (TaskState.CLAIMED, 1, session.id)
    assert (claimed.run.state, claimed.run.attempt, claimed.run.pod) == (RunState.RUNNING, 1, "pod-1")
    assert claimed.run.started_at == NOW
    assert claimed.revision == make_revision()
    assert claimed.journal == ()
    assert await storage.tasks_of_pod(session.pod_uid) == [claimed.task]
    assert await storage.check_fence(fence_of(session, claimed)) == claimed.task


async def test_claim_takes_by_priority_then_age(storage: Storage) -> None:
    await submit(storage, "first")
    await submit(storage, "second")
    await submit(storage, "urgent", priority=10)
    await submit(storage, "idle", priority=-1)
    session = make_session()
    await storage.register(session, at=NOW)

    three = await storage.claim(session, limit=3, at=NOW)
    rest = await storage.claim(session, limit=3, at=NOW)

    assert [claimed.run.uid for claimed in three] == ["urgent", "first", "second"]
    assert [claimed.run.uid for claimed in rest] == ["idle"]


async def test_claim_by_many_at_the_same_moment_gives_each_task_once(storage: Storage, other: Storage) -> None:
    uids = [f"run-{number}" for number in range(24)]
    for uid in uids:
        await submit(storage, uid)
    sessions = [make_session(f"pod-{number}") for number in range(8)]
    for session in sessions:
        await storage.register(session, at=NOW)

    async def drain(session: AgentSession, through: Storage) -> list[str]:
        taken: list[str] = []
        while claimed := await through.claim(session, limit=2, at=NOW):
            taken += [each.run.uid for each in claimed]
        return taken

    claims = await asyncio.gather(*(drain(s, (storage, other)[n % 2]) for n, s in enumerate(sessions)))

    assert sorted(uid for taken in claims for uid in taken) == sorted(uids)
    assert sum(1 for taken in claims if taken) > 1, "more than one had a part in it"


async def test_claim_takes_only_of_its_own_pool(storage: Storage) -> None:
    await submit(storage, pool="another/pool/agent/x")
    session = make_session()
    await storage.register(session, at=NOW)

    assert await storage.claim(session, limit=5, at=NOW) == []
    assert await storage.queue_depths(CLUSTER) == {"another/pool/agent/x": (1, 0)}


async def test_claim_by_a_clock_behind_that_of_the_api_server_waits_for_nothing(storage: Storage) -> None:
    await submit(storage)
    session = make_session()
    await storage.register(session, at=NOW)

    assert len(await storage.claim(session, limit=1, at=NOW - timedelta(hours=1))) == 1


async def test_claim_with_a_revoked_session_is_fenced(storage: Storage) -> None:
    await submit(storage)
    session = make_session()
    await storage.register(session, at=NOW)
    await storage.requeue_pod(session.pod_uid, at=NOW)

    with pytest.raises(Fenced):
        await storage.claim(session, limit=1, at=NOW)
    assert await storage.queue_depths(CLUSTER) == {POOL: (1, 0)}


async def test_append_tells_that_the_run_is_to_end(storage: Storage) -> None:
    await submit(storage)
    fence = fence_of(*await start(storage))
    await storage.cancel_run("run-1", reason="Cancelled", message="enough", at=NOW, handlers=True)
    again = {"entries": [STARTED], "effects": Effects(done=0, total=2), "at": NOW}
    assert await storage.append(fence, first=0, **again) == Grown(1, cancelled=True)
    assert await storage.append(fence, first=0, **again) == Grown(1, cancelled=True), "its answer may have been lost"


async def test_append_commits_entries_with_their_effects(storage: Storage) -> None:
    await submit(storage)
    session, claimed = await start(storage)
    node = NodeRecord("run-1", "a", started_at=NOW)
    span = Span("run-1", "s1", "", "a", "node", NOW, attributes={"k": [1]})
    effects = Effects(nodes=(node,), spans=(span,), done=0, total=2, current=("a",))

    grown = await storage.append(
        fence_of(session, claimed), first=0, entries=[STARTED, STARTED], effects=effects, at=NOW
    )

    assert grown == Grown(2)
    assert await storage.journal("run-1-task") == [
        {**STARTED, "seq": 0, "attempt": 1},
        {**STARTED, "seq": 1, "attempt": 1},
    ]
    assert await storage.nodes_of_run("run-1") == [node]
    assert await storage.spans_of_run("run-1") == [span]
    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.done, run.total, run.current) == (0, 2, ("a",))


async def test_append_again_skips_what_is_there(storage: Storage) -> None:
    await submit(storage)
    session, claimed = await start(storage)
    fence = fence_of(session, claimed)
    await storage.append(fence, first=0, entries=[STARTED], effects=Effects(done=0, total=2), at=NOW)
    await storage.append(fence, first=1, entries=[STARTED], effects=Effects(done=1, total=2), at=NOW)

    repeated = await storage.append(fence, first=0, entries=[STARTED], effects=Effects(done=0, total=2), at=NOW)
    overlapping = await storage.append(fence, first=1, entries=[STARTED, {"kind": "X"}], effects=NOTHING, at=NOW)

    assert (repeated.length, overlapping.length) == (2, 3)
    assert [entry["kind"] for entry in await storage.journal("run-1-task")] == ["NodeStarted", "NodeStarted", "X"]
    run = await storage.get_run("run-1")
    assert run is not None
    assert run.done == 1, "an older append that arrives twice must not turn the progress back"


async def test_append_with_a_gap_is_a_conflict(storage: Storage) -> None:
    await submit(storage)
    session, claimed = await start(storage)

    with pytest.raises(Conflict) as caught:
        await storage.append(
            fence_of(session, claimed), first=1, entries=[STARTED], effects=Effects(done=7, total=7), at=NOW
        )

    assert not isinstance(caught.value, Fenced)
    assert await storage.journal("run-1-task") == []
    run = await storage.get_run("run-1")
    assert run is not None
    assert run.done == 0


async def test_append_with_an_end_commits_run_task_and_nodes_together(storage: Storage) -> None:
    await submit(storage)
    session, claimed = await start(storage)
    fence = fence_of(session, claimed)
    node = NodeRecord("run-1", "a", state="Succeeded", output={"x": 1}, started_at=NOW, finished_at=NOW)
    end = RunEnd(RunState.SUCCEEDED, "Succeeded", "", {"answer": 42}, LATER)
    effects = Effects(nodes=(node,), done=1, total=1, current=(), end=end)

    grown = await storage.append(fence, first=0, entries=[{"kind": "RunFinished"}], effects=effects, at=NOW)
    repeated = await storage.append(fence, first=0, entries=[{"kind": "RunFinished"}], effects=effects, at=NOW)

    run = await storage.get_run("run-1")
    assert run is not None
    assert (grown.length, repeated.length) == (1, 1)
    assert (run.state, run.output, run.finished_at, run.done) == (RunState.SUCCEEDED, {"answer": 42}, LATER, 1)
    assert await storage.nodes_of_run("run-1") == [node]
    assert [task.state for task in await storage.tasks_of_run("run-1")] == [TaskState.DONE]
    with pytest.raises(Fenced):
        await storage.append(fence, first=1, entries=[STARTED], effects=NOTHING, at=NOW)
    with pytest.raises(Fenced):
        await storage.check_fence(fence)


async def test_append_that_fails_midway_leaves_nothing(storage: Storage) -> None:
    await submit(storage)
    session, claimed = await start(storage)
    broken = NodeRecord("run-1", "a", output="half a pair of surrogates: \ud800")
    effects = Effects(done=5, total=5, nodes=(broken,))

    with pytest.raises(InvalidObject, match="JSON"):
        await storage.append(fence_of(session, claimed), first=0, entries=[STARTED], effects=effects, at=NOW)

    assert await storage.journal("run-1-task") == []
    [task] = await storage.tasks_of_run("run-1")
    assert task.journal_length == 0


@pytest.mark.parametrize("how", ["pod lost", "registered again", "released", "run ended", "run deleted", "never held"])
async def test_a_writer_whose_claim_is_over_writes_nothing(storage: Storage, how: str) -> None:
    await submit(storage)
    session, claimed = await start(storage)
    fence = fence_of(session, claimed)
    match how:
        case "pod lost":
            await storage.requeue_pod(session.pod_uid, at=NOW)
        case "registered again":
            await storage.register(make_session(id="second", token_digest="second"), at=NOW)
        case "released":
            await storage.release(fence, at=NOW)
        case "run ended":
            await storage.end_run("run-1", RunEnd(RunState.FAILED, "Timeout", "", None, NOW))
        case "run deleted":
            await storage.delete_run("run-1")
        case _:
            fence = replace(fence, attempt=2)
    before = await storage.tasks_of_run("run-1")
    intent = CallIntent("run-1-task", "run-1", "k", "d", "llm", "a", "", "gw", "default", {}, NOW)

    with pytest.raises(Fenced):
        await storage.append(fence, first=0, entries=[STARTED], effects=Effects(done=9, total=9), at=NOW)
    with pytest.raises(Fenced):
        await storage.begin_call(fence, intent)
    with pytest.raises(Fenced):
        await storage.release(fence, at=NOW)
    with pytest.raises(Fenced):
        await storage.check_fence(fence)

    assert await storage.tasks_of_run("run-1") == before
    assert await storage.journal("run-1-task") == []
    assert await storage.calls_of_run("run-1") == []


async def test_an_old_attempt_is_fenced_when_the_same_session_claimed_again(storage: Storage) -> None:
    await submit(storage)
    session, claimed = await start(storage)
    old = fence_of(session, claimed)
    await storage.release(old, at=NOW)
    [again] = await storage.claim(session, limit=1, at=NOW)

    with pytest.raises(Fenced):
        await storage.append(old, first=0, entries=[STARTED], effects=NOTHING, at=NOW)

    assert again.task.attempt == 2
    assert again.run.attempt == 1, "an attempt that was given back does not count"
    assert (
        await storage.append(fence_of(session, again), first=0, entries=[STARTED], effects=NOTHING, at=NOW)
    ).length == 1


async def test_requeue_pod_hands_its_tasks_with_their_journal_to_the_next(storage: Storage) -> None:
    await submit(storage)
    session, claimed = await start(storage)
    await storage.append(fence_of(session, claimed), first=0, entries=[STARTED], effects=NOTHING, at=NOW)

    assert await storage.requeue_pod(session.pod_uid, at=LATER) == ["run-1"]
    assert await storage.requeue_pod(session.pod_uid, at=LATER) == []

    assert await storage.get_session(session.token_digest) is None
    assert await storage.queue_depths(CLUSTER) == {POOL: (1, 0)}
    second, again = await start(storage, "pod-2")
    assert (again.task.attempt, again.run.attempt, again.run.pod) == (2, 2, "pod-2")
    assert again.run.started_at == NOW
    assert [entry["seq"] for entry in again.journal] == [0]
    assert (
        await storage.append(fence_of(second, again), first=1, entries=[STARTED], effects=NOTHING, at=NOW)
    ).length == 2
    assert [entry["attempt"] for entry in await storage.journal("run-1-task")] == [1, 2]


async def test_attempts_without_progress_in_a_row_end_the_run(storage: Storage) -> None:
    await submit(storage)
    for number in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        run = await storage.get_run("run-1")
        assert run is not None
        assert not run.state.final
        session, _ = await start(storage, f"pod-{number}")
        await storage.requeue_pod(session.pod_uid, at=LATER)

    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.state, run.reason, run.finished_at) == (RunState.FAILED, "AttemptsExhausted", LATER)
    assert run.attempt == MAX_ATTEMPTS_WITHOUT_PROGRESS
    assert await storage.queue_depths(CLUSTER) == {}


async def test_a_journal_that_grew_resets_the_count(storage: Storage) -> None:
    await submit(storage)
    rounds = MAX_ATTEMPTS_WITHOUT_PROGRESS * 2 - 1
    for number in range(rounds):
        session, claimed = await start(storage, f"pod-{number}")
        if number == MAX_ATTEMPTS_WITHOUT_PROGRESS - 1:
            await storage.append(fence_of(session, claimed), first=0, entries=[STARTED], effects=NOTHING, at=NOW)
        await storage.requeue_pod(session.pod_uid, at=NOW)

    run = await storage.get_run("run-1")
    assert run is not None
    assert run.state is RunState.RUNNING
    session, _ = await start(storage, "last")
    await storage.requeue_pod(session.pod_uid, at=NOW)
    run = await storage.get_run("run-1")
    assert run is not None
    assert run.reason == "AttemptsExhausted"


async def test_release_of_what_was_lost_is_an_attempt_without_progress(storage: Storage) -> None:
    await submit(storage)
    session = make_session()
    await storage.register(session, at=NOW)
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        [claimed] = await storage.claim(session, limit=1, at=NOW)
        await storage.release(fence_of(session, claimed), at=LATER, lost=True)

    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.state, run.reason) == (RunState.FAILED, "AttemptsExhausted")


async def test_release_is_no_attempt_without_progress(storage: Storage) -> None:
    await submit(storage)
    session = make_session()
    await storage.register(session, at=NOW)
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS * 2):
        [claimed] = await storage.claim(session, limit=1, at=NOW)
        await storage.release(fence_of(session, claimed), at=NOW)

    assert await storage.queue_depths(CLUSTER) == {POOL: (1, 0)}


@pytest.mark.parametrize("how", ["lost", "released"])
async def test_a_run_that_is_being_cancelled_ends_when_its_pod_lets_go(storage: Storage, how: str) -> None:
    await submit(storage)
    session, claimed = await start(storage)
    await storage.cancel_run("run-1", reason="Stopped", message="You stopped it.", at=NOW)

    if how == "lost":
        await storage.requeue_pod(session.pod_uid, at=LATER)
    else:
        await storage.release(fence_of(session, claimed), at=LATER)

    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.state, run.reason, run.message, run.finished_at) == (
        RunState.CANCELLED,
        "Stopped",
        "You stopped it.",
        LATER,
    )
    assert await storage.queue_depths(CLUSTER) == {}


async def test_queue_depths_count_by_pool(storage: Storage) -> None:
    for number in range(3):
        await submit(storage, f"run-{number}")
    await submit(storage, "other", pool="p2")
    await start(storage)

    assert await storage.queue_depths(CLUSTER) == {POOL: (2, 1), "p2": (1, 0)}
    assert await storage.queue_depths("another cluster") == {}


async def test_pool_load_counts_what_waits_and_what_each_pod_holds(storage: Storage) -> None:
    for uid in ("run-1", "run-2", "run-3", "run-4"):
        await submit(storage, uid)
    await storage.claim(await registered(storage, "pod-1"), limit=2, at=NOW)
    await storage.claim(await registered(storage, "pod-2"), limit=1, at=NOW)
    assert await storage.pool_load(POOL) == PoolLoad(1, {"pod-1-uid": 2, "pod-2-uid": 1})
    await storage.requeue_pod("pod-1-uid", at=LATER)
    assert await storage.pool_load(POOL) == PoolLoad(3, {"pod-2-uid": 1})
    assert await storage.pool_load("another") == PoolLoad(0, {})


async def registered(storage: Storage, pod: str) -> AgentSession:
    session = make_session(pod)
    await storage.register(session, at=NOW)
    return session


async def test_append_beyond_the_size_of_a_journal_is_refused_but_its_end(storage: Storage) -> None:
    await submit(storage)
    fence = fence_of(*await start(storage))
    for first in range(2):
        await storage.append(
            fence, first=first, entries=[STARTED], effects=Effects(), at=NOW, size=MAX_JOURNAL_BYTES // 2
        )
    with pytest.raises(TooLarge, match="64 MiB"):
        await storage.append(fence, first=2, entries=[STARTED], effects=Effects(), at=NOW, size=1)
    again = await storage.append(fence, first=1, entries=[STARTED], effects=Effects(), at=NOW, size=1)
    assert again == Grown(2), "what is there already takes no room"
    end = Effects(end=RunEnd(RunState.FAILED, "TooLarge", "", None, NOW))
    assert await storage.append(fence, first=2, entries=[STARTED], effects=end, at=NOW, size=100) == Grown(3)
