"""The gateway, as the agent sees it. A request that may not have arrived is sent again until there is an answer."""

from __future__ import annotations

import asyncio
import random
import ssl
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from fairlead_agent.connections import Answer, Connections, Door, NoAnswer
from fairlead_agent.failures import Fenced
from fairlead_agent.logs import write
from fairlead_agent.protocol import (
    Append,
    Appended,
    AskApproval,
    AwaitSignals,
    CacheAnswer,
    CacheLookup,
    Call,
    CallReply,
    CancelTurns,
    Claim,
    Claimed,
    Logs,
    Park,
    Parked,
    Problem,
    Register,
    Release,
    Session,
    Signals,
    StartTurn,
    Task,
)

T = TypeVar("T", bound=BaseModel)
_AGAIN: Final = frozenset({408, 425, 429, 502, 503, 504})
_FIRST_DELAY: Final = 0.2
_LONGEST_DELAY: Final = 5.0
_PATIENCE: Final = 30.0
"""Seconds."""
_TOLD: Final = frozenset({1, 10, 100, 1000})
"""After so many tries in vain a person is told."""
_UNAUTHORIZED: Final = 401
_CONFLICT: Final = 409
_UPGRADE_REQUIRED: Final = 426
_GOOD: Final = range(200, 300)


class SessionOver(Exception):
    """The gateway does not know the session any more: register again."""


class WrongProtocol(Exception):
    """The gateway is of a version that this agent does not understand."""


class GatewayRefusal(Exception):
    """The gateway says no, and will say so again."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"{problem.reason}: {problem.message}")
        self.status = status
        self.problem = problem


def tls_context(ca: str) -> ssl.SSLContext:
    """Trust *ca* (PEM text) and nothing else; the system's authorities if it is empty."""
    return ssl.create_default_context(cadata=ca or None)


class Gateway:
    """Talks to the gateway over HTTPS."""

    def __init__(self, door: Door, *, token_file: Path) -> None:
        self._connections = connections(door)
        self._token_file = token_file
        self._session = ""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connections.aclose()

    async def register(self, message: Register) -> Session:
        """Show the pod's token, read anew each time because it rotates, and get a session."""
        token = (await asyncio.to_thread(self._token_file.read_text)).strip()
        session = await self._post("/register", message, Session, token=token)
        self._session = session.session
        return session

    async def claim(self, message: Claim) -> tuple[Task, ...]:
        """Wait for work."""
        patience = message.wait_seconds + _PATIENCE
        return (await self._post("/claim", message, Claimed, patience=patience)).tasks

    async def append(self, task_id: str, message: Append) -> Appended:
        """Add to a task's journal."""
        return await self._post(f"/tasks/{task_id}/journal", message, Appended)

    async def call(self, task_id: str, message: Call) -> CallReply:
        """Have a call made."""
        patience = message.timeout_seconds + _PATIENCE
        return await self._post(f"/tasks/{task_id}/calls", message, CallReply, patience=patience)

    async def ask(self, task_id: str, message: AskApproval) -> None:
        """Have a person decide."""
        await self._send(f"/tasks/{task_id}/approvals", message)

    async def start_turn(self, task_id: str, message: StartTurn) -> None:
        """Hand a task to an agent."""
        await self._send(f"/tasks/{task_id}/turns", message)

    async def cancel_turns(self, task_id: str, message: CancelTurns) -> None:
        """End turns."""
        await self._send(f"/tasks/{task_id}/turns/cancel", message)

    async def signals(self, task_id: str, message: AwaitSignals) -> Signals:
        """Wait for signals."""
        patience = message.wait_seconds + _PATIENCE
        return await self._post(f"/tasks/{task_id}/signals", message, Signals, patience=patience)

    async def park(self, task_id: str, message: Park) -> Parked:
        """Give a task that only waits back."""
        return await self._post(f"/tasks/{task_id}/park", message, Parked)

    async def cached(self, task_id: str, message: CacheLookup) -> CacheAnswer:
        """Look for a result of the same work."""
        return await self._post(f"/tasks/{task_id}/cache", message, CacheAnswer)

    async def log(self, task_id: str, message: Logs) -> None:
        """Add to a run's log."""
        await self._send(f"/tasks/{task_id}/logs", message)

    async def release(self, task_id: str, message: Release) -> None:
        """Give a task back."""
        await self._send(f"/tasks/{task_id}/release", message)

    async def _post(self, path: str, message: BaseModel, answer: type[T], **options: Any) -> T:
        found = await self._send(path, message, **options)
        return answer.model_validate_json(found.body)

    async def _send(self, path: str, message: BaseModel, *, token: str = "", patience: float = _PATIENCE) -> Answer:
        """Send until there is an answer. Every message is idempotent, so that this is safe.

        Raises:
            SessionOver: 401.
            Fenced: 409 with that reason.
            WrongProtocol: 426.
            GatewayRefusal: any other no.
        """
        body = message.model_dump_json(by_alias=True, exclude_none=True).encode()
        delay = _FIRST_DELAY
        for tries in count(1):
            try:
                answer = await self._connections.post(
                    f"/v1{path}", body, token=token or self._session, patience=patience
                )
            except NoAnswer as error:
                wait, why = delay, str(error)
            else:
                if answer.status not in _AGAIN:
                    return checked(answer)
                wait, why = max(delay, retry_after(answer)), f"the gateway answered {answer.status}"
            if tries in _TOLD:
                write("no_answer", level="warning", path=path, tries=tries, why=why)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - so that pods do not come back together
            delay = min(delay * 2, _LONGEST_DELAY)
        raise AssertionError("there is always another try")


def connections(door: Door) -> Connections:
    """Return connections to the gateway."""
    return Connections(door, headers={"content-type": "application/json"})


def checked(answer: Answer) -> Answer:
    """Return a good answer, or raise what a bad one means."""
    if answer.status in _GOOD:
        return answer
    try:
        problem = Problem.model_validate_json(answer.body)
    except ValidationError:
        problem = Problem(reason="HTTPError", message=f"the gateway answered {answer.status}")
    if answer.status == _UNAUTHORIZED:
        raise SessionOver(problem.message)
    if answer.status == _CONFLICT and problem.reason == "Fenced":
        raise Fenced(problem.message)
    if answer.status == _UPGRADE_REQUIRED:
        raise WrongProtocol(problem.message)
    raise GatewayRefusal(answer.status, problem)


def retry_after(answer: Answer) -> float:
    """Return the seconds that the gateway asks to wait, 0 if it does not say."""
    try:
        return min(max(0.0, float(answer.headers.get(b"retry-after", b"0"))), 60.0)
    except ValueError:
        return 0.0
