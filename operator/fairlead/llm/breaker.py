"""Leaves a model that fails alone for a while, so that nobody waits for what will not come."""

from __future__ import annotations

from typing import Final

from fairlead.clock import Clock
from fairlead.errors import FairleadError, RetryableError

FAILURES: Final = 5
"""So many tries in a row open the circuit."""
OPEN_SECONDS: Final = 30.0
_COUNTED: Final = frozenset({"ModelUnavailable", "Timeout"})


class CircuitOpen(RetryableError):
    """The model has failed too often; it is not asked for a while."""

    reason = "CircuitOpen"


class Breaker:
    """Opens after `FAILURES` failures in a row; after `OPEN_SECONDS` one try goes through and decides."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._last = ""
        self._until: float | None = None
        self._probing = False

    def check(self) -> None:
        """Raise `CircuitOpen` if the model is not to be asked now."""
        if self._until is None:
            return
        left = max(self._until - self._clock.monotonic(), 1.0 if self._probing else 0.0)
        if left > 0:
            text = f"{self._failures} tries in a row failed, the last one so: {self._last}"
            raise CircuitOpen(f"{text}; it is asked again in {left:.0f} s", retry_after=left)

    def enter(self) -> None:
        """Begin a try; while the circuit is half open it is the only one.

        Raises:
            CircuitOpen: the model is not to be asked now.
        """
        self.check()
        self._probing = self._until is not None

    def succeeded(self) -> None:
        """Say that the model answered, or at least its provider did."""
        self._failures, self._until, self._probing = 0, None, False

    def failed(self, error: FairleadError) -> None:
        """Say how a try ended; only silence and broken servers count."""
        if error.reason not in _COUNTED:
            self.succeeded()
            return
        self._failures += 1
        self._last, self._probing = str(error)[:200], False
        if self._failures >= FAILURES:
            self._until = self._clock.monotonic() + OPEN_SECONDS

    def left(self) -> None:
        """Say that a try ended without telling anything."""
        self._probing = False
