"""Where people see what waits for them, and decide."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from fairlead.gateway.deps import Person, Services, body, reader
from fairlead.gateway.errors import JsonResponse, problem
from fairlead.gateway.routes.runs import Found
from fairlead.services.approvals import Answer

router = APIRouter(prefix="/v1", dependencies=[Depends(reader)])
_OF_RUN = "/namespaces/{namespace}/runs/{run}/approvals"


@router.get("/approvals")
async def pending_everywhere(gateway: Services, *, namespace: str = "") -> Response:
    """List what waits for a decision."""
    return JsonResponse({"items": await gateway.approvals.pending(namespace)})


@router.get("/namespaces/{namespace}/approvals")
async def pending(namespace: str, gateway: Services) -> Response:
    """List what waits for a decision in a namespace."""
    return JsonResponse({"items": await gateway.approvals.pending(namespace)})


@router.get(_OF_RUN)
async def of_run(run: Found, gateway: Services) -> Response:
    """List a run's approvals, decided ones too."""
    return JsonResponse({"items": await gateway.approvals.of_run(run)})


@router.post(_OF_RUN)
async def decide(
    run: Found, gateway: Services, person: Person, answer: Annotated[Answer, Depends(body(Answer))]
) -> Response:
    """Decide."""
    decided = await gateway.approvals.decide(run, person, answer)
    if decided is None:
        asked = f"node {answer.node}" if answer.node else f"the key {answer.key}"
        return problem(404, "NotFound", f"run {run.name} has asked for no approval of {asked[:300]}")
    return JsonResponse(decided)
