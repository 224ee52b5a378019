"""Why a patch cannot be applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PatchError(Exception):
    """The patch cannot be applied to this object.

    Args:
        status: the HTTP status: 400 for a patch that is no patch, 422 for one that does not fit.
    """

    def __init__(self, message: str, *, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ConflictCause:
    """One field that another manager owns, for the Status' causes (reason FieldManagerConflict)."""

    field: str
    message: str
    reason: str = "FieldManagerConflict"


class ApplyConflict(Exception):
    """Other managers own fields that the applied object wants to change: HTTP 409."""

    def __init__(self, causes: Sequence[ConflictCause]) -> None:
        self.causes = tuple(causes)
        super().__init__(_summary(self.causes))


def _summary(causes: tuple[ConflictCause, ...]) -> str:
    if len(causes) == 1:
        return f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}"
    lines = []
    for message in sorted({cause.message for cause in causes}):
        lines.append(f"{message.replace('conflict', 'conflicts', 1)}:")
        lines += [f"- {cause.field}" for cause in causes if cause.message == message]
    return f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
