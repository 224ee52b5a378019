"""``down``: ends exactly what ``up`` started in a home, by process number and start time."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from fairlead.clock import Clock
from fairlead.errors import TerminalError
from fairlead.localcluster.podruntime.dockerengine.leftovers import remove_leftovers
from fairlead.localcluster.supervisor.home import Home, State

_ASK_SECONDS: Final = 45.0
_KILL_SECONDS: Final = 10.0


async def stop_home(home: Home, clock: Clock) -> bool:
    """End a home's supervisor and its children; False if nothing ran.

    Raises:
        TerminalError: a process cannot be ended.
    """
    state = State.read(home)
    try:
        return await _end(state, clock)
    finally:
        if state.engine == "docker":  # what a supervisor that was killed could not remove
            await asyncio.to_thread(remove_leftovers, home.id)


async def _end(state: State, clock: Clock) -> bool:
    processes = [one for one in (state.supervisor, *state.children.values()) if one is not None and one.alive()]
    if not processes:
        return False
    if state.supervisor is not None and state.supervisor.signal(signal.SIGTERM):
        await state.supervisor.wait(clock, seconds=_ASK_SECONDS)
    for process in processes:  # only what did not end by itself is still alive
        process.signal(signal.SIGKILL)
    for process in processes:
        if not await process.wait(clock, seconds=_KILL_SECONDS):
            raise TerminalError(f"process {process.pid} does not end")
    return True
