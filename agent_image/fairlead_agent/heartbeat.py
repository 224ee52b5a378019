"""Says that the pod lives: a thread of its own, so that a busy event loop does not cost the lease."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress

from fairlead_agent.client import SessionOver, checked, connections
from fairlead_agent.connections import Door
from fairlead_agent.protocol import Heartbeat, HeartbeatReply, Session


class Heart:
    """Beats for one session until it is stopped or the session is over.

    Args:
        tasks: returns the ids of the tasks that the pod has; called in the thread.
        on_reply: called in the thread with each answer.
        on_over: called in the thread, once, when the gateway does not know the session any more.
    """

    def __init__(
        self,
        door: Door,
        session: Session,
        *,
        tasks: Callable[[], Iterable[str]],
        on_reply: Callable[[HeartbeatReply], None],
        on_over: Callable[[], None],
    ) -> None:
        self._connections = connections(door)
        self._token = session.session
        self._patience = max(1.0, session.lease_duration_seconds / 2)
        self._interval = session.heartbeat_seconds
        self._tasks = tasks
        self._on_reply = on_reply
        self._on_over = on_over
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more. A beat that is under way is not waited for."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        with closing(self._loop) as loop:
            loop.run_until_complete(self._beats())

    async def _beats(self) -> None:
        due = self._loop.time()
        while not await self._stops_before(due):
            due = self._loop.time() + self._interval
            try:
                self._on_reply(await self._beat())
            except SessionOver:
                self._on_over()
                break
            except Exception:  # noqa: BLE001, S112 - whatever it was, the next beat may arrive
                continue
        await self._connections.aclose()

    async def _stops_before(self, due: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._stop.wait()
        return self._stop.is_set()

    async def _beat(self) -> HeartbeatReply:
        body = Heartbeat(tasks=tuple(self._tasks())).model_dump_json(by_alias=True).encode()
        answer = await self._connections.post("/v1/heartbeat", body, token=self._token, patience=self._patience)
        return HeartbeatReply.model_validate_json(checked(answer).body)
