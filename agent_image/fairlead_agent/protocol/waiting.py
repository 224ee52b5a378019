"""What a task waits for, how it is parked, and what it asks of people, agents and earlier runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from fairlead_agent.protocol.base import MAX_ENTRIES, Count, ItemName, Key, NodePath, Wire
from fairlead_agent.protocol.calls import ToolRequest
from fairlead_agent.protocol.journal import ErrorInfo

RESUME = "$resume"
"""The key to wait for when the run is suspended."""


class Signal(Wire):
    """Something that the task waited for has come."""

    key: Key
    value: dict[str, Any]
    """A `Decision` or a `TurnAnswer`, as JSON."""


class Decision(Wire):
    """A person's answer to an approval, or its time-out's."""

    approved: bool
    by: str = ""
    """Who; empty for a time-out."""
    at: AwareDatetime
    comment: str = ""
    via: str = ""
    """``api``, ``annotation`` (not verified), ``timeout``, later a channel."""
    verified: bool = True
    """Whether `by` was authenticated."""


class TurnAnswer(Wire):
    """What came of an agent's turn."""

    output: Any = None
    error: ErrorInfo | None = None


class AwaitSignals(Wire):
    """Wait for any of these signals while something else of the task goes on. Answers at once if one is there."""

    attempt: Count
    keys: Annotated[tuple[Key, ...], Field(min_length=1, max_length=MAX_ENTRIES)]
    wait_seconds: Annotated[float, Field(ge=0, le=30)] = 20


class Signals(Wire):
    """Those of the asked-for signals that have come; none: ask again."""

    signals: tuple[Signal, ...] = ()


class Park(Wire):
    """Give a task that only waits back, until a signal or a time comes. It then goes on by replay, wherever."""

    attempt: Count
    keys: Annotated[tuple[Key, ...], Field(max_length=MAX_ENTRIES)] = ()
    """Any of them wakes it."""
    wake_seconds: Annotated[float, Field(ge=0)] | None = None
    """From now on; None: only a signal."""
    reason: str = ""
    """For people: ``Approval``, ``Turn``, ``Time``, ``Suspended``; the one that people care most for."""


class Parked(Wire):
    """Whether the task was given back; False: a signal is there already (`signals`), it is still this pod's."""

    parked: bool
    signals: tuple[Signal, ...] = ()


class AskApproval(Wire):
    """Have a person decide. Asking again under the same key is harmless; the first question stands."""

    attempt: Count
    key: Key
    """Of the node's or the tool call's `call_key`."""
    node: NodePath
    item: ItemName | None = None
    message: Annotated[str, Field(max_length=65_536)]
    approvers: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    timeout_seconds: Annotated[float, Field(gt=0)] = 86_400
    on_timeout: Literal["Reject", "Approve"] = "Reject"
    tool: ToolRequest | None = None
    """The tool call that is to be approved, word for word."""


class StartTurn(Wire):
    """Hand a task to an Agent of the frozen revision. Asking again under the same key is harmless."""

    attempt: Count
    key: Key
    node: NodePath
    item: ItemName | None = None
    iteration: Count = 1
    agent: str
    prompt: Annotated[str, Field(max_length=1 << 20)]
    output: dict[str, Any] | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] | None = None


class CancelTurns(Wire):
    """Nobody waits for these turns any more."""

    attempt: Count
    keys: Annotated[tuple[Key, ...], Field(min_length=1, max_length=MAX_ENTRIES)]


class CacheLookup(Wire):
    """Is there a result of the same work?"""

    attempt: Count
    node: NodePath
    digest: Annotated[str, Field(min_length=1, max_length=64)]
    max_age_seconds: Annotated[int, Field(ge=0)]


class CacheAnswer(Wire):
    """A result of an earlier run of this namespace, or none."""

    found: bool = False
    output: Any = None
    run: str = ""
    """The uid of the run that it is from."""
