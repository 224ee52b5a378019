"""What can go wrong between the engine and the world."""

from __future__ import annotations

from fairlead_agent.protocol import ErrorInfo


class Fenced(Exception):
    """The task is no longer this pod's: drop it, write nothing more."""


class AppendRefused(Exception):
    """The journal does not take what was to be appended, and never will."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NodeFailure(Exception):
    """A try or a turn that failed for a reason that belongs to the workflow or the world."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


def failure(reason: str, message: str, *, retryable: bool = False) -> NodeFailure:
    """Return what a try fails with."""
    return NodeFailure(ErrorInfo(reason=reason, message=message, retryable=retryable))
