from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fairlead.storage import Storage
from fairlead.storage.base import (
    CallAnswer,
    CallIntent,
    Effects,
    Fence,
    Fenced,
    LogRecord,
    NodeRecord,
    RunEnd,
    RunState,
    Span,
    TaskState,
)
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, POOL, make_revision, make_run, make_session, make_task

FAILED = RunEnd(RunState.FAILED, "Timeout", "It took too long.", None, NOW + timedelta(minutes=1))


async def submit(storage: Storage, uid: str = "run-1", **changes: object) -> None:
    assert await storage.submit(make_run(uid, **changes), revision=make_revision(), task=make_task(uid))


async def test_submit_keeps_every_field(storage: Storage) -> None:
    run = make_run(inputs={"text": "nul \0, emoji 🎏, nested", "list": [1, 2.5, None]}, message="a\0b")

    assert await storage.submit(run, revision=make_revision(), task=make_task(priority=3))

    assert await storage.get_run("run-1") == replace(run, message="a\ufffdb")
    assert await storage.get_revision(run.revision) == make_revision()
    [task] = await storage.tasks_of_run("run-1")
    assert (task.id, task.pool, task.state, task.attempt) == ("run-1-task", POOL, TaskState.QUEUED, 0)


async def test_submit_of_a_known_uid_changes_nothing(storage: Storage) -> None:
    await submit(storage)

    again = await storage.submit(make_run(inputs={"other": 1}), revision=make_revision(), task=make_task(id="other"))

    assert not again
    assert await storage.get_run("run-1") == make_run()
    assert [task.id for task in await storage.tasks_of_run("run-1")] == ["run-1-task"]


async def test_get_run_unknown_is_none(storage: Storage) -> None:
    assert await storage.get_run("nobody") is None
    assert await storage.find_run(CLUSTER, NAMESPACE, "nobody") is None
    assert await storage.get_revision("nothing") is None
    assert await storage.cancel_run("nobody", reason="Stopped", message="", at=NOW) is None
    assert not await storage.end_run("nobody", FAILED)
    await storage.delete_run("nobody")


async def test_find_run_gives_the_latest_of_a_name(storage: Storage) -> None:
    await submit(storage, "old", name="nightly")
    await submit(storage, "new", name="nightly")
    await submit(storage, "elsewhere", name="nightly", namespace="other")

    found = await storage.find_run(CLUSTER, NAMESPACE, "nightly")

    assert found is not None
    assert found.uid == "new"


async def test_list_runs_filters_and_orders(storage: Storage) -> None:
    for number in range(4):
        await submit(storage, f"run-{number}", workflow="even" if number % 2 == 0 else "odd")
    await submit(storage, "elsewhere", namespace="other")
    await submit(storage, "foreign", cluster="another")
    await storage.end_run("run-2", FAILED)

    async def uids(**options: object) -> list[str]:
        return [run.uid for run in await storage.list_runs(CLUSTER, **options)]  # type: ignore[arg-type]

    assert await uids() == ["elsewhere", "run-3", "run-2", "run-1", "run-0"]
    assert await uids(limit=2) == ["elsewhere", "run-3"]
    assert await uids(namespace=NAMESPACE, workflow="even") == ["run-2", "run-0"]
    assert await uids(namespace=NAMESPACE, active=True) == ["run-3", "run-1", "run-0"]


async def test_get_runs_gives_those_that_exist(storage: Storage) -> None:
    await submit(storage, "run-1")
    await submit(storage, "run-2")

    found = await storage.get_runs(["run-2", "nobody", "run-1", *(f"no-{n}" for n in range(2000))])

    assert [run.uid for run in found] == ["run-1", "run-2"]


async def test_cancel_run_that_nobody_claimed_ends_it(storage: Storage) -> None:
    await submit(storage)

    run = await storage.cancel_run("run-1", reason="Stopped", message="You stopped it.", at=NOW)

    assert run is not None
    assert (run.state, run.reason, run.message) == (RunState.CANCELLED, "Stopped", "You stopped it.")
    assert run.finished_at == NOW
    session = make_session()
    await storage.register(session, at=NOW)
    assert await storage.claim(session, limit=1, at=NOW) == []


async def test_cancel_run_that_a_pod_holds_asks_for_it(storage: Storage) -> None:
    await submit(storage)
    session = make_session()
    await storage.register(session, at=NOW)
    await storage.claim(session, limit=1, at=NOW)

    run = await storage.cancel_run("run-1", reason="Stopped", message="You stopped it.", at=NOW)
    again = await storage.cancel_run("run-1", reason="Deleted", message="", at=NOW)

    assert run is not None
    assert again is not None
    assert (run.state, run.cancel_reason, again.cancel_reason) == (RunState.RUNNING, "Stopped", "Stopped")
    fence = Fence("run-1-task", session.id, 1)
    end = RunEnd(RunState.CANCELLED, "Cancelled", "the agent's words", None, NOW)
    grown = await storage.append(fence, first=0, entries=[{"kind": "RunFinished"}], effects=Effects(end=end), at=NOW)
    assert grown.length == 1
    ended = await storage.get_run("run-1")
    assert ended is not None
    assert (ended.state, ended.reason, ended.message) == (RunState.CANCELLED, "Stopped", "You stopped it.")


async def test_cancel_run_that_ended_changes_nothing(storage: Storage) -> None:
    await submit(storage)
    await storage.end_run("run-1", FAILED)

    run = await storage.cancel_run("run-1", reason="Stopped", message="", at=NOW)

    assert run is not None
    assert (run.state, run.reason, run.cancel_reason) == (RunState.FAILED, "Timeout", "")


async def test_end_run_takes_the_task_from_the_pod_and_ends_what_is_open(storage: Storage) -> None:
    await submit(storage)
    session = make_session()
    await storage.register(session, at=NOW)
    await storage.claim(session, limit=1, at=NOW)
    fence = Fence("run-1-task", session.id, 1)
    done = NodeRecord("run-1", "a", state="Succeeded", started_at=NOW, finished_at=NOW)
    open_span = Span("run-1", "s1", "", "run", "run", NOW)
    effects = Effects(nodes=(done, NodeRecord("run-1", "b", started_at=NOW)), spans=(open_span,), current=("b",))
    await storage.append(fence, first=0, entries=[{"kind": "NodeStarted"}], effects=effects, at=NOW)

    assert await storage.end_run("run-1", FAILED)
    assert not await storage.end_run("run-1", replace(FAILED, reason="Other"))

    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.state, run.reason, run.message, run.finished_at) == (
        RunState.FAILED,
        "Timeout",
        FAILED.message,
        FAILED.at,
    )
    assert run.current == ()
    assert [(task.state) for task in await storage.tasks_of_run("run-1")] == [TaskState.DONE]
    assert await storage.tasks_of_pod(session.pod_uid) == []
    a, b = await storage.nodes_of_run("run-1")
    assert a == done
    assert (b.state, b.reason, b.finished_at) == ("Cancelled", "Timeout", FAILED.at)
    [span] = await storage.spans_of_run("run-1")
    assert (span.status, span.finished_at) == ("error", FAILED.at)


async def test_delete_run_leaves_nothing(storage: Storage) -> None:
    await submit(storage)
    session = make_session()
    await storage.register(session, at=NOW)
    await storage.claim(session, limit=1, at=NOW)
    fence = Fence("run-1-task", session.id, 1)
    effects = Effects(nodes=(NodeRecord("run-1", "a"),), spans=(Span("run-1", "s1", "", "run", "run", NOW),))
    await storage.append(fence, first=0, entries=[{"kind": "NodeStarted"}], effects=effects, at=NOW)
    intent = CallIntent("run-1-task", "run-1", "k", "d", "llm", "a", "", "gw", "default", {}, NOW)
    await storage.begin_call(fence, intent)
    await storage.add_logs(fence, first=0, records=[LogRecord("run-1", NOW, "info", "a", 1, "hello")])

    await storage.delete_run("run-1")
    await storage.finish_call("run-1-task", "k", CallAnswer({}, NOW, cost=5), span=open_span())
    with pytest.raises(Fenced):
        await storage.add_logs(fence, first=1, records=[LogRecord("run-1", NOW, "info", "a", 1, "too late")])

    assert await storage.get_run("run-1") is None
    assert await storage.get_revision(make_revision().digest) is None
    assert await storage.tasks_of_run("run-1") == []
    assert await storage.journal("run-1-task") == []
    assert await storage.calls_of_run("run-1") == []
    assert await storage.nodes_of_run("run-1") == []
    assert await storage.spans_of_run("run-1") == []
    assert await storage.logs_of_run("run-1") == []


def open_span() -> Span:
    return Span("run-1", "s2", "", "call", "call", NOW)


async def test_delete_run_keeps_a_revision_that_another_run_has(storage: Storage) -> None:
    await submit(storage, "run-1")
    await submit(storage, "run-2")

    await storage.delete_run("run-1")

    assert await storage.get_revision(make_revision().digest) == make_revision()
