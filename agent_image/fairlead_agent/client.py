"""The gateway, as the agent sees it. A request that may not have arrived is sent again until there is an answer."""

from __future__ import annotations

import asyncio
import random
import ssl
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

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
_TIMEOUT: Final = 30.0
_TOLD: Final = frozenset({1, 10, 100, 1000})
"""After so many tries in vain a person is told."""
_UNAUTHORIZED: Final = 401
_CONFLICT: Final = 409
_NO_CONTENT: Final = 204


class SessionOver(Exception):
    """The gateway does not know the session any more: register again."""


class GatewayRefusal(Exception):
    """The gateway says no, and will say so again."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"{problem.reason}: {problem.message}")
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Door:
    """Where the gateway is, and how to know that it is the one."""

    url: str
    tls: ssl.SSLContext
    socket: str = ""
    """The path of a Unix socket to connect to in place of the URL's address; empty: none."""


def tls_context(ca: str) -> ssl.SSLContext:
    """Trust *ca* (PEM text) and nothing else; the system's authorities if it is empty."""
    return ssl.create_default_context(cadata=ca or None)


class Gateway:
    """Talks to the gateway over HTTPS. Calls have connections of their own, so that nothing else waits for them."""

    def __init__(self, door: Door, *, token_file: Path) -> None:
        self._control = _client(door, httpx.Limits(max_connections=100, max_keepalive_connections=20))
        self._calls = _client(door, httpx.Limits(max_connections=None, max_keepalive_connections=20))
        self._token_file = token_file
        self._session = ""

    async def aclose(self) -> None:
        """Close every connection."""
        await self._control.aclose()
        await self._calls.aclose()

    async def register(self, message: Register) -> Session:
        """Show the pod's token, read anew each time because it rotates, and get a session."""
        token = (await asyncio.to_thread(self._token_file.read_text)).strip()
        session = await self._post("/register", message, Session, token=token)
        self._session = session.session
        return session

    async def claim(self, message: Claim) -> tuple[Task, ...]:
        """Wait for work."""
        timeout = message.wait_seconds + _TIMEOUT
        return (await self._post("/claim", message, Claimed, timeout=timeout)).tasks

    async def append(self, task_id: str, message: Append) -> Appended:
        """Add to a task's journal."""
        return await self._post(f"/tasks/{task_id}/journal", message, Appended)

    async def call(self, task_id: str, message: Call) -> CallReply:
        """Have a call made."""
        timeout = message.timeout_seconds + _TIMEOUT
        return await self._post(f"/tasks/{task_id}/calls", message, CallReply, timeout=timeout, client=self._calls)

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
        timeout = message.wait_seconds + _TIMEOUT
        return await self._post(f"/tasks/{task_id}/signals", message, Signals, timeout=timeout, client=self._calls)

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
        response = await self._send(path, message, **options)
        return answer.model_validate_json(response.content)

    async def _send(
        self,
        path: str,
        message: BaseModel,
        *,
        token: str = "",
        timeout: float = _TIMEOUT,  # noqa: ASYNC109 - httpx's own, per request
        client: httpx.AsyncClient | None = None,
    ) -> httpx.Response:
        """Send until there is an answer. Every message is idempotent, so that this is safe.

        Raises:
            SessionOver: 401.
            Fenced: 409 with that reason.
            GatewayRefusal: any other no.
        """
        body = message.model_dump_json(by_alias=True, exclude_none=True)
        headers = {"authorization": f"Bearer {token or self._session}", "content-type": "application/json"}
        delay = _FIRST_DELAY
        for tries in count(1):
            try:
                response = await (client or self._control).post(path, content=body, headers=headers, timeout=timeout)
            except httpx.TransportError as error:
                wait, why = delay, f"{type(error).__name__}: {error}"
            else:
                if response.status_code not in _AGAIN:
                    return checked(response)
                wait, why = max(delay, retry_after(response)), f"the gateway answered {response.status_code}"
            if tries in _TOLD:
                write("no_answer", level="warning", path=path, tries=tries, why=why)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - so that pods do not come back together
            delay = min(delay * 2, _LONGEST_DELAY)
        raise AssertionError("there is always another try")


def _client(door: Door, limits: httpx.Limits) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(verify=door.tls, trust_env=False, uds=door.socket or None, limits=limits)
    return httpx.AsyncClient(base_url=f"{door.url}/v1", transport=transport, trust_env=False, timeout=_TIMEOUT)


def checked(response: httpx.Response) -> httpx.Response:
    """Return a good answer, or raise what a bad one means."""
    if response.is_success:
        return response
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = Problem(reason="HTTPError", message=f"the gateway answered {response.status_code}")
    if response.status_code == _UNAUTHORIZED:
        raise SessionOver(problem.message)
    if response.status_code == _CONFLICT and problem.reason == "Fenced":
        raise Fenced(problem.message)
    raise GatewayRefusal(response.status_code, problem)


def retry_after(response: httpx.Response) -> float:
    """Return the seconds that the gateway asks to wait, 0 if it does not say."""
    try:
        return min(max(0.0, float(response.headers.get("retry-after", "0"))), 60.0)
    except ValueError:
        return 0.0
