"""The entries and errors that the scheduler makes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from fairlead_agent.expressions import ExpressionError
from fairlead_agent.graph.frame import Work
from fairlead_agent.graph.tokens import output_size
from fairlead_agent.protocol import Entry, ErrorInfo, Kind, State

MAX_OUTPUT: Final = 1 << 20
"""The most bytes that an output may take, as JSON."""
STOPPED: Final = "Stopped"
TIMEOUT: Final = "Timeout"
ITEM_FAILED: Final = "ItemFailed"
FINALLY_FAILED: Final = "FinallyFailed"
_ENDINGS: Final = {
    STOPPED: (State.CANCELLED, "the run was stopped"),
    TIMEOUT: (State.FAILED, "the run took longer than its timeoutSeconds"),
}
_CANCELLED: Final = {
    STOPPED: "the run was stopped",
    TIMEOUT: "what it was part of took longer than its timeoutSeconds",
    "RunFailed": "the run failed",
    "WorkflowFailed": "the workflow that it was part of failed",
    ITEM_FAILED: "another item failed",
    "NodeFailed": "its node failed",
}
"""What a workflow is told that is taken along."""
_OF_RUN: Final = frozenset({"BudgetExceeded", "ApprovalRejected", "ApprovalTimeout"})
"""Reasons of a node's failure that are the run's, too: people and budgets end it, not mistakes."""


def started(work: Work, at: datetime) -> Entry:
    """Return the entry that starts a node or item."""
    kind = Kind.NODE_STARTED if work.item is None else Kind.ITEM_STARTED
    return Entry(kind=kind, node=work.node, item=work.item, iteration=work.iteration, at=at)


def finished(work: Work, state: State, at: datetime, **more: Any) -> Entry:
    """Return the entry that ends a node or item."""
    return Entry(
        kind=Kind.NODE_FINISHED if work.item is None else Kind.ITEM_FINISHED,
        node=work.node,
        item=work.item,
        iteration=work.iteration,
        try_number=work.try_number,
        at=at,
        state=state,
        **more,
    )


def failed(work: Work, error: ErrorInfo, at: datetime, *, goes_on: bool) -> Entry:
    """Return the entry of a failure. *goes_on*: the error is the output."""
    output = {"reason": error.reason, "message": error.message} if goes_on else None
    return finished(work, State.FAILED, at, error=error, reason=error.reason, output=output)


def try_failed(work: Work, error: ErrorInfo, at: datetime, *, retry_at: datetime) -> Entry:
    """Return the entry of a try that another one follows."""
    return Entry(
        kind=Kind.TRY_FAILED,
        node=work.node,
        item=work.item,
        iteration=work.iteration,
        try_number=work.try_number,
        error=error,
        at=at,
        retry_at=retry_at,
    )


def node_failed(entry: Entry, name: str) -> tuple[str, ErrorInfo]:
    """Return reason and error of a run or workflow that a node's failure ends."""
    error = entry.error or ErrorInfo(reason="NodeFailed", message="it failed")
    named = error.model_copy(update={"message": f'node "{name}": {error.message}'})
    return error.reason if error.reason in _OF_RUN else "NodeFailed", named


def ending(
    work: Work | None, state: State, at: datetime, *, reason: str | None = None, error: ErrorInfo | None = None
) -> Entry:
    """Return the entry that settles how the run (None), or the workflow of a try, will end.

    Without a *reason*, it is the error's, and the state's where there is none.
    """
    reason = reason or (state.value if error is None else error.reason)
    if work is None:
        return Entry(kind=Kind.RUN_ENDING, at=at, state=state, reason=reason, error=error)
    return finished(work, state, at, reason=reason, error=error).model_copy(update={"kind": Kind.WORKFLOW_ENDING})


def ending_for(reason: str, at: datetime) -> Entry:
    """Return the entry that begins to end a run for `STOPPED` or `TIMEOUT`."""
    state, message = _ENDINGS[reason]
    return ending(None, state, at, error=ErrorInfo(reason=reason, message=message, retryable=False))


def cancelling(work: Work, reason: str, at: datetime) -> Entry:
    """Return the entry that begins to end the workflow of a try that is taken along."""
    error = ErrorInfo(reason=reason, message=_CANCELLED[reason], retryable=False)
    return ending(work, State.CANCELLED, at, error=error)


def taken_along(end: Entry) -> str:
    """Return the reason of the nodes that a run or workflow takes with it when it ends so."""
    if end.state is State.CANCELLED or end.reason in _ENDINGS:
        return end.reason
    return "WorkflowFailed" if end.node else "RunFailed"


def expression_error(error: ExpressionError, prefix: str = "") -> ErrorInfo:
    """Return the error of a failed expression."""
    return ErrorInfo(reason=error.reason, message=f"{prefix}{error}", retryable=False)


def item_error(entry: Entry) -> ErrorInfo:
    """Return the error of a node whose item failed: the item's."""
    error = entry.error or ErrorInfo(reason=ITEM_FAILED, message="it failed")
    return error.model_copy(update={"message": f"item {entry.item}: {error.message}"})


def timed_out(seconds: float | None = None) -> ErrorInfo:
    """Return the error of a try that took too long."""
    limit = "" if seconds is None else f" ({seconds:g})"
    return ErrorInfo(reason=TIMEOUT, message=f"it took longer than its timeoutSeconds{limit}")


def output_error(output: Any) -> ErrorInfo | None:
    """Return what is wrong with an output."""
    try:
        size = output_size(output)
    except ValueError as error:
        return ErrorInfo(reason="OutputInvalid", message=f"the output cannot be kept: {error}", retryable=False)
    if size <= MAX_OUTPUT:
        return None
    text = f"the output takes {size} bytes, at most {MAX_OUTPUT} are kept: return less, or a part of it"
    return ErrorInfo(reason="OutputTooLarge", message=text, retryable=False)
