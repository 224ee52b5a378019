"""What calls of models cost, and what they would cost."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from fairlead.gateway.deps import Services, reader
from fairlead.gateway.errors import JsonResponse
from fairlead.gateway.routes.runs import Found
from fairlead.services.costing import CostQuery
from fairlead.services.planning import listed_prices, show_prices

router = APIRouter(prefix="/v1", dependencies=[Depends(reader)])
_NAMESPACE = "/namespaces/{namespace}"


@router.get("/costs")
async def costs(
    gateway: Services,
    *,
    by: Annotated[str, Query(max_length=64)] = "workflow",
    namespace: str = "",
    workflow: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> Response:
    """Sum what calls cost; *by* names what they are summed by, with commas between."""
    asked = CostQuery(tuple(by.split(",")), namespace=namespace, workflow=workflow, since=since, until=until)
    return JsonResponse(await gateway.costing.costs(asked))


@router.get(_NAMESPACE + "/runs/{run}/costs")
async def run_costs(run: Found, gateway: Services) -> Response:
    """Show what the nodes of a run cost."""
    return JsonResponse(await gateway.costing.of_run(run))


@router.get(_NAMESPACE + "/prices")
async def prices(model: Annotated[list[Annotated[str, Query(max_length=256)]], Query(max_length=64)]) -> Response:
    """Show what models cost of which the price list knows it, by their LiteLLM strings."""
    return JsonResponse(show_prices(listed_prices(model)))
