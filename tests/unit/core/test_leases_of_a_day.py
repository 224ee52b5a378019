"""A day of Leases in simulated time: too little processor, clocks that jump, agents that die."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from fairlead.core.leases import Judgement, judge
from fairlead.settings import OperatorSettings

HOUR: Final = 3600.0
LEASE: Final = 15
BEAT: Final = LEASE / 3
AGENTS: Final = 3
STEP: Final = 600
"""How far the gateway's clock jumps, either way, in seconds."""
EPOCH: Final = datetime(2026, 1, 2, tzinfo=UTC)


class Day:
    """One machine with a gateway, its agents, and an operator that judges their Leases."""

    def __init__(self, seed: int, *, hours: int = 24, look: float = 3.0) -> None:
        self.length = hours * HOUR
        self.pause = look
        self.chance = random.Random(seed)  # noqa: S311 - a test's chance
        self.now = 0.0
        self.jumped = 0.0
        self.leases: dict[str, dict[str, Any]] = {}
        self.died: dict[str, float] = {}
        self.starved: list[tuple[float, float]] = []
        """When nobody, or not the operator, got a processor: from, to."""
        self.evicted: dict[str, float] = {}
        self.judgement = Judgement()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def live(self) -> None:
        """Let a day pass."""
        for _ in range(AGENTS):
            self.be_born()
        self.look()
        for what, every in ((self.jump, 1800), (self.stall, 1200), (self.die, 900)):
            for _ in range(int(self.length / every)):
                self.at(self.chance.uniform(0, self.length - 600), what)
        while self._events and self.now < self.length:
            at, _, what = heapq.heappop(self._events)
            self.now = max(self.now, at)  # what should have happened while all stood still happens now
            what()

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._number += 1
        order = self.chance.randrange(1000) * 1_000_000 + self._number
        heapq.heappush(self._events, (when, order, what))

    def be_born(self) -> None:
        self._number += 1
        uid = f"pod-{self._number}"
        spec = {"holderIdentity": uid, "leaseDurationSeconds": LEASE}
        self.leases[uid] = {"metadata": {"name": uid, "namespace": "n"}, "spec": spec}
        self.beat(uid)

    def beat(self, uid: str) -> None:
        """Renew a Lease by the gateway's clock; the next beat is late when the agent gets little processor."""
        if uid in self.died or uid not in self.leases:
            return
        wall = EPOCH + timedelta(seconds=self.now + self.jumped)
        self.leases[uid]["spec"]["renewTime"] = wall.isoformat()
        late = self.chance.uniform(0, 5) if self.chance.random() < 0.1 else 0.0
        self.at(self.now + BEAT + late, lambda: self.beat(uid))

    def die(self) -> None:
        alive = [uid for uid in self.leases if uid not in self.died]
        if alive:
            self.died[self.chance.choice(alive)] = self.now
            self.at(self.now + self.chance.uniform(0, 60), self.be_born)

    def jump(self) -> None:
        self.jumped += self.chance.choice((-STEP, STEP))

    def stall(self) -> None:
        """Let the machine stand still, for up to five minutes."""
        ends = self.now + self.chance.uniform(0, 300)
        self.starved.append((self.now, ends))
        self.now = ends

    def look(self) -> None:
        """Ask for the Leases; the answer may take long, and so may the way to the judge."""
        asked, told = self.now, [self.copy(lease) for lease in self.leases.values()]
        takes = self.chance.uniform(0, 20) if self.chance.random() < 0.002 else 0.01
        self.at(self.now + takes, lambda: self.hear(asked, told))

    @staticmethod
    def copy(lease: dict[str, Any]) -> dict[str, Any]:
        return {**lease, "spec": dict(lease["spec"])}

    def hear(self, asked: float, told: list[dict[str, Any]]) -> None:
        if self.now - asked > 1:
            self.starved.append((asked, self.now))
        self.judgement = judge(self.judgement, told, asked=asked, answered=self.now, patience=2 * self.pause)
        for lost in self.judgement.expired:
            self.evicted[lost.holder] = self.now
            self.leases.pop(lost.holder)
        pause = self.chance.uniform(0, 40) if self.chance.random() < 0.001 else 0.0
        if pause:
            self.starved.append((self.now, self.now + pause))
        self.at(self.now + self.pause + pause, self.look)

    def waited(self, uid: str) -> float:
        """Return how long a dead agent stayed in the registry, without the time in which nobody could look."""
        died, gone = self.died[uid], self.evicted[uid]
        lost = sum(max(0.0, min(end, gone) - max(begin, died)) for begin, end in self.starved)
        return gone - died - lost


def check(day: Day) -> None:
    day.live()
    assert day.died
    assert day.evicted.keys() <= day.died.keys(), "a live agent was taken for dead"
    assert {uid for uid, at in day.died.items() if at < day.length - 1200} <= day.evicted.keys()
    assert max(day.waited(uid) for uid in day.evicted) <= LEASE + 2 * day.pause + 0.5


def test_judge_in_a_day_no_live_agent_is_evicted_and_every_dead_one_is() -> None:
    check(Day(1))


@pytest.mark.parametrize("seed", range(3))
def test_judge_who_looks_as_often_as_by_default_is_at_most_two_seconds_late(seed: int) -> None:
    look = OperatorSettings().lease_poll_seconds
    assert 2 * look + 0.5 <= 2
    check(Day(seed, hours=2, look=look))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 20))
def test_judge_on_many_days(seed: int) -> None:
    check(Day(seed))
