"""Where the time of runs went."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from fairlead.gateway.deps import Services, reader
from fairlead.gateway.errors import JsonResponse
from fairlead.gateway.routes.runs import Found
from fairlead.services.profiling import MAX_RUNS, show_workflow_profile

router = APIRouter(prefix="/v1/namespaces/{namespace}", dependencies=[Depends(reader)])


@router.get("/runs/{run}/profile")
async def run_profile(run: Found, gateway: Services) -> Response:
    """Show where a run's time went."""
    return JsonResponse(await gateway.profiling.run(run))


@router.get("/workflows/{workflow}/profile")
async def workflow_profile(
    namespace: str,
    workflow: str,
    gateway: Services,
    *,
    since: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_RUNS)] = MAX_RUNS,
) -> Response:
    """Show where the time of a workflow's latest finished runs went."""
    profile = await gateway.profiling.workflow(namespace, workflow, since=since, limit=limit)
    return JsonResponse(show_workflow_profile(namespace, workflow, profile))
