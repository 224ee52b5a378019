"""Who is registered, and at work on what."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import Response

from fairlead.gateway.deps import Services, reader
from fairlead.gateway.errors import JsonResponse, problem

router = APIRouter(prefix="/v1/namespaces/{namespace}", dependencies=[Depends(reader)])


@router.get("/agents/{agent}")
async def agent_pool(namespace: str, agent: str, gateway: Services) -> Response:
    """Show an Agent's pool; of an Agent that has none, an empty one."""
    return JsonResponse(await gateway.roster.agent(namespace, agent))


@router.get("/pods/{pod}")
async def registered_pod(namespace: str, pod: str, gateway: Services) -> Response:
    """Show a registered pod."""
    found = await gateway.roster.pod(namespace, pod)
    if found is None:
        return problem(404, "NotFound", f"no pod {pod} in namespace {namespace} is registered")
    return JsonResponse(found)
