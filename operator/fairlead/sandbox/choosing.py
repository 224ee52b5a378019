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
IMAGE: Final = "fairlead-sandbox:0.1.0"
_OFF: Final = "sandboxes are switched off (FAIRLEAD_SANDBOX=none): set it to auto, docker or bubblewrap"
_NO_PODS: Final = "the back end pod needs a cluster: outside of one choose docker or bubblewrap"


@dataclass(frozen=True, slots=True)
class Options:
    """What back ends are made with."""

    image: str = IMAGE
    runtime_class: str = ""
    """Of sandboxes that are pods: gVisor's or Kata's, as the cluster names it."""
    namespace: str = "fairlead-sandboxes"
    parallel: int = 4
    """Programs at a time; more wait."""
    warm: int = 1
    """Sandboxes kept ready, for jobs with `limits` and no network."""
    limits: Limits = field(default_factory=Limits)
    policy: Policy | None = None
    """Where the hosts that a program may reach may lead; None: only to public addresses."""


class Choice(Sandbox):
    """The first of several back ends that works here; chosen once, when it is first asked."""

    def __init__(self, makers: Sequence[Make], *, none: str = "") -> None:
        """Take back ends in the order in which they are tried; *none* says why there are none."""
        self._makers = tuple(makers)
        self._made: list[Sandbox] = []
        self._reasons: list[str] = [none] if none else []
        self._chosen: Sandbox | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The chosen one's; ``none`` if there is none, or nobody has asked yet."""
        return self._chosen.name if self._chosen is not None else "none"

    async def unavailable(self) -> str | None:
        """Choose."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)
        return None if self._chosen is not None else "; ".join(self._reasons)

    async def _look(self) -> None:
        for make in self._makers:
            backend = await asyncio.to_thread(make)
            self._made.append(backend)
            reason = await backend.unavailable()
            if reason is None:
                self._chosen = backend
                return
            self._reasons.append(f"{backend.name}: {reason}")

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
        for backend in self._made:
            await backend.aclose()


def build_sandbox(
    wanted: str, *, options: Options | None = None, pods: PodApi | None = None, clock: Clock | None = None
) -> Choice:
    """Return what programs run in; nothing is tried yet.

    *wanted* is ``auto``, ``docker``, ``bubblewrap``, ``pod`` or ``none``; *pods* is the cluster's API, where the
    gateway is in one: ``auto`` then is ``pod``.
    """
    given = options or Options()
    if wanted in {"pod", "auto"} and pods is not None:
        shape = PodShape(given.image, given.namespace, given.runtime_class)
        watch = clock or SystemClock()
        return Choice((lambda: PodSandbox(pods, shape, parallel=given.parallel, clock=watch),))
    match wanted:
        case "auto":
            return Choice((lambda: _docker(given), lambda: _bubblewrap(given)))
        case "docker":
            return Choice((lambda: _docker(given),))
        case "bubblewrap":
            return Choice((lambda: _bubblewrap(given),))
        case "pod" | "none":
            return Choice((), none=_NO_PODS if wanted == "pod" else _OFF)
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
