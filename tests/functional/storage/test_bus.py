from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fairlead.storage import Storage
from fairlead.storage.base import Event
from fairlead.testing.storage import NOW, POOL, make_revision, make_run, make_session, make_task


async def soon(events: AsyncIterator[Event], count: int = 1) -> set[Event]:
    async with asyncio.timeout(10):
        return {await anext(events) for _ in range(count)}


async def listening(*storages: Storage) -> None:
    """Wait until events of every storage reach every other."""
    async with asyncio.timeout(20):
        for sender in storages:
            for receiver in storages:
                events = receiver.subscribe("probe")
                arrived = asyncio.ensure_future(anext(events))
                while not arrived.done():
                    await sender.publish(Event("probe", "probe"))
                    await asyncio.wait([arrived], timeout=0.1)


async def test_publish_reaches_this_process_and_others(storage: Storage, other: Storage) -> None:
    await listening(storage, other)
    here, there = storage.subscribe("run"), other.subscribe("run")

    await storage.publish(Event("run", "run-1"))
    await storage.publish(Event("queue", "a pool"))
    await storage.publish(Event("run", "run-2"))

    assert await soon(here, 2) == await soon(there, 2) == {Event("run", "run-1"), Event("run", "run-2")}


async def test_subscribe_merges_duplicates_that_wait(storage: Storage) -> None:
    events = storage.subscribe("run")
    for _ in range(5):
        await storage.publish(Event("run", "run-1"))
    await storage.publish(Event("run", "run-2"))

    assert [await anext(events), await anext(events)] == [Event("run", "run-1"), Event("run", "run-2")]


async def test_what_changes_is_announced(storage: Storage) -> None:
    events = storage.subscribe()
    await storage.submit(make_run(), revision=make_revision(), task=make_task())
    assert await soon(events, 2) == {Event("run", "run-1"), Event("queue", POOL)}
    await storage.register(make_session(), at=NOW)
    assert await soon(events) == {Event("agent", "default/default")}
    await storage.claim(make_session(), limit=1, at=NOW)
    assert await soon(events) == {Event("run", "run-1")}
    await storage.requeue_pod("pod-1-uid", at=NOW)
    assert await soon(events, 3) == {Event("run", "run-1"), Event("queue", POOL), Event("agent", "default/default")}


async def test_what_was_not_committed_is_not_announced(storage: Storage) -> None:
    events = storage.subscribe("run")
    with pytest.raises(Exception, match="JSON"):
        await storage.submit(make_run(inputs={"x": object()}), revision=make_revision(), task=make_task())
    await storage.publish(Event("run", "after"))

    assert await anext(events) == Event("run", "after")


async def test_aclose_ends_subscriptions(storage: Storage) -> None:
    events = storage.subscribe("run")
    waiting = asyncio.ensure_future(anext(events, None))
    await asyncio.sleep(0)

    await storage.aclose()

    assert await waiting is None
