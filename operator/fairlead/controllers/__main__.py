"""``python -m fairlead.controllers``: the operator."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator

from fairlead import logs
from fairlead.controllers.process import run
from fairlead.errors import FairleadError
from fairlead.settings import OperatorSettings, read_settings
from fairlead.wiring import build_operator

_log = logs.get_logger("fairlead.controllers")


async def _main(settings: OperatorSettings) -> None:
    parts = await build_operator(settings)
    try:
        await run(parts)
    finally:
        await parts.aclose()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Return the errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _if_bug(error: BaseException) -> BaseException | None:
    """Return what deserves a traceback."""
    return None if isinstance(error, FairleadError) else error


def main() -> int:
    """Run until told to stop; any other end is an error, so that a supervisor starts the process anew."""
    settings = read_settings(OperatorSettings)
    logs.setup(level=settings.log_level, fmt=settings.log_format)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        asyncio.run(_main(settings))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0
    except FairleadError as hindrance:
        _log.error("operator_ended", reason=hindrance.reason, error=str(hindrance))
        return 1
    except BaseExceptionGroup as group:
        for error in _leaves(group):
            _log.error("operator_ended", reason=type(error).__name__, error=str(error), exc_info=_if_bug(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
