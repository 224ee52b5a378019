"""The journal, and the log beside it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from fairlead_agent.protocol.base import MAX_ENTRIES, MAX_LINES, MAX_TASKS, Count, ItemName, Key, NodePath, Wire


class State(StrEnum):
    """How a node, an item of a ``forEach`` or a run ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"


def _written(text: str) -> str:
    return text.encode(errors="replace").decode()


class ErrorInfo(Wire):
    """Why something failed, for a person and for `retry.on`."""

    reason: str
    """``ExpressionError``, ``Timeout``, ``ToolFailed``, ``ModelFailed``, ``RateLimited``, ``OutputInvalid`` …"""
    message: Annotated[str, AfterValidator(_written)]
    """Halves of characters, which nothing can write, are question marks."""
    retryable: bool = True
    """False where the same request must fail again (a bad argument, a refused address)."""
    retry_after_seconds: float | None = None


class Kind(StrEnum):
    """What a journal entry records."""

    NODE_STARTED = "NodeStarted"
    ITEM_STARTED = "ItemStarted"
    TRY_FAILED = "TryFailed"
    """A try of a node or item failed and `retry` grants another: `try_number` is the failed one, `retry_at` its end."""
    WAITING = "Waiting"
    """A try waits for a signal or a time (`Entry.wait`); what it waits for is fixed from here on."""
    ITEM_FINISHED = "ItemFinished"
    NODE_FINISHED = "NodeFinished"
    REPEATED = "Repeated"
    """The region of a ``repeat`` goes round once more: `node` is the repeating node, `iteration` the new iteration."""
    WORKFLOW_ENDING = "WorkflowEnding"
    """How the workflow of a try will end (`state`, `reason`, `error`) is settled; handlers in it have yet to run."""
    RUN_ENDING = "RunEnding"
    """The same of the run itself."""
    RUN_FINISHED = "RunFinished"
    CHECKPOINT = "Checkpoint"
    """Of a turn's own graph: `output` is what its checkpointer wrote."""
    TURN_FINISHED = "TurnFinished"
    """Ends the task of an agent's turn: `state`, and `output` or `error`."""


class WaitFor(StrEnum):
    """What a try can wait for without a pod."""

    APPROVAL = "Approval"
    TURN = "Turn"
    TIME = "Time"


class Wait(Wire):
    """What a try waits for."""

    kind: WaitFor
    key: Key = ""
    """Of the signal; empty for a time."""
    until: AwareDatetime | None = None
    """When it is over, whatever comes; set for a time."""


class Entry(Wire):
    """One line of the journal. The journal is the checkpoint: what it says was done is never done again."""

    kind: Kind
    at: AwareDatetime
    """The agent's clock; for display, never for decisions."""
    node: NodePath = ""
    item: ItemName | None = None
    """Which item of a ``forEach``: the index in decimal, or the key of a map. None: the node itself."""
    iteration: Count = 1
    """How often the node has been started in its scope: the same node in the next round of a ``repeat`` is another
    record."""
    try_number: Count = 1
    state: State | None = None
    """Set on the *Finished kinds."""
    output: Any = None
    error: ErrorInfo | None = None
    reason: str = ""
    """Why it is Skipped or Cancelled, or how the run ended (``WhenFalse``, ``UpstreamFailed``, ``NodeFailed`` …)."""
    retry_at: AwareDatetime | None = None
    wait: Wait | None = None
    digest: Annotated[str, Field(max_length=64)] = ""
    """On NodeFinished and ItemFinished: SHA-256 of the definition and of every value that it was given. The same digest
    means the same work, which `cache` and reruns build on."""
    reused: Annotated[str, Field(max_length=64)] = ""
    """The uid of the run whose result this is; `reason` is then ``Reused`` or ``Cached``."""
    cache_seconds: Annotated[int, Field(ge=0)] | None = None
    """Keep `output` under `digest` for later runs, for so long."""


class Progress(Wire):
    """A summary for `status`; the agent knows it best."""

    done: Count
    total: Count
    current: Annotated[tuple[NodePath, ...], Field(max_length=MAX_TASKS)] = ()
    """At most ten names of nodes that run now."""


class Append(Wire):
    """Add entries to the journal. Sending the same again is harmless: what is there already is skipped.

    An append that holds `Kind.RUN_FINISHED` also holds the final state of every node, and ends the task.
    """

    attempt: Count
    first: Count
    """The sequence number of the first entry: the length of the journal before it."""
    entries: Annotated[tuple[Entry, ...], Field(max_length=MAX_ENTRIES)]
    progress: Progress | None = None


class Appended(Wire):
    """The entries are committed."""

    length: int
    """The length of the journal now."""
    cancel: bool = False
    """The run is to end: nothing new begins but its handlers."""


class LogLine(Wire):
    """One line of a run's log."""

    at: AwareDatetime
    level: Literal["debug", "info", "warning", "error"] = "info"
    node: NodePath = ""
    text: str


class Logs(Wire):
    """Lines for the run's log, kept in storage and there when the pod is gone. What is there already is skipped."""

    attempt: Count
    first: Count
    """How many lines of this attempt came before these."""
    lines: Annotated[tuple[LogLine, ...], Field(max_length=MAX_LINES)]
