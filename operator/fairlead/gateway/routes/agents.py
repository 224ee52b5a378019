"""What agent pods call: the wire contract of `fairlead_agent.protocol`.

These are plain routes: a run makes many of these requests, and resolving FastAPI's dependencies costs more than most of
them do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from fairlead.errors import RetryableError
from fairlead.gateway.deps import bearer, parse, services
from fairlead.gateway.errors import JsonResponse
from fairlead.storage.base import AgentSession, Fence
from fairlead.wiring import Gateway
from fairlead_agent import protocol

router = APIRouter()
_NO_CONTENT: Final = 204
_Handler = Callable[[Request], Awaitable[Response]]
_Asked = TypeVar(
    "_Asked",
    protocol.Append,
    protocol.AskApproval,
    protocol.AwaitSignals,
    protocol.CacheLookup,
    protocol.Call,
    protocol.CancelTurns,
    protocol.Logs,
    protocol.Park,
    protocol.Release,
    protocol.StartTurn,
)
_TaskHandler = Callable[[Request, Gateway, Fence, _Asked], Awaitable[BaseModel | None]]


def _post(path: str) -> Callable[[_Handler], _Handler]:
    def register_it(handler: _Handler) -> _Handler:
        router.add_route(f"/v1{path}", handler, methods=["POST"])
        return handler

    return register_it


def _of_task(path: str, model: type[_Asked]) -> Callable[[_TaskHandler[_Asked]], _TaskHandler[_Asked]]:
    """Serve what is asked of a task. It is fenced: a session that is over writes nothing, whenever that is noticed."""

    def register_it(handler: _TaskHandler[_Asked]) -> _TaskHandler[_Asked]:
        @_post(f"/tasks/{{task_id}}/{path}")
        async def handle(request: Request) -> Response:
            gateway = await services(request)
            session = await gateway.agents.sessions.recognise(await bearer(request))
            asked = await parse(request, model)
            fence = Fence(request.path_params["task_id"], session.id, asked.attempt)
            answer = await handler(request, gateway, fence, asked)
            return Response(status_code=_NO_CONTENT) if answer is None else _reply(answer)

        return handler

    return register_it


@_post("/register")
async def register(request: Request) -> Response:
    """Give a pod a session."""
    gateway, asked = await services(request), await parse(request, protocol.Register)
    return _reply(await gateway.agents.sessions.register(await bearer(request), asked))


@_post("/heartbeat")
async def heartbeat(request: Request) -> Response:
    """Renew a pod's lease."""
    gateway, session = await _session(request)
    return _reply(await gateway.agents.sessions.heartbeat(session, await parse(request, protocol.Heartbeat)))


@_post("/claim")
async def claim(request: Request) -> Response:
    """Hand out tasks."""
    gateway, session = await _session(request)
    asked = await parse(request, protocol.Claim)
    claimed = await gateway.agents.sessions.claim(session, asked, gone=request.is_disconnected)
    now, shown = gateway.clock.now(), []
    for one in claimed:
        try:
            shown.append(await gateway.agents.handout.show(one, now))
        except Exception as error:
            lost = "" if isinstance(error, RetryableError) else one.task.id
            await gateway.agents.sessions.take_back(session, claimed, lost=lost)
            raise
    return JsonResponse({"tasks": shown})


@_of_task("journal", protocol.Append)
async def append(request: Request, gateway: Gateway, fence: Fence, asked: protocol.Append) -> protocol.Appended:
    """Commit journal entries."""
    size = len(await request.body())
    grown = await gateway.agents.journal.append(fence, asked, size=size)
    return protocol.Appended(length=grown.length, cancel=grown.cancelled)


@_of_task("calls", protocol.Call)
async def call(_: Request, gateway: Gateway, fence: Fence, asked: protocol.Call) -> protocol.CallReply:
    """Call a model or a tool."""
    return await gateway.agents.calls.call(fence, asked)


@_of_task("logs", protocol.Logs)
async def logs(_: Request, gateway: Gateway, fence: Fence, asked: protocol.Logs) -> None:
    """Keep lines of a run's log."""
    await gateway.agents.journal.log(fence, asked)


@_of_task("release", protocol.Release)
async def release(_: Request, gateway: Gateway, fence: Fence, asked: protocol.Release) -> None:
    """Take a task back."""
    await gateway.agents.sessions.release(fence, reason=asked.reason)


@_of_task("signals", protocol.AwaitSignals)
async def signals(request: Request, gateway: Gateway, fence: Fence, asked: protocol.AwaitSignals) -> protocol.Signals:
    """Tell what a task waits for, when it comes."""
    return await gateway.agents.waiting.signals(fence, asked, gone=request.is_disconnected)


@_of_task("park", protocol.Park)
async def park(_: Request, gateway: Gateway, fence: Fence, asked: protocol.Park) -> protocol.Parked:
    """Take a task back until what it waits for comes."""
    return await gateway.agents.waiting.park(fence, asked)


@_of_task("approvals", protocol.AskApproval)
async def ask_approval(_: Request, gateway: Gateway, fence: Fence, asked: protocol.AskApproval) -> None:
    """Ask people."""
    await gateway.approvals.ask(fence, asked)


@_of_task("turns", protocol.StartTurn)
async def start_turn(_: Request, gateway: Gateway, fence: Fence, asked: protocol.StartTurn) -> None:
    """Hand a task to an agent."""
    await gateway.agents.turns.start(fence, asked)


@_of_task("turns/cancel", protocol.CancelTurns)
async def cancel_turns(_: Request, gateway: Gateway, fence: Fence, asked: protocol.CancelTurns) -> None:
    """End turns that nobody waits for any more."""
    await gateway.agents.turns.cancel(fence, asked)


@_of_task("cache", protocol.CacheLookup)
async def cache(_: Request, gateway: Gateway, fence: Fence, asked: protocol.CacheLookup) -> protocol.CacheAnswer:
    """Look a result up."""
    return await gateway.agents.results.cached(fence, asked)


async def _session(request: Request) -> tuple[Gateway, AgentSession]:
    """Return the services and the session of the agent that asks."""
    gateway = await services(request)
    return gateway, await gateway.agents.sessions.authenticate(await bearer(request))


def _reply(message: BaseModel) -> Response:
    return Response(message.model_dump_json(by_alias=True), media_type="application/json")
