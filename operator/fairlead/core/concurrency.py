"""Decides which runs of a workflow may be active at once (`Workflow.spec.concurrency`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Policy = Literal["Queue", "Forbid", "Replace"]


@dataclass(frozen=True, slots=True, order=True)
class Active:
    """A run that is on the work queue or with a pod. Ordered by age."""

    since: datetime
    uid: str
    ending: bool = False
    """It is being stopped already."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that could be queued but for the limit."""

    uid: str
    since: str
    """RFC 3339 in UTC."""
    priority: int = 0
    arrival: int = 0
    """Its place among those of the same second, which is as exact as Kubernetes says when they were created."""

    @property
    def age(self) -> tuple[str, int, str]:
        """What orders runs by age, the oldest first."""
        return self.since, self.arrival, self.uid

    @property
    def turn(self) -> tuple[int, tuple[str, int, str]]:
        """What orders those that wait: by priority, then age."""
        return -self.priority, self.age


@dataclass(frozen=True, slots=True)
class Admission:
    """What becomes of a candidate now."""

    verdict: Literal["Start", "Wait", "Forbidden", "Replaced"]
    replace: tuple[str, ...] = ()
    """The uids of active runs to stop."""


def admit(
    run: Candidate, *, limit: int, policy: Policy, active: Sequence[Active], waiting: Sequence[Candidate]
) -> Admission:
    """Decide about one candidate.

    Args:
        run: the candidate.
        limit: how many runs may be active.
        policy: what happens to those over the limit.
        active: the workflow's active runs.
        waiting: its other candidates.
    """
    free = limit - len(active)
    if policy == "Forbid":
        return Admission("Start" if free > 0 else "Forbidden")
    if policy == "Replace":
        return _replace(run, limit, active, waiting)
    ahead = sum(other.turn < run.turn for other in waiting)
    return Admission("Start" if ahead < free else "Wait")


def _replace(run: Candidate, limit: int, active: Sequence[Active], waiting: Sequence[Candidate]) -> Admission:
    """The newest stay: older candidates give way as the oldest active runs do."""
    newer = sum(other.age > run.age for other in waiting)
    if newer >= limit:
        return Admission("Replaced")
    staying = sorted(one for one in active if not one.ending)
    surplus = len(staying) + newer + 1 - limit
    stopped = tuple(one.uid for one in staying[: max(surplus, 0)])
    return Admission("Start" if len(active) < limit else "Wait", stopped)
