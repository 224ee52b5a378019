"""What the pod runtime needs of whatever runs containers. There are two: local processes, and Docker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from fairlead.localcluster.podruntime.logs import LogFile
from fairlead.localcluster.podruntime.state import Json
from fairlead.localcluster.podruntime.volumes import Access, Volumes


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that a container is started with."""

    pod: Json
    spec: Json
    """The container's own part of the pod's spec."""
    attempt: int
    """How often it was started before."""
    volumes: Volumes
    log: LogFile
    """Closed by whoever starts the container, once that has ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container's process ended."""

    code: int
    """Negative: the signal that ended it."""
    out_of_memory: bool = False
    at: datetime | None = None
    """When, if the engine knows; otherwise now."""
    lost: str = ""
    """Why nobody knows how it ended; empty: it is known."""


class Running(Protocol):
    """One start of a container."""

    @property
    def ident(self) -> str:
        """What the API calls it: ``docker://…``."""
        ...

    @property
    def image_id(self) -> str:
        """What it was made from."""
        ...

    @property
    def address(self) -> str:
        """Where this machine reaches it; empty: nowhere."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the log says of it."""
        ...

    async def wait(self) -> Ended:
        """Return once it has ended and everything that it said is in its log."""
        ...

    async def stop(self) -> None:
        """Ask it to end."""
        ...

    async def kill(self) -> None:
        """End it."""
        ...

    async def execute(self, command: Sequence[str], *, seconds: float) -> tuple[int, str]:
        """Run a command beside it; return its exit code and the beginning of what it said.

        Raises:
            TimeoutError: it took longer than *seconds*.
        """
        ...


@dataclass(frozen=True, slots=True)
class Adopted:
    """A container that an earlier runtime started: it runs, or has ended since."""

    running: Running
    attempt: int
    started_at: datetime


class Engine(Protocol):
    """Runs containers."""

    @property
    def version(self) -> str:
        """Its name and version, as a node tells them: ``docker://28.2``."""
        ...

    async def start(self, launch: Launch) -> Running:
        """Start a container.

        Raises:
            InvalidObject: its reason is what the container waits for.
            OSError: this machine has no room for it.
            RetryableError: the engine does not answer.
        """
        ...

    def access(self, pod: Json) -> Access:
        """Return who may read the pod's files."""
        ...

    async def adopt(
        self, pod: Json, open_log: Callable[[str, int], LogFile], *, over: Collection[str]
    ) -> Mapping[str, Adopted]:
        """Return what an earlier runtime started for *pod*, by container, without those whose end is known.

        Args:
            pod: its object.
            open_log: takes a container's name and attempt.
            over: the `Running.ident` of those that have ended.
        """
        ...

    async def address(self, pod: Json) -> str:
        """Return the pod's address; empty if it has no network."""
        ...

    async def remove(self, pod: Json) -> None:
        """Remove whatever is left of a pod."""
        ...

    async def sweep(self, known: Collection[str]) -> int:
        """Remove what belongs to no pod of *known* uids; return how many containers that were."""
        ...

    async def aclose(self) -> None:
        """Remove everything that this runtime made: it ends."""
        ...
