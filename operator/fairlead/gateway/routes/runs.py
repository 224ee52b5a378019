"""What people read: runs, their outputs, logs, traces, journals, calls and costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query
from starlette.responses import Response, StreamingResponse

from fairlead.gateway.deps import Services, reader
from fairlead.gateway.errors import JsonResponse, problem
from fairlead.services.reading import RunFilter
from fairlead.storage.base import Run

router = APIRouter(prefix="/v1", dependencies=[Depends(reader)])
_RUN = "/namespaces/{namespace}/runs/{run}"


class RunNotFound(Exception):
    """There is no such run."""


async def find(namespace: str, run: str, gateway: Services) -> Run:
    """Return the run in the path."""
    found = await gateway.reading.find(namespace, run)
    if found is None:
        raise RunNotFound(f"there is no run {run} in namespace {namespace}")
    return found


async def not_found(_request: object, error: Exception) -> Response:
    """Answer for a run that does not exist."""
    return problem(404, "NotFound", str(error))


Found = Annotated[Run, Depends(find)]


@router.get("/namespaces/{namespace}/runs")
async def list_runs(
    namespace: str,
    gateway: Services,
    *,
    workflow: str = "",
    active: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """List the latest runs."""
    asked = RunFilter(namespace=namespace, workflow=workflow, active=active, limit=limit)
    return JsonResponse({"items": await gateway.reading.runs(asked)})


@router.get(_RUN)
async def show(run: Found, gateway: Services) -> Response:
    """Show a run with its nodes."""
    return JsonResponse(await gateway.reading.show(run))


@router.get(_RUN + "/output")
async def output(run: Found) -> Response:
    """Show what a run gave."""
    shown = {"state": run.state.value, "reason": run.reason, "message": run.message, "output": run.output}
    return JsonResponse({**shown, "scriptedCalls": run.scripted_calls})


@router.get(_RUN + "/logs")
async def logs(
    run: Found, gateway: Services, *, after: Annotated[int, Query(ge=0)] = 0, follow: bool = False
) -> Response:
    """Show a run's log; followed, as lines of JSON until the run has ended."""
    if not follow:
        return JsonResponse({"items": await gateway.reading.logs(run, after=after)})

    async def lines() -> AsyncIterator[bytes]:
        async for line in gateway.reading.follow_logs(run, after=after):
            yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get(_RUN + "/trace")
async def trace(run: Found, gateway: Services) -> Response:
    """Show a run's spans."""
    return JsonResponse({"items": await gateway.reading.trace(run)})


@router.get(_RUN + "/journal")
async def journal(run: Found, gateway: Services) -> Response:
    """Show a run's journal."""
    return JsonResponse({"items": await gateway.reading.journal(run)})


@router.get(_RUN + "/calls")
async def calls(run: Found, gateway: Services) -> Response:
    """Show a run's calls."""
    return JsonResponse({"items": await gateway.reading.calls(run)})
