"""``python -m fairlead.controllers``: the operator."""

from __future__ import annotations

import asyncio
import logging
import sys

from fairlead import logs
from fairlead.controllers.process import run
from fairlead.errors import FairleadError
from fairlead.settings import OperatorSettings
from fairlead.wiring import build_operator

_log = logs.get_logger("fairlead.controllers")


async def _main(settings: OperatorSettings) -> None:
    parts = await build_operator(settings)
    try:
        await run(parts)
    finally:
        await parts.aclose()


def main() -> int:
    """Run until told to stop; any other end is an error, so that a supervisor starts the process anew."""
    settings = OperatorSettings()
    logs.setup(level=settings.log_level, fmt=settings.log_format)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        asyncio.run(_main(settings))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0
    except FairleadError as error:
        _log.error("operator_ended", reason=error.reason, error=str(error))
        return 1
    except BaseExceptionGroup as group:
        for each in group.exceptions:
            _log.error("operator_ended", error=str(each), kind=type(each).__name__, exc_info=each)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
