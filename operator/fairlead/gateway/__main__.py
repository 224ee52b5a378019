"""``python -m fairlead.gateway``: the gateway process. Settings: `fairlead.settings.GatewaySettings`."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from fairlead import logs
from fairlead.clock import SystemClock
from fairlead.errors import RetryableError, TerminalError
from fairlead.gateway.server import serve
from fairlead.settings import GatewaySettings, read_settings
from fairlead.wiring import Gateway, build_gateway

_log = logs.get_logger(__name__)
_PATIENCE_SECONDS: Final = 120.0
_RETRY_SECONDS: Final = 1.0
_EXIT_TERMINAL: Final = 3


async def run(settings: GatewaySettings) -> None:
    """Build the gateway and serve until told to end."""
    gateway = await _build(settings)
    try:
        await serve(gateway, bind=settings.bind, port=settings.port, socket=settings.socket)
    finally:
        await gateway.aclose()


async def _build(settings: GatewaySettings) -> Gateway:
    """Wait for the API server and storage, but not for ever: whoever started this process should know."""
    clock = SystemClock()
    deadline = clock.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return await build_gateway(settings, clock=clock)
        except RetryableError as error:
            if clock.monotonic() > deadline:
                raise
            _log.info("gateway_waits", error=str(error))
            await clock.sleep(_RETRY_SECONDS)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where it is installed: a request costs less CPU then."""
    if find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


def main() -> int:
    """Run the process; return its exit code."""
    settings = read_settings(GatewaySettings)
    logs.setup(level=settings.log_level, fmt=settings.log_format)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run(settings))
    except (TerminalError, RetryableError) as error:
        _log.error("gateway_failed", reason=error.reason, error=str(error))
        return _EXIT_TERMINAL if isinstance(error, TerminalError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
