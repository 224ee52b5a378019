"""Tells one process from another that has got its number later."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fairlead.clock import Clock

_ZOMBIE = "Z"
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: its number and when it started, in whatever unit the system tells that."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Return the identity of a process that runs."""
        return cls(pid, _started(pid))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return bool(self.started) and _started(self.pid) == self.started

    def signal(self, which: signal.Signals) -> bool:
        """Send a signal, to this very process only; False if it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, which)
        except ProcessLookupError:
            return False
        return True

    async def wait(self, clock: Clock, *, seconds: float) -> bool:
        """Wait until it has ended; False if it has not in time."""
        ends = clock.monotonic() + seconds
        while self.alive():
            if clock.monotonic() > ends:
                return False
            await clock.sleep(_POLL_SECONDS)
        return True


def _started(pid: int) -> str:
    """Return when a process started; nothing if there is none (one that only waits to be collected counts as none)."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] == _ZOMBIE else fields[19]
    answer = subprocess.run(  # noqa: S603 - a number is all that is given
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()
