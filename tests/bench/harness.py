"""Compares ways of doing the same thing. Machines are noisy and differ, so what counts is a ratio taken in one run.

Each round measures every way once, in an order that turns around from round to round (A B, B A), and gives one ratio
per way; the median and the middle half of the ratios are the result. Processor time of all processes comes first: it
is what a busy neighbour disturbs least.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROUNDS = 7
_TICK = os.sysconf("SC_CLK_TCK")

Work = Callable[[int], Awaitable[Sequence[float]]]
"""Does so many operations and returns how long each took, in seconds, or nothing where that is not the question."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of doing it."""

    name: str
    work: Work
    processes: Callable[[], Iterable[int]] = tuple
    """The processes that serve it; with their children they are counted beside this one."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round of one arm took, per operation."""

    cpu_ms: float
    server_cpu_ms: float
    wall_ms: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question: how does each arm compare with the first?"""

    title: str
    operations: int
    arms: Sequence[Arm]
    rounds: int = ROUNDS


@dataclass(frozen=True, slots=True)
class Figures:
    """What is no time, measured once: one value for each way, the first being what the others are compared with."""

    title: str
    unit: str
    values: Mapping[str, float]


@dataclass(slots=True)
class Outcome:
    """The answer."""

    comparison: Comparison
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    latencies: dict[str, list[float]] = field(default_factory=dict)

    def median(self, arm: Arm, what: str) -> float:
        """Return the median of a field of an arm's samples."""
        return statistics.median(getattr(sample, what) for sample in self.samples[arm.name])

    def ratio(self, arm: Arm, what: str) -> tuple[float, float, float]:
        """Return the median and the quartiles of an arm's ratios to the first arm, round by round."""
        first = self.samples[self.comparison.arms[0].name]
        pairs = zip(self.samples[arm.name], first, strict=True)
        ratios = [getattr(mine, what) / max(getattr(other, what), 1e-9) for mine, other in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return middle, low, high

    def quantile(self, arm: Arm, percent: int) -> float:
        """Return a percentile of an arm's latencies, in milliseconds."""
        return statistics.quantiles(self.latencies[arm.name], n=100, method="inclusive")[percent - 1] * 1000


async def compare(comparison: Comparison) -> Outcome:
    """Measure every arm, round by round, after a round that does not count."""
    outcome = Outcome(comparison)
    for number in range(-1, comparison.rounds):
        for arm in comparison.arms if number % 2 == 0 else comparison.arms[::-1]:
            sample, latencies = await _measure(arm, comparison.operations)
            if number >= 0:
                outcome.samples.setdefault(arm.name, []).append(sample)
                outcome.latencies.setdefault(arm.name, []).extend(latencies)
    return outcome


async def _measure(arm: Arm, operations: int) -> tuple[Sample, Sequence[float]]:
    servers, own, wall = _cpu_of(arm.processes()), time.process_time(), time.perf_counter()
    latencies = await arm.work(operations)
    wall = time.perf_counter() - wall
    own, servers = time.process_time() - own, _cpu_of(arm.processes()) - servers
    per = 1000 / operations
    return Sample((own + servers) * per, servers * per, wall * per), latencies


def _cpu_of(pids: Iterable[int]) -> float:
    """Return the seconds that processes and all that came from them have used; a child that ended is its parent's."""
    children: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        pid = int(path.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        used[pid] = sum(int(value) for value in fields[11:15]) / _TICK
    todo, total = list(pids), 0.0
    while todo:
        pid = todo.pop()
        total += used.get(pid, 0.0)
        todo += children.get(pid, ())
    return total
