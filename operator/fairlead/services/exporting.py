"""Exports the traces of finished runs, each at least once, beside everything else: no run ever waits for it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from fairlead.clock import Clock
from fairlead.errors import RetryableError, TerminalError
from fairlead.logs import get_logger
from fairlead.services.traces import exported_names, load_trace
from fairlead.storage.base import Run, Storage
from fairlead.tracing.ids import trace_id
from fairlead.tracing.otlp import build_requests

_log = get_logger(__name__)
LOOK_SECONDS: Final = 2.0
SETTLE_SECONDS: Final = 2.0
"""After a run's end: a call that was cut off then may still be answered, and its span belongs to the trace."""
_BATCH: Final = 20
_FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 60.0
MAX_TRIES: Final = 5
"""Of a trace that fails while others are taken: then it is given up."""


class Sender(Protocol):
    """Takes requests of the OpenTelemetry protocol."""

    async def send(self, request: bytes) -> str:
        """Send one; return what was not taken of it, or raise."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """How often a trace was not taken while others were."""

    tries: int
    taken: int
    """How many others had been taken when it failed last."""


class Exporting:
    """Exports traces until cancelled.

    Args:
        sender: None: traces are not exported.
        service: the name that the spans are exported under.
        spread: gives a number between 0 and 1, so that several gateways do not come back at the same moment.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        sender: Sender | None,
        *,
        service: str = "fairlead",
        spread: random.Random | None = None,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._sender = sender
        self._service = service
        self._spread = spread or random.Random()  # noqa: S311 - no secret
        self._failures = 0
        self._failed: dict[str, _Failed] = {}
        """By the uid of the run."""
        self._taken = 0
        self._given_up = 0

    async def run(self) -> None:
        """Export what has finished, and then what finishes."""
        if self._sender is None:
            return
        while True:
            try:
                pause = await self.round(self._sender)
            except Exception:  # noqa: BLE001 - a bug here must not end the gateway
                _log.exception("exporting_failed")
                pause = MAX_PAUSE
            await self._clock.sleep(pause)

    async def round(self, sender: Sender) -> float:
        """Export what is there; return the seconds until it is worth looking again."""
        try:
            ready = await self._ready()
            for run in ready:
                await self._export(sender, run)
        except RetryableError as error:
            return self._pause(error)
        self._failures = 0
        return 0 if len(ready) >= _BATCH else LOOK_SECONDS

    async def _ready(self) -> list[Run]:
        """Return whose trace is complete; what has failed before comes last, so that it holds up nothing."""
        waiting = await self._storage.runs_to_export(limit=_BATCH + len(self._failed))
        settled = self._clock.now() - timedelta(seconds=SETTLE_SECONDS)
        ready = [run for run in waiting if run.finished_at is None or run.finished_at <= settled]
        self._failed = {run.uid: self._failed[run.uid] for run in waiting if run.uid in self._failed}
        return sorted(ready, key=lambda run: run.uid in self._failed)

    async def _export(self, sender: Sender, run: Run) -> None:
        try:
            await self._send(sender, run)
        except RetryableError as error:
            if not self._is_hopeless(run):
                raise
            self._given_up += 1
            _log.warning("trace_given_up", **_named(run), error=str(error), given_up=self._given_up)
        except TerminalError as error:
            _log.warning("trace_refused", **_named(run), error=str(error))
        except Exception:  # noqa: BLE001 - a trace that cannot be built must not hold up the others
            _log.exception("trace_lost", **_named(run))
        else:
            self._taken += 1
            self._failures = 0
        await self._storage.mark_exported(run.uid)

    def _is_hopeless(self, run: Run) -> bool:
        """Take note that a trace was not taken; whether it has failed too often while the collector took others."""
        known = self._failed.get(run.uid)
        tries = 1 if known is None else known.tries + (known.taken < self._taken)
        self._failed[run.uid] = _Failed(tries, self._taken)
        return tries >= MAX_TRIES

    async def _send(self, sender: Sender, run: Run) -> None:
        spans = exported_names(await load_trace(self._storage, run))
        resource = {
            "service.name": self._service,
            "k8s.cluster.uid": run.cluster,
            "k8s.namespace.name": run.namespace,
        }
        end = run.finished_at or self._clock.now()
        for request in build_requests(trace_id(run.uid), spans, resource=resource, end=end):
            left = await sender.send(request)
            if left:
                _log.warning("trace_partly_refused", **_named(run), left=left)
            await asyncio.sleep(0)  # a large trace must not hold up what people wait for

    def _pause(self, error: RetryableError) -> float:
        """Return how long to wait after a failure: longer each time, and as long as the collector asks for."""
        self._failures += 1
        doubled = min(MAX_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16))
        pause = max(doubled * (0.5 + self._spread.random() / 2), min(error.retry_after, MAX_PAUSE))
        if self._failures == 1:
            _log.warning("traces_not_exported", error=str(error), retry_seconds=round(pause, 1))
        return pause


def _named(run: Run) -> dict[str, str]:
    return {"uid": run.uid, "namespace": run.namespace, "name": run.name}
