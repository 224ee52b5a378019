"""Puts the routes together."""

from __future__ import annotations

from fastapi import FastAPI

from fairlead.gateway import errors
from fairlead.gateway.limits import BodyLimit
from fairlead.gateway.routes import agents, health, runs
from fairlead.wiring import Gateway


def create_app(gateway: Gateway) -> FastAPI:
    """Return the gateway's application over its services."""
    app = FastAPI(title="Fairlead gateway", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    errors.install(app)
    app.add_exception_handler(runs.RunNotFound, runs.not_found)
    app.include_router(health.router)
    app.include_router(agents.router)
    app.include_router(runs.router)
    app.add_middleware(BodyLimit)
    return app
