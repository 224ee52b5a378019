"""A pod's working life: register, beat, claim, run, drain."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from fairlead_agent import __version__
from fairlead_agent.client import Gateway, GatewayRefusal, SessionOver
from fairlead_agent.connections import Door
from fairlead_agent.engine import CAPABILITIES, Execution
from fairlead_agent.failures import AppendRefused, Fenced
from fairlead_agent.heartbeat import Heart
from fairlead_agent.logs import now, write
from fairlead_agent.protocol import Claim, HeartbeatReply, Register, Release, Session, Task
from fairlead_agent.remote import TaskPort
from fairlead_agent.settings import Settings
from fairlead_agent.turn import TurnExecution

_CLAIM_SECONDS: Final = 20
_MAX_CLAIM: Final = 100
_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 15.0
_RELEASE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 1.0
T = TypeVar("T")


class Agent:
    """One pod."""

    def __init__(self, settings: Settings, *, gateway: Gateway, door: Door) -> None:
        self._settings = settings
        self._gateway = gateway
        self._door = door
        self._executions: dict[str, Execution | TurnExecution] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._claimed: dict[str, Task] = {}
        self._told: set[str] = set()
        """Tasks whose run is being ended because somebody stopped it."""
        self._suspended: set[str] = set()
        """Tasks that start nothing more for now."""
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()
        self._session: Session | None = None
        self._draining = False
        self._done_one = False
        """Whether a task has ended or was parked: a pod that exists for one has nothing more to do then."""

    def stop(self) -> None:
        """Claim nothing more; `run` returns when the work is done or handed back."""
        if not self._stopping.is_set():
            write("stopping", tasks=len(self._running), drain_seconds=self._settings.drain_seconds)
        self._stopping.set()

    async def run(self) -> None:
        """Work until told to stop, or until the only task is done."""
        done = False
        while not done and not self._stopping.is_set():
            session = await self._register()
            if session is not None:
                done = await self._live(session)
            if not done:
                await self._unless_stopped(asyncio.sleep(_FIRST_DELAY))

    async def _register(self) -> Session | None:
        """Register, however long it takes; None when told to stop meanwhile.

        Raises:
            WrongProtocol: the gateway does not understand this agent; only another image helps.
        """
        message = Register(version=__version__, capabilities=CAPABILITIES, concurrency=self._settings.concurrency)
        delay = _FIRST_DELAY
        while True:
            try:
                session = await self._unless_stopped(self._gateway.register(message))
            except (GatewayRefusal, SessionOver, OSError) as error:
                write("not_registered", level="warning", why=str(error), again_in_seconds=delay)
            else:
                if session is not None:
                    write("registered", pod=session.pod, pool=session.pool, version=__version__)
                return session
            await self._unless_stopped(asyncio.sleep(delay * random.uniform(0.5, 1.0)))  # noqa: S311 - pods spread
            delay = min(delay * 2, _LONGEST_DELAY)
            if self._stopping.is_set():
                return None

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what *work* gives, or None when the pod is told to stop first."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            await _end(working, stopping)

    async def _live(self, session: Session) -> bool:
        """Work for one session; return whether the pod's work is done for good."""
        self._session = session
        self._over.clear()
        self._draining = False
        heart = self._start_heart(session)
        try:
            await self._work(session)
            if self._stopping.is_set():
                await self._drain()
        finally:
            heart.stop()
            self._session = None
            await _end(*self._running.values())
        return session.once and self._done_one

    def _start_heart(self, session: Session) -> Heart:
        loop = asyncio.get_running_loop()

        def soon(reply: HeartbeatReply | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(self._heed, session, reply)

        heart = Heart(
            self._door,
            session,
            tasks=lambda: tuple(self._running),
            on_reply=soon,
            on_over=lambda: soon(None),
        )
        heart.start()
        return heart

    def _heed(self, session: Session, reply: HeartbeatReply | None) -> None:
        """Do what the answer to a heartbeat asks for; None: there is no session any more."""
        if session is not self._session:
            return
        if reply is None:
            self._over.set()
            return
        for task_id in reply.cancel:
            if task_id in self._executions and task_id not in self._told:
                self._told.add(task_id)
                self._executions[task_id].stop()
        self._heed_suspension(set(reply.suspend))
        for task_id in reply.lost:
            if task_id in self._running:
                write("task_lost", level="warning", task=task_id)
                self._running[task_id].cancel()
        self._draining = reply.drain

    def _heed_suspension(self, suspended: set[str]) -> None:
        """Tell the tasks whose run was suspended or goes on."""
        for task_id, execution in self._executions.items():
            if task_id in suspended and task_id not in self._suspended:
                execution.suspend()
            elif task_id not in suspended and task_id in self._suspended:
                execution.resume()
        self._suspended = suspended & self._executions.keys()

    async def _work(self, session: Session) -> None:
        """Claim and run until the session is over, the pod is told to stop, or its only task is done."""
        stops = [asyncio.ensure_future(self._stopping.wait()), asyncio.ensure_future(self._over.wait())]
        claim: asyncio.Task[tuple[Task, ...]] | None = None
        try:
            while not (self._stopping.is_set() or self._over.is_set() or (session.once and self._done_one)):
                claim = claim or self._start_claim(session)
                waiting: set[asyncio.Future[Any]] = {*stops, *self._running.values()}
                waiting |= {claim} if claim else set()
                await asyncio.wait(waiting, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if claim is not None and claim.done():
                    self._take(claim)
                    claim = None
                elif claim is not None and self._draining:
                    await _end(claim)  # what it is given while it waits would keep the pod from its end
                    claim = None
        finally:
            await _end(*stops, *([claim] if claim else []))

    def _start_claim(self, session: Session) -> asyncio.Task[tuple[Task, ...]] | None:
        """Ask for as much work as there is room for."""
        capacity = 1 if session.once else self._settings.concurrency
        room = min(capacity - len(self._running), _MAX_CLAIM)
        if room < 1 or self._draining:
            return None
        return asyncio.create_task(self._claim(room))

    async def _claim(self, room: int) -> tuple[Task, ...]:
        try:
            return await self._gateway.claim(Claim(limit=room, wait_seconds=_CLAIM_SECONDS))
        except GatewayRefusal as refusal:
            write("claim_refused", level="warning", why=str(refusal))
            await asyncio.sleep(_LONGEST_DELAY)
            return ()

    def _take(self, claim: asyncio.Task[tuple[Task, ...]]) -> None:
        """Start what was claimed."""
        try:
            tasks = claim.result()
        except SessionOver:
            write("session_over", level="warning")
            self._over.set()
            return
        for task in tasks:
            write("claimed", namespace=task.run.namespace, run=task.run.name, task=task.id, attempt=task.attempt)
            running = asyncio.create_task(self._execute(task))
            self._running[task.id], self._claimed[task.id] = running, task
            running.add_done_callback(partial(self._forget, task.id))

    def _forget(self, task_id: str, _running: asyncio.Task[None]) -> None:
        self._running.pop(task_id, None)
        self._claimed.pop(task_id, None)
        self._executions.pop(task_id, None)
        self._told.discard(task_id)
        self._suspended.discard(task_id)

    async def _execute(self, task: Task) -> None:
        """Run one task to its end, or until it is somebody else's."""
        port = TaskPort(self._gateway, task)
        kind = TurnExecution if task.kind == "turn" else Execution
        execution = self._executions[task.id] = kind(task, port=port, now=now)
        if task.suspended:
            self._suspended.add(task.id)
        flushing = asyncio.create_task(port.flush_now_and_then())
        keys = {"namespace": task.run.namespace, "run": task.run.name, "task": task.id}
        try:
            ended = await execution.run()
            self._done_one = True
            if ended is None:
                write("parked", **keys)
            else:
                write(f"{task.kind}_finished", **keys, state=ended.state, reason=ended.reason)
        except Fenced as fenced:
            write("task_dropped", level="warning", **keys, why=str(fenced))
        except AppendRefused as refusal:
            write("task_refused", level="error", **keys, why=f"{refusal.reason}: {refusal}")
        except Exception as error:  # noqa: BLE001 - a bug ends one task, not the pod
            write("task_broken", level="error", **keys, why="".join(traceback.format_exception(error)))
        finally:
            await _end(flushing)

    async def _drain(self) -> None:
        """Let tasks finish for a while, then hand back what is left."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self._settings.drain_seconds)
        left = list(self._claimed.values())
        await _end(*self._running.values())
        for task in left:
            await self._release(task)

    async def _release(self, task: Task) -> None:
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._gateway.release(task.id, Release(attempt=task.attempt))
        except (Fenced, SessionOver, GatewayRefusal, TimeoutError) as error:
            write("not_released", level="warning", task=task.id, why=str(error) or "the gateway did not answer")
        else:
            write("released", namespace=task.run.namespace, run=task.run.name, task=task.id)


async def _end(*futures: asyncio.Future[Any]) -> None:
    """Cancel *futures* and wait until they have ended."""
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
