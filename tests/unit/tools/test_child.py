from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.tools.base import ToolContext, ToolFailed, ToolUnavailable
from fairlead.tools.child import Children


class Held(Children):
    """Children that end when they are told to."""

    def __init__(self) -> None:
        super().__init__(limit=4)
        self.began = asyncio.Semaphore(0)
        self.end = asyncio.Event()

    async def _run(self, module: str, payload: dict[str, Any]) -> Any:
        del payload
        self.began.release()
        await self.end.wait()
        return module


def of(namespace: str, *, seconds: float = 30) -> ToolContext:
    async def read(name: str, key: str) -> bytes:
        raise AssertionError(name, key)

    return ToolContext(read, seconds, namespace)


async def running(children: Held, count: int) -> None:
    """Wait until *count* more have begun."""
    async with asyncio.timeout(10):
        for _ in range(count):
            await children.began.acquire()


async def test_run_one_namespace_takes_half_of_the_places() -> None:
    children = Held()
    many = [asyncio.create_task(children.run("m", {}, of("many"))) for _ in range(10)]
    await running(children, 2)
    others = [asyncio.create_task(children.run("m", {}, of(name))) for name in ("b", "c")]
    await running(children, 2)
    children.end.set()
    assert await asyncio.gather(*many, *others) == ["m"] * 12


async def test_run_wait_for_a_place_counts_as_time() -> None:
    children = Held()
    first = [asyncio.create_task(children.run("m", {}, of("a"))) for _ in range(2)]
    await running(children, 2)
    with pytest.raises(ToolUnavailable, match="all places") as failed:
        await children.run("m", {}, of("a", seconds=0.01))
    assert failed.value.reason == "ToolTimeout"
    children.end.set()
    assert await asyncio.gather(*first) == ["m", "m"]


async def test_run_too_long_is_not_tried_again() -> None:
    with pytest.raises(ToolFailed, match="ask for less") as failed:
        await Held().run("m", {}, of("a", seconds=0.01))
    assert failed.value.reason == "ToolTimeout"
