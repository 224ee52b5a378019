"""What agent pods call: the wire contract of `fairlead_agent.protocol`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from fairlead.gateway.deps import Agent, Bearer, Services, body
from fairlead.gateway.errors import JsonResponse
from fairlead.storage.base import AgentSession, Claimed, Fence
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
    return JsonResponse({"tasks": [show_task(one, now) for one in claimed]})


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


def show_task(claimed: Claimed, now: datetime) -> dict[str, Any]:
    """Return a `fairlead_agent.protocol.Task` as JSON."""
    task, run = claimed.task, claimed.run
    left = None if task.deadline is None else max(0.0, (task.deadline - now).total_seconds())
    return {
        "id": task.id,
        "attempt": task.attempt,
        "run": {"uid": run.uid, "namespace": run.namespace, "name": run.name, "workflow": run.workflow},
        "spec": claimed.revision.document["workflow"]["spec"],
        "inputs": run.inputs,
        "remainingSeconds": left,
        "journal": claimed.journal,
    }


def _fence(task_id: str, session: AgentSession, attempt: int) -> Fence:
    return Fence(task_id, session.id, attempt)


def _reply(message: BaseModel) -> Response:
    return Response(message.model_dump_json(by_alias=True), media_type="application/json")
