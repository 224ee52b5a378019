"""What the runtime knows of a pod's containers: immutable records, and what is told of them to the API."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

Json = dict[str, Any]

KILLED: Final = 137
LOST: Final = "ContainerStatusUnknown"
BACKOFF_FIRST: Final = timedelta(seconds=10)
BACKOFF_LIMIT: Final = timedelta(minutes=5)
BACKOFF_FORGET: Final = 2 * BACKOFF_LIMIT
_IMAGE_RETRY: Final = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a container that ended waits for its next start.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
    """

    delay: timedelta = timedelta()
    set_at: datetime | None = None

    def ready_at(self, ended_at: datetime) -> datetime:
        """Return when a container that ended at *ended_at* may start again."""
        return ended_at if self._forgotten(ended_at) else ended_at + self.delay

    def after_restart(self, ended_at: datetime, now: datetime) -> Backoff:
        """Return the back-off for the next time."""
        if self._forgotten(ended_at):
            return Backoff(BACKOFF_FIRST, now)
        return Backoff(min(self.delay * 2, BACKOFF_LIMIT), now)

    def _forgotten(self, ended_at: datetime) -> bool:
        return self.set_at is None or ended_at - self.set_at > BACKOFF_FORGET


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended."""

    code: int
    reason: str
    started_at: datetime
    finished_at: datetime
    message: str = ""
    signal: int = 0
    ident: str = ""
    """The container that ended, as the API names it: ``docker://…``."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run now."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod."""

    name: str
    restarts: int = 0
    running_since: datetime | None = None
    ended: Exit | None = None
    """Its latest end; while it runs, the end before."""
    problem: Waiting | None = None
    """Why the latest try to start it came to nothing."""
    retry_at: datetime | None = None
    tries: int = 0
    """How often in a row its image could not be had."""
    backoff: Backoff = field(default_factory=Backoff)
    init: bool = False
    """Whether it prepares the pod: those that do run one after the other, before all others."""
    ident: str = ""
    image_id: str = ""
    up: bool = False
    """Whether it has passed its startup probe."""
    ready: bool = False
    """Whether it passes its readiness probe."""
    unhealthy: str = ""
    """Which of its probes it has failed for good; it is then ended, and started again as its pod's policy says."""
    stopping_since: datetime | None = None

    @property
    def running(self) -> bool:
        """Whether it has a process."""
        return self.running_since is not None

    @property
    def lost(self) -> bool:
        """Whether nobody saw it end."""
        return self.ended is not None and self.ended.reason == LOST

    @property
    def succeeded(self) -> bool:
        """Whether it has ended, and well."""
        return not self.running and self.ended is not None and self.ended.code == 0

    def started(self, now: datetime, *, ident: str = "", image_id: str = "", probed: bool = False) -> Container:
        """Return the container with a process, which is a restart if it had one before.

        Args:
            now: the wall clock.
            ident: the process or container, as the API names it.
            image_id: what it was made from.
            probed: whether probes have to say that it is ready.
        """
        again = self if self.ended is None else self._again(now, self.ended)
        return replace(
            again,
            running_since=now,
            problem=None,
            retry_at=None,
            tries=0,
            ident=ident,
            image_id=image_id,
            up=not probed,
            ready=not probed,
            unhealthy="",
            stopping_since=None,
        )

    def _again(self, now: datetime, ended: Exit) -> Container:
        return replace(self, restarts=self.restarts + 1, backoff=self.backoff.after_restart(ended.finished_at, now))

    def exited(self, end: Exit) -> Container:
        """Return the container without its process."""
        return replace(
            self,
            running_since=None,
            ended=replace(end, ident=self.ident),
            up=False,
            ready=False,
            unhealthy="",
            stopping_since=None,
        )

    def refused(self, problem: Waiting, *, retry_at: datetime) -> Container:
        """Return the container after a try to start it that came to nothing."""
        return replace(self, problem=problem, retry_at=retry_at, tries=self.tries + 1)


def image_problem(container: Container, message: str, *, now: datetime) -> Container:
    """Return a container whose image cannot be had: tried again soon, and after that less and less often."""
    delay = _IMAGE_RETRY if not container.tries else min(BACKOFF_FIRST * 2 ** (container.tries - 1), BACKOFF_LIMIT)
    reason, text = ("ImagePullBackOff", f"Back-off pulling image: {message}")
    if not container.tries:
        reason, text = "ErrImagePull", message
    return container.refused(Waiting(reason, text), retry_at=now + delay)


def exit_of(returncode: int, *, started_at: datetime, now: datetime, out_of_memory: bool = False) -> Exit:
    """Return how a process ended, in a kubelet's words: a signal *n* is exit code 128 + *n*."""
    signal = -returncode if returncode < 0 else 0
    code = 128 + signal if signal else returncode
    reason = "OOMKilled" if out_of_memory else ("Completed" if code == 0 else "Error")
    message = f"ended by signal {signal}" if signal and not out_of_memory else ""
    return Exit(code, reason, started_at, now, message, signal)


def recover(status: Json, *, now: datetime) -> Container:
    """Return a container as its status in the API tells it, after the runtime itself was started again.

    One that is said to run is taken for gone: what still runs is adopted instead.
    """
    name, restarts = status["name"], int(status.get("restartCount") or 0)
    state = status.get("state") or {}
    if "terminated" in state:
        ended = _parse_exit(state["terminated"], now)
        return Container(name, restarts, ended=ended, ident=ended.ident, image_id=status.get("imageID") or "")
    if "running" in state:
        since = parse_time(state["running"].get("startedAt")) or now
        ident = status.get("containerID", "")
        lost = "it ended together with the runtime that started it"
        return Container(name, restarts, ended=Exit(KILLED, LOST, since, now, lost, ident=ident))
    last = (status.get("lastState") or {}).get("terminated")
    return Container(name, restarts, ended=_parse_exit(last, now) if last else None)


def _parse_exit(terminated: Json, now: datetime) -> Exit:
    finished = parse_time(terminated.get("finishedAt")) or now
    started = parse_time(terminated.get("startedAt")) or finished
    code, reason = int(terminated.get("exitCode") or 0), terminated.get("reason") or "Error"
    signal, ident = int(terminated.get("signal") or 0), terminated.get("containerID") or ""
    return Exit(code, reason, started, finished, terminated.get("message") or "", signal, ident)


def to_time(moment: datetime) -> str:
    """Return a UTC time as the API writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """Parse a time of the API; None for none."""
    return datetime.fromisoformat(text) if text else None
