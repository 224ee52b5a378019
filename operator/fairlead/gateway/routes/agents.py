"""What agent pods call: the wire contract of `fairlead_agent.protocol`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from fairlead.gateway.deps import Agent, Bearer, Services, body
from fairlead.gateway.errors import JsonResponse
from fairlead.storage.base import AgentSession, Fence
from fairlead_agent import protocol

router = APIRouter(prefix="/v1")
_NO_CONTENT = 204


@router.post("/register")
async def register(
    gateway: Services, token: Bearer, asked: Annotated[protocol.Register, Depends(body(protocol.Register))]
) -> Response:
    """Give a pod a session."""
    return _reply(await gateway.sessions.register(token, asked))


@router.post("/heartbeat")
async def heartbeat(
    gateway: Services, session: Agent, asked: Annotated[protocol.Heartbeat, Depends(body(protocol.Heartbeat))]
) -> Response:
    """Renew a pod's lease."""
    return _reply(await gateway.sessions.heartbeat(session, asked))


@router.post("/claim")
async def claim(
    gateway: Services,
    session: Agent,
    request: Request,
    asked: Annotated[protocol.Claim, Depends(body(protocol.Claim))],
) -> Response:
    """Hand out tasks."""
    claimed = await gateway.sessions.claim(session, asked, gone=request.is_disconnected)
    now = gateway.clock.now()
    try:
        return JsonResponse({"tasks": [await gateway.handout.show(one, now) for one in claimed]})
    except Exception:
        await gateway.sessions.take_back(session, claimed)
        raise


@router.post("/tasks/{task_id}/journal")
async def append(
    task_id: str,
    gateway: Services,
    session: Agent,
    request: Request,
    asked: Annotated[protocol.Append, Depends(body(protocol.Append))],
) -> Response:
    """Commit journal entries."""
    size = len(await request.body())
    length = await gateway.journal.append(_fence(task_id, session, asked.attempt), asked, size=size)
    return JsonResponse({"length": length})


@router.post("/tasks/{task_id}/calls")
async def call(
    task_id: str,
    gateway: Services,
    session: Agent,
    asked: Annotated[protocol.Call, Depends(body(protocol.Call))],
) -> Response:
    """Call a model or a tool."""
    return _reply(await gateway.calls.call(_fence(task_id, session, asked.attempt), asked))


@router.post("/tasks/{task_id}/logs")
async def logs(
    task_id: str,
    gateway: Services,
    session: Agent,
    asked: Annotated[protocol.Logs, Depends(body(protocol.Logs))],
) -> Response:
    """Keep lines of a run's log."""
    await gateway.journal.log(_fence(task_id, session, asked.attempt), asked)
    return Response(status_code=_NO_CONTENT)


@router.post("/tasks/{task_id}/release")
async def release(
    task_id: str,
    gateway: Services,
    session: Agent,
    asked: Annotated[protocol.Release, Depends(body(protocol.Release))],
) -> Response:
    """Take a task back."""
    await gateway.sessions.release(_fence(task_id, session, asked.attempt), reason=asked.reason)
    return Response(status_code=_NO_CONTENT)


@router.post("/tasks/{task_id}/signals")
async def signals(
    task_id: str,
    gateway: Services,
    session: Agent,
    request: Request,
    asked: Annotated[protocol.AwaitSignals, Depends(body(protocol.AwaitSignals))],
) -> Response:
    """Tell what a task waits for, when it comes."""
    fence = _fence(task_id, session, asked.attempt)
    return _reply(await gateway.waiting.signals(fence, asked, gone=request.is_disconnected))


@router.post("/tasks/{task_id}/park")
async def park(
    task_id: str,
    gateway: Services,
    session: Agent,
    asked: Annotated[protocol.Park, Depends(body(protocol.Park))],
) -> Response:
    """Take a task back until what it waits for comes."""
    return _reply(await gateway.waiting.park(_fence(task_id, session, asked.attempt), asked))


@router.post("/tasks/{task_id}/approvals")
async def ask_approval(
    task_id: str,
    gateway: Services,
    session: Agent,
    asked: Annotated[protocol.AskApproval, Depends(body(protocol.AskApproval))],
) -> Response:
    """Ask people."""
    await gateway.approvals.ask(_fence(task_id, session, asked.attempt), asked)
    return Response(status_code=_NO_CONTENT)


@router.post("/tasks/{task_id}/turns")
async def start_turn(
    task_id: str,
    gateway: Services,
    session: Agent,
    asked: Annotated[protocol.StartTurn, Depends(body(protocol.StartTurn))],
) -> Response:
    """Hand a task to an agent."""
    await gateway.turns.start(_fence(task_id, session, asked.attempt), asked)
    return Response(status_code=_NO_CONTENT)


@router.post("/tasks/{task_id}/turns/cancel")
async def cancel_turns(
    task_id: str,
    gateway: Services,
    session: Agent,
    asked: Annotated[protocol.CancelTurns, Depends(body(protocol.CancelTurns))],
) -> Response:
    """End turns that nobody waits for any more."""
    await gateway.turns.cancel(_fence(task_id, session, asked.attempt), asked)
    return Response(status_code=_NO_CONTENT)


@router.post("/tasks/{task_id}/cache")
async def cache(
    task_id: str,
    gateway: Services,
    session: Agent,
    asked: Annotated[protocol.CacheLookup, Depends(body(protocol.CacheLookup))],
) -> Response:
    """Look a result up."""
    return _reply(await gateway.results.cached(_fence(task_id, session, asked.attempt), asked))


def _fence(task_id: str, session: AgentSession, attempt: int) -> Fence:
    return Fence(task_id, session.id, attempt)


def _reply(message: BaseModel) -> Response:
    return Response(message.model_dump_json(by_alias=True), media_type="application/json")
