from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from fairlead.storage import Storage, open_storage
from fairlead.storage.base import Event
from fairlead.testing.storage import CLUSTER, NOW, POOL, make_revision, make_run, make_session, make_task

WORKER = Path(__file__).with_name("worker.py")


async def start(role: str, url: str, name: str = "") -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", str(WORKER), role, url, name, stdin=PIPE, stdout=PIPE
    )


async def read_line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().strip()


async def finish(process: Process) -> list[str]:
    async with asyncio.timeout(60):
        output, _ = await process.communicate(b"go\n")
    assert process.returncode == 0
    return output.decode().split()


async def test_migrate_by_several_processes_at_once(storage_url: str) -> None:
    workers = [await start("migrate", storage_url) for _ in range(3)]

    said = [await finish(worker) for worker in workers]

    assert said == [["migrated"]] * 3
    storage = open_storage(storage_url)
    assert await storage.get_run("nobody") is None
    await storage.aclose()


async def test_claim_by_several_processes_gives_each_task_once(storage: Storage, storage_url: str) -> None:
    uids = [f"run-{number}" for number in range(60)]
    for uid in uids:
        await storage.submit(make_run(uid), revision=make_revision(), task=make_task(uid))
    workers = [await start("claim", storage_url, f"pod-{number}") for number in range(3)]
    for worker in workers:
        assert await read_line(worker) == "ready"

    claims = await asyncio.gather(*(finish(worker) for worker in workers))

    assert sorted(uid for claimed in claims for uid in claimed) == sorted(uids)
    assert await storage.queue_depths(CLUSTER) == {POOL: (0, 60)}
    for number, claimed in enumerate(claims):
        held = await storage.tasks_of_pod(f"pod-{number}-uid")
        assert sorted(task.run_uid for task in held) == sorted(claimed)


async def test_kill_of_a_writer_loses_nothing_that_was_acknowledged(storage: Storage, storage_url: str) -> None:
    await storage.submit(make_run(), revision=make_revision(), task=make_task())
    await storage.register(make_session(), at=NOW)
    await storage.claim(make_session(), limit=1, at=NOW)
    worker = await start("append", storage_url)
    for _ in range(40):
        await read_line(worker)

    worker.kill()
    assert worker.stdout is not None
    rest = (await worker.stdout.read()).decode()
    await worker.wait()

    whole = rest[: rest.rfind("\n") + 1].split()
    acknowledged = int(whole[-1]) if whole else 39
    journal = await storage.journal("run-1-task")
    nodes = await storage.nodes_of_run("run-1")
    run = await storage.get_run("run-1")
    assert run is not None
    assert len(journal) >= 2 * (acknowledged + 1)
    assert [entry["number"] for entry in journal] == [seq // 2 for seq in range(len(journal))]
    assert len(journal) == 2 * len(nodes) == 2 * run.done, "an append is there as a whole or not at all"
    calls = await storage.calls_of_run("run-1")
    assert run.cost == sum(1 for call in calls if call.answer is not None) >= acknowledged + 1


async def test_publish_reaches_another_process(storage: Storage, storage_url: str) -> None:
    worker = await start("publish", storage_url, "hello")
    events = storage.subscribe("run")
    assert await read_line(worker) == "ready"

    await finish(worker)

    async with asyncio.timeout(10):
        assert await anext(events) == Event("run", "hello")
