"""Whether the process lives, whether it can do its work, and what programs run in."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import PlainTextResponse, Response

from fairlead.gateway.deps import Services, reader
from fairlead.gateway.errors import JsonResponse

router = APIRouter()


@router.get("/healthz")
async def healthz() -> Response:
    """Say that the process lives."""
    return PlainTextResponse("ok")


@router.get("/readyz")
async def readyz(gateway: Services) -> Response:
    """Say whether storage answers and nothing is ending."""
    if gateway.agents.sessions.closing:
        return PlainTextResponse("ending", 503)
    await gateway.storage.ping()
    return PlainTextResponse("ok")


@router.get("/v1/namespaces/{namespace}/sandbox", dependencies=[Depends(reader)])  # noqa: FAST003 - the reader looks at it
async def sandbox(gateway: Services) -> Response:
    """Show what the programs of a namespace run in, and why in that."""
    described = await gateway.sandbox.describe()
    return JsonResponse({"name": gateway.sandbox.name, "description": described})
