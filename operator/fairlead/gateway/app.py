"""Puts the routes together."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from fairlead.gateway import errors
from fairlead.gateway.limits import BodyLimit
from fairlead.gateway.routes import a2a, agents, approvals, costs, health, profile, roster, runs
from fairlead.wiring import Gateway

_SILENT: Final[TelemetryConfig] = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}


def create_app(gateway: Gateway) -> FastAPI:
    """Return the gateway's application over its services."""
    app = FastAPI(title="Fairlead gateway", openapi_url=None, telemetry=_SILENT)
    app.state.gateway = gateway
    errors.install(app)
    app.add_exception_handler(runs.RunNotFound, runs.not_found)
    app.include_router(health.router)
    app.include_router(agents.router)
    app.include_router(a2a.router)
    app.include_router(runs.router)
    app.include_router(approvals.router)
    app.include_router(costs.router)
    app.include_router(profile.router)
    app.include_router(roster.router)
    app.add_middleware(BodyLimit)
    return app
