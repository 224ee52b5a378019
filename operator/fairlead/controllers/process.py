"""The life of the operator's process: stand by, lead, reconcile, and end rather than linger."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import kopf

from fairlead.controllers.handlers import Memo, build_registry
from fairlead.controllers.probes import serve_probes
from fairlead.controllers.startup import build_settings
from fairlead.core import names
from fairlead.errors import FairleadError, Refused, RetryableError
from fairlead.logs import get_logger
from fairlead.services.operator import Operator
from fairlead.services.watchdog import WatchDead
from fairlead.wiring import OperatorParts

_log = get_logger(__name__)
_RETRY_SECONDS = 2.0
_KINDS = ("Workflow", "WorkflowRun", "Agent", "Model")


@dataclass(slots=True)
class Vitals:
    """What the probes look at."""

    parts: OperatorParts
    operator: Operator | None = None
    started: bool = False

    def unhealthy(self) -> str:
        """Return why the process should be started anew, or nothing."""
        if self.operator is None:
            return ""
        if not self.parts.election.holds:
            return "the Lease of the operator is not renewed"
        age = self.parts.clock.monotonic() - self.operator.resynced_at
        limit = 3 * self.parts.settings.resync_seconds + 30
        return f"no full look for {age:.0f} s" if age > limit else ""

    def unready(self) -> str:
        """Return why the process is not at work or standing by, or nothing."""
        return self.unhealthy() if self.started else "starting"


async def run(parts: OperatorParts) -> None:
    """Run the operator until it is told to stop.

    Raises:
        ExceptionGroup: something that must not end has ended; the process has to.
    """
    vitals = Vitals(parts)
    main = asyncio.current_task()
    assert main is not None  # noqa: S101 - a coroutine runs in a task
    _on_signals(main.cancel)
    settings = parts.settings
    async with serve_probes(
        settings.probe_port, bind=settings.probe_bind, healthy=vitals.unhealthy, ready=vitals.unready
    ):
        vitals.started = True
        try:
            await parts.election.acquire()
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(parts.election.keep(), name="election")
                vitals.operator = await _start(parts)
                await _lead(parts, vitals.operator)
                keeping.cancel()
        finally:
            vitals.operator = None
            with suppress(FairleadError):
                await parts.election.resign()


def _on_signals(stop: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


async def _start(parts: OperatorParts) -> Operator:
    """Compose the operator, waiting for what it cannot start without."""
    while True:
        try:
            for kind in _KINDS:
                await parts.kube.versions(names.API_VERSION, kind)
            operator = await parts.operator()
            await operator.prime()
        except RetryableError as error:
            _log.warning("start_hindered", error=str(error))
        except Refused as error:
            if error.reason != "NotFound":
                raise
            _log.warning("crds_missing", error=str(error), fix="apply crds/")
        else:
            return operator
        await parts.clock.sleep(_RETRY_SECONDS)


async def _lead(parts: OperatorParts, operator: Operator) -> None:
    """Do the operator's work until it is told to stop, or one part of it ends."""
    stopped, namespaces = asyncio.Event(), parts.settings.watch_namespaces
    async with asyncio.TaskGroup() as group:
        working = group.create_task(operator.run(), name="operator")

        def stop() -> None:
            _log.info("stopping")
            stopped.set()
            working.cancel()

        watches = await kopf.spawn_tasks(
            registry=build_registry(),
            settings=build_settings(),
            memo=Memo(parts.kube, operator),
            # Its own is made of a user name, which a container need not have; the type is private, and a text.
            identity=parts.identity,  # type: ignore[arg-type]
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=True,
            stop_flag=stopped,
        )
        _on_signals(stop)  # Kopf has set its own, which would leave our tasks running
        await kopf.run_tasks(watches, ignored=asyncio.all_tasks() - set(watches))
        if not stopped.is_set():
            raise WatchDead("Kopf has ended by itself")
