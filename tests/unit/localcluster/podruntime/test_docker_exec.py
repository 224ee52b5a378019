from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from fairlead.localcluster.podruntime.dockerengine.engine import DockerContainer, beginning
from fairlead.localcluster.podruntime.dockerengine.images import Image


class HangingEngine:
    """Its commands end when they are let go."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.let_go = asyncio.Event()

    async def execute(self, ident: str, command: Sequence[str]) -> tuple[int, str]:
        assert ident == "c-1"
        self.asked.append(command)
        await self.let_go.wait()
        return 0, "fine"


async def test_execute_does_not_add_to_commands_that_hang() -> None:
    engine: Any = HangingEngine()
    container = DockerContainer(engine, "c-1", Image("i-1", "", (), "SIGTERM"), address="")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await container.execute(["probe"], seconds=0.01)
    assert len(engine.asked) == 1

    engine.let_go.set()
    assert await container.execute(["probe"], seconds=10) == (0, "fine")
    assert len(engine.asked) == 2


def test_beginning_keeps_no_more_than_is_shown() -> None:
    assert beginning([b"one ", b"two"]) == b"one two"
    assert len(beginning(b"x" * 3000 for _ in range(5))) == 4096
