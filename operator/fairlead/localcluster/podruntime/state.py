"""What the runtime knows of a pod's containers: immutable records, and what is told of them to the API."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

Json = dict[str, Any]

KILLED: Final = 137
BACKOFF_FIRST: Final = timedelta(seconds=10)
BACKOFF_LIMIT: Final = timedelta(minutes=5)
BACKOFF_FORGET: Final = 2 * BACKOFF_LIMIT


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
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def running(self) -> bool:
        """Whether it has a process."""
        return self.running_since is not None

    def started(self, now: datetime) -> Container:
        """Return the container with a process, which is a restart if it had one before."""
        if self.ended is None:
            return replace(self, running_since=now, problem=None, retry_at=None)
        backoff = self.backoff.after_restart(self.ended.finished_at, now)
        restarts = self.restarts + 1
        return replace(self, running_since=now, problem=None, retry_at=None, restarts=restarts, backoff=backoff)

    def exited(self, end: Exit) -> Container:
        """Return the container without its process."""
        return replace(self, running_since=None, ended=end)


def exit_of(returncode: int, *, started_at: datetime, now: datetime, out_of_memory: bool = False) -> Exit:
    """Return how a process ended, in a kubelet's words: a signal *n* is exit code 128 + *n*."""
    signal = -returncode if returncode < 0 else 0
    code = 128 + signal if signal else returncode
    reason = "OOMKilled" if out_of_memory else ("Completed" if code == 0 else "Error")
    message = f"ended by signal {signal}" if signal and not out_of_memory else ""
    return Exit(code, reason, started_at, now, message, signal)


def recover(status: Json, *, now: datetime) -> Container:
    """Return a container as its status in the API tells it, after the runtime itself was started again.

    A process that is said to run is gone: it dies with the runtime that started it.
    """
    name, restarts = status["name"], int(status.get("restartCount") or 0)
    state = status.get("state") or {}
    if "terminated" in state:
        return Container(name, restarts, ended=_parse_exit(state["terminated"], now))
    if "running" in state:
        since = parse_time(state["running"].get("startedAt")) or now
        lost = "the process ended together with the runtime that started it"
        return Container(name, restarts, ended=Exit(KILLED, "ContainerStatusUnknown", since, now, lost))
    last = (status.get("lastState") or {}).get("terminated")
    return Container(name, restarts, ended=_parse_exit(last, now) if last else None)


def _parse_exit(terminated: Json, now: datetime) -> Exit:
    finished = parse_time(terminated.get("finishedAt")) or now
    started = parse_time(terminated.get("startedAt")) or finished
    code, reason = int(terminated.get("exitCode") or 0), terminated.get("reason") or "Error"
    return Exit(code, reason, started, finished, terminated.get("message") or "", int(terminated.get("signal") or 0))


def to_time(moment: datetime) -> str:
    """Return a UTC time as the API writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """Parse a time of the API; None for none."""
    return datetime.fromisoformat(text) if text else None
