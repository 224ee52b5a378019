"""``/healthz`` and ``/readyz`` of the operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Check = Callable[[], str]
"""Returns what is wrong, or nothing."""


@asynccontextmanager
async def serve_probes(port: int, *, bind: str, healthy: Check, ready: Check) -> AsyncIterator[None]:
    """Answer probes while the context is open; *port* 0: do not; *bind* empty: on every address."""
    if port == 0:
        yield
        return
    app = web.Application()
    app.router.add_get("/healthz", _handler(healthy))
    app.router.add_get("/readyz", _handler(ready))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, bind or None, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def _handler(check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(text=wrong or "ok", status=503 if wrong else 200)

    return answer
