"""The one exception tree. Errors say what a person does next; each edge translates them once.

FairleadError
├── TerminalError            trying again cannot help: Stalled, HTTP 422, exit 3
│   ├── InvalidObject        the object breaks a rule; carries where (file, line, field)
│   ├── TooLarge             what was sent is over a limit: HTTP 413
│   ├── NotSupported         the schema has it, this version does not do it yet
│   └── Refused              a policy (egress, budget, permission) says no
└── RetryableError           it may work later: Reconciling, HTTP 503 + Retry-After
    ├── Conflict             somebody else changed it first
    └── Unavailable          the API server, the storage or a provider did not answer

Not found is ``None``, not an exception. Anything outside this tree is a bug.
"""

from __future__ import annotations

from copy import copy
from typing import Self


class FairleadError(Exception):
    """The root. *reason* is a PascalCase word of the API; the text is a sentence for a person."""

    reason = "InternalError"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason

    def within(self, where: str) -> Self:
        """Return the same error with *where* it happened before its text."""
        found = copy(self)
        found.args = (f"{where}: {self}",)
        return found


class TerminalError(FairleadError):
    """Trying again cannot help; a person has to change something."""

    reason = "Invalid"


class InvalidObject(TerminalError):
    """The object breaks a rule.

    Args:
        field: where in the object, as a JSON path without the leading ``$.`` (``spec.nodes[2].when``).
    """

    reason = "InvalidSpec"

    def __init__(self, message: str, *, field: str = "", reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.field = field


class NotSupported(TerminalError):
    """The schema has the field, this version does not do it yet."""

    reason = "NotSupported"


class TooLarge(TerminalError):
    """What was sent is over a limit."""

    reason = "TooLarge"


class Refused(TerminalError):
    """A policy says no: an address, a budget, a permission."""

    reason = "Refused"


class RetryableError(FairleadError):
    """It may work later.

    Args:
        retry_after: seconds to wait before the next try.
    """

    reason = "ProgressingWithRetry"

    def __init__(self, message: str, *, retry_after: float = 5.0, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after


class Conflict(RetryableError):
    """Somebody else changed it first; observe again."""

    reason = "Conflict"


class Unavailable(RetryableError):
    """The API server, the storage or a provider did not answer."""

    reason = "Unavailable"
