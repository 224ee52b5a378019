"""Judges by one clock whether the agents' Leases are alive: their own times are only compared with themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fairlead.core.actions import Obj, meta, spec_of


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease as it was seen when it last changed."""

    namespace: str
    pod: str
    holder: str
    """The pod's uid."""
    renewed: str
    """``renewTime`` as it is written: it is compared for change, never with a clock."""
    duration: float
    since: float
    """The reading of the judge's own monotonic clock when `renewed` was first seen."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which pods hold a living Lease. Keyed by pod uid."""

    sightings: Mapping[str, Sighting] = field(default_factory=dict)
    expired: tuple[Sighting, ...] = ()
    """Those that are over since the judgement before; told once."""
    over: frozenset[str] = frozenset()

    @property
    def alive(self) -> frozenset[str]:
        """The uids of the pods whose Lease is alive."""
        return frozenset(self.sightings) - self.over


def judge(before: Judgement, leases: Iterable[Obj], *, now: float, grace: float) -> Judgement:
    """Return what follows from the Leases as they are now.

    A Lease whose ``renewTime`` has not changed for its duration plus *grace* (one interval between two looks) is over.
    A Lease that is seen for the first time gets its full duration, whatever its times say.
    *now* is a reading of the monotonic clock of the process that judges.
    """
    seen = {found.holder: found for found in (_sight(lease, before, now=now) for lease in leases) if found.holder}
    over = {uid for uid, found in seen.items() if now - found.since > found.duration + grace}
    return Judgement(seen, tuple(seen[uid] for uid in sorted(over - before.over)), frozenset(over))


def _sight(lease: Obj, before: Judgement, *, now: float) -> Sighting:
    spec = spec_of(lease)
    holder, renewed = spec.get("holderIdentity") or "", str(spec.get("renewTime") or "")
    known = before.sightings.get(holder)
    unchanged = known is not None and known.renewed == renewed
    return Sighting(
        namespace=meta(lease).get("namespace", ""),
        pod=meta(lease)["name"],
        holder=holder,
        renewed=renewed,
        duration=float(spec.get("leaseDurationSeconds") or 15),
        since=known.since if known is not None and unchanged else now,
    )
