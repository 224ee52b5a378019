"""Simulated time for the agent's engine: it passes only when everyone waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from fairlead.testing.agentworld import EPOCH, Killed, ToolError, World
from fairlead_agent.protocol import Kind


class _Jumping(selectors.DefaultSelector):
    """A selector that does not wait: it moves the loop's clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            message = "everyone waits for ever"
            raise RuntimeError(message)
        if not ready:
            self.time += timeout or 0.0
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Time passes only when everyone waits."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the simulated time, in seconds."""
        return self._jumping.time

    def run_in_executor(  # type: ignore[override]  # the same arguments, a future that is done
        self, _executor: Any, function: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        """Do it here and now: a thread would need real time, which passes for nobody else."""
        future = self.create_future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            future.set_exception(error)
        return future


class Simulation:
    """Makes worlds and runs them in simulated time."""

    world = World
    tool_error = ToolError
    killed = Killed
    epoch = EPOCH

    def __init__(self) -> None:
        self.elapsed = 0.0

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine; `elapsed` is how long it took in simulated seconds."""
        with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
            try:
                return runner.run(main())
            finally:
                self.elapsed = runner.get_loop().time()

    def finish(self, spec: dict[str, Any], **keys: Any) -> World:
        """Run a workflow to its end."""
        world = World(spec, **keys)
        self.resume(world)
        return world

    def resume(self, world: World) -> None:
        """Run one more process, until the run has ended."""
        self.run(world.live)

    def survive(self, world: World, kill_at: Callable[[int], int]) -> None:
        """Run processes, each killed at the boundary that *kill_at* gives for its number (-1: never), until the end."""

        async def lives() -> None:
            number = 0
            while not world.of(Kind.RUN_FINISHED):
                world.boundaries, world.kill_at = 0, kill_at(number)
                number += 1
                with suppress(Killed):
                    await world.live()

        self.run(lives)
