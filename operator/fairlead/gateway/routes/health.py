"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from fairlead.gateway.deps import Services

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
