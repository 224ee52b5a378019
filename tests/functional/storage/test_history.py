"""What later runs, reports and exporters take from runs that are over."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from fairlead.storage import Storage
from fairlead.storage.base import CacheEntry, Effects, RunEnd, RunState
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, make_revision, make_run, make_task, start_run

LATER = NOW + timedelta(hours=1)
ENTRY = CacheEntry("d1", {"x": [1]}, "run-1", NOW, LATER)


def at(hours: int) -> RunEnd:
    return RunEnd(RunState.SUCCEEDED, "Succeeded", "", None, NOW + timedelta(hours=hours))


async def test_append_keeps_results_for_later_runs(storage: Storage) -> None:
    fence = await start_run(storage)
    effects = Effects(cached=(ENTRY, replace(ENTRY, digest="d2", output=None)), reused=2)

    await storage.append(fence, first=0, entries=[{"kind": "X"}], effects=effects, at=NOW)
    await storage.append(fence, first=1, entries=[{"kind": "X"}], effects=Effects(reused=1), at=NOW)

    assert await storage.get_cached(CLUSTER, NAMESPACE, "d1", at=NOW) == ENTRY
    assert await storage.get_cached(CLUSTER, "elsewhere", "d1", at=NOW) is None
    assert await storage.get_cached("another cluster", NAMESPACE, "d1", at=NOW) is None
    assert await storage.get_cached(CLUSTER, NAMESPACE, "d3", at=NOW) is None
    found = await storage.get_cached(CLUSTER, NAMESPACE, "d2", at=NOW)
    assert found is not None
    assert found.output is None
    run = await storage.get_run("run-1")
    assert run is not None
    assert run.reused == 3


async def test_get_cached_gives_the_latest_until_it_expires(storage: Storage) -> None:
    fence = await start_run(storage)
    newer = replace(ENTRY, output=2, expires_at=LATER + timedelta(hours=1))
    await storage.append(fence, first=0, entries=[{"kind": "X"}], effects=Effects(cached=(ENTRY,)), at=NOW)
    await storage.append(fence, first=1, entries=[{"kind": "X"}], effects=Effects(cached=(ENTRY, newer)), at=NOW)
    await storage.delete_run("run-1")

    assert await storage.get_cached(CLUSTER, NAMESPACE, "d1", at=LATER) == newer
    assert await storage.get_cached(CLUSTER, NAMESPACE, "d1", at=newer.expires_at) is None


async def test_drop_expired_deletes_only_those(storage: Storage) -> None:
    fence = await start_run(storage)
    longer = replace(ENTRY, digest="d2", expires_at=LATER + timedelta(hours=1))
    await storage.append(fence, first=0, entries=[{"kind": "X"}], effects=Effects(cached=(ENTRY, longer)), at=NOW)

    assert await storage.drop_expired(at=LATER) == 1
    assert await storage.drop_expired(at=LATER) == 0

    assert await storage.get_cached(CLUSTER, NAMESPACE, "d2", at=LATER) == longer


async def test_finished_runs_are_those_of_a_workflow_latest_first(storage: Storage) -> None:
    for number, workflow in enumerate(("triage", "triage", "report", "triage", "triage")):
        run = make_run(f"run-{number}", workflow=workflow)
        await storage.submit(run, revision=make_revision(), task=make_task(run.uid))
    for number, hours in ((3, 1), (2, 2), (0, 3), (1, 4)):
        await storage.end_run(f"run-{number}", at(hours))

    async def uids(since: datetime | None = None, limit: int = 100) -> list[str]:
        runs = await storage.finished_runs(CLUSTER, namespace=NAMESPACE, workflow="triage", since=since, limit=limit)
        return [run.uid for run in runs]

    assert await uids() == ["run-1", "run-0", "run-3"]
    assert await uids(limit=1) == ["run-1"]
    assert await uids(since=NOW + timedelta(hours=3)) == ["run-1", "run-0"]
    assert await storage.finished_runs(CLUSTER, namespace="elsewhere", workflow="triage") == []


async def test_runs_to_export_are_finished_and_not_marked_oldest_first(storage: Storage) -> None:
    for number in range(3):
        await storage.submit(make_run(f"run-{number}"), revision=make_revision(), task=make_task(f"run-{number}"))
    await storage.end_run("run-2", at(1))
    await storage.end_run("run-0", at(2))

    assert [run.uid for run in await storage.runs_to_export()] == ["run-2", "run-0"]
    assert [run.uid for run in await storage.runs_to_export(limit=1)] == ["run-2"]
    await storage.mark_exported("run-2")
    await storage.mark_exported("nobody")

    assert [run.uid for run in await storage.runs_to_export()] == ["run-0"]
    run = await storage.get_run("run-2")
    assert run is not None
    assert run.exported


async def test_submit_keeps_what_a_run_was_asked_with(storage: Storage) -> None:
    run = make_run(priority=7, budget={"maxCostUSD": "0.50"}, rerun_of="run-0", rerun_from="Failed")

    await storage.submit(run, revision=make_revision(), task=make_task(priority=7))

    assert await storage.get_run("run-1") == run
