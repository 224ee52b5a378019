"""What agent pods call: the wire contract of `fairlead_agent.protocol`.

These are plain routes: a run makes many of these requests, and resolving FastAPI's dependencies costs more than most of
them do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

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


def _post(path: str) -> Callable[[_Handler], _Handler]:
    def register_it(handler: _Handler) -> _Handler:
        router.add_route(f"/v1{path}", handler, methods=["POST"])
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


@_post("/tasks/{task_id}/journal")
async def append(request: Request) -> Response:
    """Commit journal entries."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.Append)
    size = len(await request.body())
    length = await gateway.agents.journal.append(_fence(request, session, asked.attempt), asked, size=size)
    return JsonResponse({"length": length})


@_post("/tasks/{task_id}/calls")
async def call(request: Request) -> Response:
    """Call a model or a tool."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.Call)
    return _reply(await gateway.agents.calls.call(_fence(request, session, asked.attempt), asked))


@_post("/tasks/{task_id}/logs")
async def logs(request: Request) -> Response:
    """Keep lines of a run's log."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.Logs)
    await gateway.agents.journal.log(_fence(request, session, asked.attempt), asked)
    return Response(status_code=_NO_CONTENT)


@_post("/tasks/{task_id}/release")
async def release(request: Request) -> Response:
    """Take a task back."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.Release)
    await gateway.agents.sessions.release(_fence(request, session, asked.attempt), reason=asked.reason)
    return Response(status_code=_NO_CONTENT)


@_post("/tasks/{task_id}/signals")
async def signals(request: Request) -> Response:
    """Tell what a task waits for, when it comes."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.AwaitSignals)
    fence = _fence(request, session, asked.attempt)
    return _reply(await gateway.agents.waiting.signals(fence, asked, gone=request.is_disconnected))


@_post("/tasks/{task_id}/park")
async def park(request: Request) -> Response:
    """Take a task back until what it waits for comes."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.Park)
    return _reply(await gateway.agents.waiting.park(_fence(request, session, asked.attempt), asked))


@_post("/tasks/{task_id}/approvals")
async def ask_approval(request: Request) -> Response:
    """Ask people."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.AskApproval)
    await gateway.approvals.ask(_fence(request, session, asked.attempt), asked)
    return Response(status_code=_NO_CONTENT)


@_post("/tasks/{task_id}/turns")
async def start_turn(request: Request) -> Response:
    """Hand a task to an agent."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.StartTurn)
    await gateway.agents.turns.start(_fence(request, session, asked.attempt), asked)
    return Response(status_code=_NO_CONTENT)


@_post("/tasks/{task_id}/turns/cancel")
async def cancel_turns(request: Request) -> Response:
    """End turns that nobody waits for any more."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.CancelTurns)
    await gateway.agents.turns.cancel(_fence(request, session, asked.attempt), asked)
    return Response(status_code=_NO_CONTENT)


@_post("/tasks/{task_id}/cache")
async def cache(request: Request) -> Response:
    """Look a result up."""
    gateway, session = await _writer(request)
    asked = await parse(request, protocol.CacheLookup)
    return _reply(await gateway.agents.results.cached(_fence(request, session, asked.attempt), asked))


async def _session(request: Request) -> tuple[Gateway, AgentSession]:
    """Return the services and the session of the agent that asks."""
    gateway = await services(request)
    return gateway, await gateway.agents.sessions.authenticate(await bearer(request))


async def _writer(request: Request) -> tuple[Gateway, AgentSession]:
    """Return the same for what is fenced anyway: a session that is over writes nothing, whenever that is noticed."""
    gateway = await services(request)
    return gateway, await gateway.agents.sessions.recognise(await bearer(request))


def _fence(request: Request, session: AgentSession, attempt: int) -> Fence:
    return Fence(request.path_params["task_id"], session.id, attempt)


def _reply(message: BaseModel) -> Response:
    return Response(message.model_dump_json(by_alias=True), media_type="application/json")
