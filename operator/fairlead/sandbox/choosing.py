"""Chooses the back end that programs run in: what was asked for, or the first that works here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fairlead.clock import Clock, SystemClock
from fairlead.sandbox.base import Job, Limits, Result, Sandbox, SandboxUnavailable
from fairlead.sandbox.pod import PodApi, PodSandbox, PodShape
from fairlead.sandbox.warm import Backend, Shape, WarmSandbox

if TYPE_CHECKING:
    from fairlead.egress import Policy

Make = Callable[[], Sandbox]
"""Makes a back end; its libraries are imported then."""
_LOOK_AGAIN_SECONDS: Final = 30.0
IMAGE: Final = "fairlead-sandbox:0.1.0"
_OFF: Final = "sandboxes are switched off (FAIRLEAD_SANDBOX=none): set it to auto, docker or bubblewrap"
_NO_PODS: Final = "the back end pod needs a cluster: outside of one choose docker or bubblewrap"


@dataclass(frozen=True, slots=True)
class Options:
    """What back ends are made with."""

    image: str = IMAGE
    runtime_class: str = ""
    """Of sandboxes that are pods: gVisor's or Kata's, as the cluster names it."""
    fixed_user: bool = True
    """Whether sandboxes that are pods say which user they run as."""
    namespace: str = "fairlead-sandboxes"
    parallel: int = 4
    """Programs at a time; more wait."""
    warm: int = 1
    """Sandboxes kept ready, for jobs with `limits` and no network."""
    limits: Limits = field(default_factory=Limits)
    policy: Policy | None = None
    """Where the hosts that a program may reach may lead; None: only to public addresses."""


class Choice(Sandbox):
    """The first of several back ends that works here; chosen when it is asked, and for good once there is one."""

    def __init__(self, makers: Sequence[Make], *, clock: Clock, none: str = "") -> None:
        """Take back ends in the order in which they are tried; *none* says why there are none."""
        self._makers = tuple(makers)
        self._clock = clock
        self._none = none
        self._made: list[Sandbox] = []
        self._reasons: list[str] = []
        self._chosen: Sandbox | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0

    @property
    def name(self) -> str:  # type: ignore[override]
        """The chosen one's; ``none`` if there is none, or nobody has asked yet."""
        return self._chosen.name if self._chosen is not None else "none"

    async def unavailable(self) -> str | None:
        """Choose; where there was none, look again from time to time: an engine may be started, or a cluster answer."""
        done = self._looking is not None and self._looking.done()
        if self._looking is None or (done and self._chosen is None and self._is_long_ago()):
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)
        return None if self._chosen is not None else "; ".join(self._reasons)

    def _is_long_ago(self) -> bool:
        return self._clock.monotonic() - self._looked >= _LOOK_AGAIN_SECONDS

    async def _look(self) -> None:
        await self._close()
        self._reasons = [self._none] if self._none else []
        for make in self._makers:
            backend = await asyncio.to_thread(make)
            self._made.append(backend)
            reason = await backend.unavailable()
            if reason is None:
                self._chosen = backend
                break
            self._reasons.append(f"{backend.name}: {reason}")
        self._looked = self._clock.monotonic()

    async def describe(self) -> str:
        """Return in a line which one it is, and why."""
        await self.unavailable()
        return ": ".join(filter(None, (self.name, "; ".join(self._reasons))))

    async def run(self, job: Job) -> Result:
        """Run a job in the chosen one."""
        reason = await self.unavailable()
        if self._chosen is None:
            raise SandboxUnavailable(f"no program can be run here: {reason}")
        return await self._chosen.run(job)

    async def aclose(self) -> None:
        """Close them all."""
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await self._close()

    async def _close(self) -> None:
        while self._made:
            await self._made.pop().aclose()


def build_sandbox(
    wanted: str, *, options: Options | None = None, pods: PodApi | None = None, clock: Clock | None = None
) -> Choice:
    """Return what programs run in; nothing is tried yet.

    *wanted* is ``auto``, ``docker``, ``bubblewrap``, ``pod`` or ``none``; *pods* is the cluster's API, where the
    gateway is in one: ``auto`` then is ``pod``.
    """
    given, watch = options or Options(), clock or SystemClock()
    makers: dict[str, Make] = {"docker": lambda: _docker(given), "bubblewrap": lambda: _bubblewrap(given)}
    if wanted in {"pod", "auto"} and pods is not None:
        shape = PodShape(given.image, given.namespace, given.runtime_class, given.fixed_user)
        return Choice((lambda: PodSandbox(pods, shape, parallel=given.parallel, clock=watch),), clock=watch)
    match wanted:
        case "auto":
            return Choice(tuple(makers.values()), clock=watch)
        case "docker" | "bubblewrap":
            return Choice((makers[wanted],), clock=watch)
        case "pod" | "none":
            return Choice((), clock=watch, none=_NO_PODS if wanted == "pod" else _OFF)
        case _:
            raise SandboxUnavailable(f"there is no back end {wanted!r}: auto, docker, bubblewrap, pod or none")


def _docker(options: Options) -> Sandbox:
    from fairlead.sandbox.docker import Docker

    return _warm(Docker(options.image), options)


def _bubblewrap(options: Options) -> Sandbox:
    from fairlead.sandbox.bubblewrap import Bubblewrap

    return _warm(Bubblewrap(), options)


def _warm(backend: Backend, options: Options) -> Sandbox:
    from fairlead.egress import Policy
    from fairlead.sandbox.proxy import Proxies

    return WarmSandbox(
        backend,
        way_out=Proxies(options.policy or Policy()),
        parallel=options.parallel,
        warm=options.warm,
        shape=Shape.of(options.limits),
    )
