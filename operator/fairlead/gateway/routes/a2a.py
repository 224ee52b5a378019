"""Our agents as A2A servers. Whoever may create WorkflowRuns in a namespace may send its agents messages."""

from __future__ import annotations

import asyncio
import importlib
from functools import partial
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from fairlead.core.actions import Obj
from fairlead.gateway.deps import Bearer, Services
from fairlead.gateway.errors import JsonResponse, problem
from fairlead.services.sessions import Unauthenticated

router = APIRouter(prefix="/a2a/v1/{namespace}")
_VERBS: Final = {
    "GetTask": "get",
    "SubscribeToTask": "get",
    "CancelTask": "update",
    "tasks/get": "get",
    "tasks/resubscribe": "get",
    "tasks/cancel": "update",
}
"""What a method does to WorkflowRuns; whatever else there may be is held to be a message, which makes one."""
_NO_JSON: Final = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "the body is no JSON"}}


async def _speech(request: Request, gateway: Services) -> Any:
    """Return what speaks A2A: the SDK is imported when somebody does, and beside the event loop."""
    state = request.app.state
    if getattr(state, "a2a", None) is None:
        handler: Any = await asyncio.to_thread(importlib.import_module, "fairlead.gateway.a2a.handler")
        state.a2a = handler.build_dispatcher(gateway.abroad.messages)
    return state.a2a


@router.get("")
async def cards(request: Request, namespace: str, gateway: Services, token: Bearer) -> Response:
    """List the cards of the agents of a namespace."""
    await _may_read(gateway, token, namespace)
    await _speech(request, gateway)
    found = await gateway.abroad.messages.agents(namespace)
    return JsonResponse({"agents": [_card(request, gateway, agent) for agent in found]})


@router.get("/{agent}/.well-known/agent-card.json")
async def card(request: Request, namespace: str, agent: str, gateway: Services, token: Bearer) -> Response:
    """Show the card of an agent."""
    await _may_read(gateway, token, namespace)
    await _speech(request, gateway)
    found = await gateway.abroad.messages.agent(namespace, agent)
    return _absent(namespace, agent) if found is None else JsonResponse(_card(request, gateway, found))


@router.post("/{agent}")
async def speak(request: Request, namespace: str, agent: str, gateway: Services, token: Bearer) -> Response:
    """Answer a JSON-RPC request."""
    if not token:
        raise Unauthenticated("send a Kubernetes token as Authorization: Bearer")
    try:
        asked = orjson.loads(await request.body())
    except ValueError:
        await gateway.readers.check(token, namespace)
        return JsonResponse(_NO_JSON)
    # What is judged here is what the SDK reads: another parser might take the same bytes for another method.
    request._json = asked  # noqa: SLF001 - where Starlette keeps what its own parser gave
    verb = _verb(asked)
    username, check = "", partial(gateway.readers.check, token, namespace, verb=verb)
    if verb == "get":
        await check()
    else:
        username = (await gateway.readers.identify(token, namespace, verb=verb)).username
    if verb == "create" and await gateway.abroad.messages.agent(namespace, agent) is None:
        return _absent(namespace, agent)
    speech = await _speech(request, gateway)
    from fairlead.gateway.a2a.handler import Caller

    request.state.a2a_caller = Caller(namespace, agent, username, check)
    answer: Response = await speech.handle_requests(request)
    return answer


async def _may_read(gateway: Services, token: str, namespace: str) -> None:
    if not token:
        raise Unauthenticated("send a Kubernetes token as Authorization: Bearer")
    await gateway.readers.check(token, namespace)


def _verb(asked: Any) -> str:
    method = asked.get("method") if isinstance(asked, dict) else None
    return _VERBS.get(method, "create") if isinstance(method, str) else "create"


def _card(request: Request, gateway: Services, agent: Obj) -> dict[str, Any]:
    from fairlead.gateway.a2a.showing import to_card

    return to_card(agent, base=gateway.abroad.public_url or str(request.base_url).rstrip("/"))


def _absent(namespace: str, agent: str) -> Response:
    return problem(404, "AgentNotFound", f"there is no agent {agent} in namespace {namespace} that takes messages here")
