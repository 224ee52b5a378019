"""The way out of the engine. Whatever answers it is the world: the gateway, or a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fairlead_agent.failures import AppendRefused, Fenced
from fairlead_agent.protocol import (
    AskApproval,
    AwaitSignals,
    CacheAnswer,
    CacheLookup,
    Call,
    CallReply,
    CancelTurns,
    Entry,
    LogLine,
    Park,
    Parked,
    Progress,
    Signal,
    StartTurn,
)

__all__ = ["AppendRefused", "Fenced", "Port"]


class Port(Protocol):
    """What the engine asks of the gateway, for one task.

    Every method may raise `Fenced`; all but `append`, `call` and `log` may raise `NodeFailure` for a refusal. Each may
    be asked again with the same message: that is harmless.
    """

    async def append(self, first: int, entries: Sequence[Entry], progress: Progress | None) -> bool:
        """Add entries to the journal; they are committed when this returns (`AppendRefused`: they will never be).

        Return whether the run is to be cancelled.
        """

    async def call(self, call: Call) -> CallReply:
        """Have the gateway make a call."""

    async def ask(self, question: AskApproval) -> None:
        """Have a person decide; the decision comes as a signal."""

    async def start_turn(self, turn: StartTurn) -> None:
        """Hand a task to an agent; the answer comes as a signal."""

    async def cancel_turns(self, turns: CancelTurns) -> None:
        """End turns that nobody waits for any more."""

    async def signals(self, wanted: AwaitSignals) -> tuple[Signal, ...]:
        """Wait for signals; none: ask again."""

    async def park(self, park: Park) -> Parked:
        """Give the task back until it can go on."""

    async def cached(self, lookup: CacheLookup) -> CacheAnswer:
        """Look for a result of the same work."""

    def log(self, line: LogLine) -> None:
        """Add a line to the run's log, sooner or later."""

    async def flush(self) -> None:
        """Send the lines that wait, while the task is still ours."""
