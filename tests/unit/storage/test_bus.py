from __future__ import annotations

import asyncio
import gc

import pytest

from fairlead.storage.base import Event
from fairlead.storage.sql.bus import _MAX_WAITING, Hub


async def test_subscription_takes_its_topics_only() -> None:
    hub = Hub()
    runs, everything = hub.subscribe(("run",)), hub.subscribe(())

    hub.tell([Event("queue", "p"), Event("run", "1")])

    assert await anext(runs) == Event("run", "1")
    assert [await anext(everything), await anext(everything)] == [Event("queue", "p"), Event("run", "1")]


async def test_subscription_wakes_who_waits() -> None:
    hub = Hub()
    events = hub.subscribe(("run",))
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)

    hub.tell([Event("run", "1")])

    assert await waiting == Event("run", "1")


async def test_subscription_is_bounded_and_drops_the_oldest() -> None:
    hub = Hub()
    events = hub.subscribe(())

    hub.tell(Event("run", str(number)) for number in range(_MAX_WAITING + 1))

    assert await anext(events) == Event("run", "1")


async def test_subscription_ends_when_it_is_closed() -> None:
    hub = Hub()
    events = hub.subscribe(())
    await events.aclose()
    hub.tell([Event("run", "1")])

    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_hub_forgets_a_subscription_that_nobody_holds() -> None:
    hub = Hub()
    events = hub.subscribe(())
    assert len(hub._subscriptions) == 1

    del events
    gc.collect()

    assert len(hub._subscriptions) == 0
