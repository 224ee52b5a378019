"""A world for the scheduler alone: tries take virtual time, and an oracle says how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any

import pytest

from fairlead_agent.expressions import render
from fairlead_agent.graph import STOPPED, Outcome, Schedule, Work, parse_graph
from fairlead_agent.protocol import RESUME, CacheAnswer, Entry, ErrorInfo, Kind, Rerun, State

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
Oracle = Callable[[Work, Any], Outcome]


def failure(reason: str = "ToolFailed", *, retryable: bool = True) -> Outcome:
    """Return how a try fails."""
    return Outcome(error=ErrorInfo(reason=reason, message="no", retryable=retryable))


def name_of(work: Work, _given: Any = None) -> Outcome:
    """Give the name of the work, so that it can be told where an output comes from."""
    return Outcome(work.node if work.item is None else f"{work.node}={work.item}")


@dataclass
class Play:
    """Runs a workflow in virtual time. Every try is one call of a tool; what it is given is rendered as engines do."""

    spec: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    workflows: dict[str, dict[str, Any]] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    oracle: Oracle = name_of
    seconds: Callable[[Work], float] = lambda _work: 1.0
    rerun: Rerun | None = None
    stop_after: float | None = None
    """Seconds until somebody stops the run."""
    cached: dict[str, Any] = field(default_factory=dict)
    """By digest: what other runs have left."""
    watch: Callable[[Schedule], None] = lambda _schedule: None
    """Called whenever nothing more follows at once."""
    journal: list[Entry] = field(default_factory=list)
    ran: list[Work] = field(default_factory=list)
    given: dict[Work, Any] = field(default_factory=dict)
    now: datetime = EPOCH

    def schedule(self) -> Schedule:
        """Return the schedule as the journal has it."""
        schedule = Schedule(
            parse_graph(self.spec),
            inputs=self.inputs,
            run={"uid": "u", "name": "r"},
            workflows=self.workflows,
            definitions=self.definitions,
            rerun=self.rerun,
        )
        for entry in self.journal:
            schedule.apply(entry)
        return schedule

    def finish(self, journal: Iterable[Entry] = ()) -> Play:
        """Run to the end from *journal*."""
        self.journal = list(journal)
        self.now = max((entry.at for entry in self.journal), default=EPOCH)
        schedule = self.schedule()
        running: list[tuple[datetime, int, Work]] = []
        self.journal += schedule.advance(self.now)
        while schedule.ended is None:
            self.watch(schedule)
            for work in schedule.changes().begin:
                self.ran.append(work)
                takes = 0.0 if work.lookup else self.seconds(work)
                heappush(running, (self.now + timedelta(seconds=takes), len(self.ran), work))
            while running and running[0][2] not in schedule.open:
                heappop(running)
            if not self._stop(schedule, running):
                self._next_event(schedule, running)
            self.journal += schedule.advance(self.now)
        assert not schedule.open
        assert schedule.wake_at is None
        return self

    def _stop(self, schedule: Schedule, running: list[tuple[datetime, int, Work]]) -> bool:
        """Stop the run if that comes next."""
        times = [running[0][0]] if running else []
        if schedule.wake_at is not None:
            times.append(schedule.wake_at)
        if self.stop_after is None or schedule.ending is not None:
            return False
        when = EPOCH + timedelta(seconds=self.stop_after)
        if any(time < when for time in times):
            return False
        self.now = max(self.now, when)
        self.journal += schedule.end(STOPPED, self.now)
        return True

    def _next_event(self, schedule: Schedule, running: list[tuple[datetime, int, Work]]) -> None:
        wake_at = schedule.wake_at
        if not running:
            idle = schedule.idle()
            assert idle is not None
            if idle.keys == (RESUME,):
                schedule.suspended = False
                return
            assert wake_at is not None, "it waits for ever"
        if wake_at is not None and (not running or wake_at <= running[0][0]):
            self.now = max(self.now, wake_at)
            return
        self.now, _, work = heappop(running)
        if work.lookup is not None:
            found = self.cached.get(work.lookup.digest)
            answer = CacheAnswer() if found is None else CacheAnswer(found=True, output=found, run="earlier")
            self.journal += schedule.looked_up(work, answer, self.now)
            return
        self.given[work] = render(schedule.node(work).config.get("arguments"), schedule.scope(work))
        self.journal += schedule.outcome(work, self.oracle(work, self.given[work]), self.now)

    @property
    def end(self) -> Entry:
        """How the run ended."""
        assert [entry.kind for entry in self.journal].count(Kind.RUN_FINISHED) == 1
        return self.journal[-1]

    @property
    def took(self) -> float:
        """Seconds from the first entry to the last."""
        return (self.journal[-1].at - self.journal[0].at).total_seconds()

    def of(self, kind: Kind, node: str = "") -> list[Entry]:
        """Return the entries of one kind."""
        return [entry for entry in self.journal if entry.kind is kind and node in ("", entry.node)]

    def node(self, path: str) -> Entry:
        """Return how a node ended last."""
        return self.of(Kind.NODE_FINISHED, path)[-1]

    def states(self) -> dict[str, State | None]:
        """Return how every node ended last."""
        return {entry.node: entry.state for entry in self.of(Kind.NODE_FINISHED)}

    def again(self, from_: str = "Failed", **changes: Any) -> Play:
        """Run once more on what this run has left."""
        kinds = (Kind.NODE_FINISHED, Kind.ITEM_FINISHED)
        good = [entry for entry in self.journal if entry.kind in kinds and entry.state is State.SUCCEEDED]
        rerun = Rerun(uid="before", from_=from_, entries=tuple(entry for entry in good if entry.digest))
        kept = {"inputs": self.inputs, "workflows": self.workflows, "definitions": self.definitions}
        return Play(**{"spec": self.spec, **kept, "oracle": self.oracle, **changes}, rerun=rerun).finish()


class Kit:
    """What tests of the scheduler use."""

    play = Play
    failure = staticmethod(failure)
    name_of = staticmethod(name_of)
    epoch = EPOCH
    nothing_cached = CacheAnswer()

    @staticmethod
    def tool(name: str, *needs: str, **keys: Any) -> dict[str, Any]:
        """Return a node that uses a tool; ``arguments`` are given to it."""
        arguments = keys.pop("arguments", {})
        return {"name": name, "needs": list(needs), "tool": {"name": "t", "arguments": arguments}, **keys}

    @staticmethod
    def finish(*nodes: dict[str, Any], **keys: Any) -> Play:
        """Run nodes to the end; keys that a `Play` does not know are the spec's."""
        own = {name: keys.pop(name) for name in list(keys) if name in Play.__dataclass_fields__}
        return Play({"nodes": list(nodes), **keys}, **own).finish()


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    """Provide virtual time and tools for the scheduler."""
    return Kit
