"""What only a server can do: go away and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fairlead.errors import FairleadError, TerminalError, Unavailable
from fairlead.storage import Storage, open_storage
from fairlead.storage.base import Event
from fairlead.testing.postgres import PostgresServer, postgres_server
from fairlead.testing.storage import NOW, make_revision, make_run, make_session, make_task

pytestmark = pytest.mark.postgres
CANARY = "canary-password-7f3a"
DISCONNECT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fairlead' AND datname = '{}'"
)


@pytest.fixture
async def database(postgres: PostgresServer) -> str:
    return await postgres.create_database()


@pytest.fixture
async def storage(postgres: PostgresServer, database: str) -> AsyncIterator[Storage]:
    opened = open_storage(postgres.url(database))
    await opened.migrate()
    yield opened
    await opened.aclose()


async def test_the_storage_survives_the_loss_of_every_connection(
    storage: Storage, postgres: PostgresServer, database: str
) -> None:
    await storage.submit(make_run(), revision=make_revision(), task=make_task())
    other = open_storage(postgres.url(database))
    events = storage.subscribe("run")
    await storage.ping()

    await postgres.execute("postgres", DISCONNECT.format(database))

    assert await storage.get_run("run-1") == make_run()
    arrived = asyncio.ensure_future(anext(events))
    async with asyncio.timeout(20):
        while not arrived.done():
            await other.publish(Event("run", "after"))
            await asyncio.wait([arrived], timeout=0.1)
    assert arrived.result() == Event("run", "after")
    await other.aclose()


async def test_a_server_that_went_away_is_unavailable() -> None:
    with postgres_server() as server:
        storage = open_storage(server.url(await server.create_database()))
        await storage.migrate()
    try:
        with pytest.raises(Unavailable, match="did not answer"):
            await storage.ping()
    finally:
        await storage.aclose()


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        pytest.param(f"postgresql://u:{CANARY}@127.0.0.1:1/db", Unavailable, "127.0.0.1/db", id="nobody-listens"),
        pytest.param("postgresql://fairlead@/missing?host={folder}", TerminalError, "create it", id="no-such-database"),
        pytest.param(f"postgresql://nobody:{CANARY}@/x?host={{folder}}", TerminalError, "let in", id="no-such-user"),
    ],
)
async def test_an_address_that_does_not_work_is_explained_without_its_password(
    postgres: PostgresServer, *, url: str, kind: type[FairleadError], words: str
) -> None:
    storage = open_storage(url.format(folder=postgres.folder))

    with pytest.raises(kind, match=words) as caught:
        await storage.migrate()
    await storage.aclose()

    assert CANARY not in str(caught.value)


async def test_two_writers_that_lock_each_other_both_come_through(storage: Storage) -> None:
    uids = [f"run-{number}" for number in range(20)]
    for uid in uids:
        await storage.submit(make_run(uid), revision=make_revision(), task=make_task(uid))
    pods = [make_session(f"pod-{number}") for number in range(4)]
    for pod in pods:
        await storage.register(pod, at=NOW)

    async def churn(number: int) -> None:
        for uid in uids:
            await storage.claim(pods[number], limit=3, at=NOW)
            await storage.cancel_run(uid, reason="Stopped", message="", at=NOW)
            await storage.requeue_pod(pods[number].pod_uid, at=NOW)
            await storage.register(
                make_session(f"pod-{number}", id=f"{number}-{uid}", token_digest=f"{number}{uid}"), at=NOW
            )
            pods[number] = make_session(f"pod-{number}", id=f"{number}-{uid}", token_digest=f"{number}{uid}")

    async with asyncio.timeout(60):
        await asyncio.gather(*(churn(number) for number in range(4)))

    assert all(run.state.final for run in await storage.get_runs(uids))


async def test_submit_and_delete_of_runs_that_share_a_revision(storage: Storage) -> None:
    async def live(number: int) -> None:
        for turn in range(10):
            uid = f"run-{number}-{turn}"
            assert await storage.submit(make_run(uid), revision=make_revision(), task=make_task(uid))
            await storage.delete_run(uid)

    await asyncio.gather(*(live(number) for number in range(6)))

    assert await storage.get_revision(make_revision().digest) is None
