"""Asks a container how it is: startup, liveness and readiness probes.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from fairlead.clock import Clock
from fairlead.errors import FairleadError
from fairlead.localcluster.podruntime.engine import Running
from fairlead.localcluster.podruntime.state import Json

STARTUP: Final = "startupProbe"
LIVENESS: Final = "livenessProbe"
READINESS: Final = "readinessProbe"
KINDS: Final = (STARTUP, LIVENESS, READINESS)
_SHOWN: Final = 512


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe, with Kubernetes' defaults."""

    kind: str
    action: Json
    delay: float
    period: float
    timeout: float
    successes: int
    failures: int

    @classmethod
    def of(cls, spec: Json, kind: str) -> Probe | None:
        """Return a container's probe of that kind; None if it has none."""
        given = spec.get(kind)
        if not given:
            return None
        return cls(
            kind,
            given,
            delay=given.get("initialDelaySeconds", 0),
            period=given.get("periodSeconds", 10),
            timeout=given.get("timeoutSeconds", 1),
            successes=given.get("successThreshold", 1),
            failures=given.get("failureThreshold", 3),
        )

    @property
    def title(self) -> str:
        """How events call it."""
        return self.kind.removesuffix("Probe").capitalize()


@dataclass(frozen=True, slots=True)
class Tally:
    """How often in a row a probe has passed or failed."""

    good: bool = True
    count: int = 0

    def after(self, *, good: bool) -> Tally:
        """Return the tally after one more answer."""
        return Tally(good, self.count + 1) if good is self.good else Tally(good, 1)

    def verdict(self, probe: Probe) -> bool | None:
        """Return whether the probe holds now; None while that is open."""
        if self.good:
            return True if self.count >= probe.successes else None
        return False if self.count >= probe.failures else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found: ``holds`` is None while that is open."""

    probe: Probe
    holds: bool | None
    message: str = ""
    """Why the last answer was a failure; empty: it was none."""


Tell = Callable[[Verdict], None]


class Prober:
    """Probes one container for as long as it runs."""

    def __init__(self, spec: Json, running: Running, clock: Clock, *, tell: Tell) -> None:
        self._spec, self._running, self._clock, self._tell = spec, running, clock, tell

    async def run(self) -> None:
        """Probe until cancelled: first whether it has started, then the rest."""
        startup = Probe.of(self._spec, STARTUP)
        if startup is not None:
            await self._probe(startup, once=True)
        probes = [Probe.of(self._spec, kind) for kind in (LIVENESS, READINESS)]
        await asyncio.gather(*(self._probe(probe, once=False) for probe in probes if probe is not None))

    async def _probe(self, probe: Probe, *, once: bool) -> None:
        """Probe until cancelled, or (*once*) until the probe holds."""
        await self._clock.sleep(probe.delay)
        tally = Tally()
        while True:
            message = await self._ask(probe)
            tally = tally.after(good=not message)
            verdict = Verdict(probe, tally.verdict(probe), message)
            self._tell(verdict)
            if once and verdict.holds:
                return
            await self._clock.sleep(probe.period)

    async def _ask(self, probe: Probe) -> str:
        """Return why the probe fails; nothing if it does not."""
        try:
            async with asyncio.timeout(probe.timeout):
                if "exec" in probe.action:
                    return await self._execute(probe)
                if "httpGet" in probe.action:
                    return await self._get(probe.action["httpGet"])
                return await self._connect(probe.action.get("tcpSocket") or {})
        except TimeoutError:
            return f"no answer within {probe.timeout:g} s"
        except (FairleadError, OSError, httpx.HTTPError, ValueError) as error:
            return f"{type(error).__name__}: {error}"[:_SHOWN]

    async def _execute(self, probe: Probe) -> str:
        command = probe.action["exec"].get("command") or []
        code, output = await self._running.execute(command, seconds=probe.timeout)
        return f"exit code {code}: {output[:_SHOWN]}" if code else ""

    async def _get(self, action: Json) -> str:
        scheme = action.get("scheme", "HTTP").lower()
        url = f"{scheme}://{self._host(action)}:{self._port(action)}/{action.get('path', '/').lstrip('/')}"
        headers = [(header["name"], header["value"]) for header in action.get("httpHeaders") or ()]
        unchecked = ssl._create_unverified_context() if scheme == "https" else False  # noqa: S323, SLF001 - as a kubelet
        async with httpx.AsyncClient(verify=unchecked, trust_env=False, timeout=None) as client:  # noqa: S113 - ours holds
            answer = await client.get(url, headers=headers, follow_redirects=False)
        return f"HTTP probe failed with statuscode: {answer.status_code}" if answer.is_error else ""

    async def _connect(self, action: Json) -> str:
        _, writer = await asyncio.open_connection(self._host(action), self._port(action))
        writer.close()
        return ""

    def _host(self, action: Json) -> str:
        host = action.get("host") or self._running.address
        if not host:
            raise ValueError("this pod has no network: only exec probes reach it")
        return str(host)

    def _port(self, action: Json) -> int:
        port = action.get("port", 0)
        named = {each.get("name"): each["containerPort"] for each in self._spec.get("ports") or ()}
        return int(str(named.get(port, port)))
