"""Judges by one clock whether the agents' Leases are alive: their own times are only compared with themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from fairlead.core import names
from fairlead.core.actions import Obj, meta, spec_of


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease as it was seen when it last changed. Times are those of `Judgement.awake`."""

    namespace: str
    name: str
    """Of the Lease: that of the pod."""
    holder: str
    """The pod's uid."""
    renewed: str
    """``renewTime`` as it is written: it is compared for change, never with a clock."""
    duration: float
    since: float
    """When `renewed` was first seen."""
    draining: float | None = None
    """Since when the Lease is seen to ask that the pod takes no more work; None: it does not."""
    lease: Obj = field(default_factory=dict, compare=False)
    """All of it, as it was last seen."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which pods hold a living Lease. Keyed by pod uid."""

    sightings: Mapping[str, Sighting] = field(default_factory=dict)
    expired: tuple[Sighting, ...] = ()
    """Those that are over since the judgement before; told once."""
    over: frozenset[str] = frozenset()
    awake: float = 0.0
    """How long the judge has been watching, in seconds: what it slept through does not count."""
    looked: float | None = None
    """The reading of the judge's monotonic clock after its last look."""

    @property
    def alive(self) -> frozenset[str]:
        """The uids of the pods whose Lease is alive."""
        return frozenset(self.sightings) - self.over

    @property
    def draining(self) -> Mapping[str, float]:
        """For how long living pods have been asked to take no more work, in seconds."""
        alive = self.alive
        return {
            uid: self.awake - found.draining
            for uid, found in self.sightings.items()
            if uid in alive and found.draining is not None
        }


def judge(before: Judgement, leases: Iterable[Obj], *, asked: float, answered: float, patience: float) -> Judgement:
    """Return what follows from *leases* as they are now and from the judgement *before*.

    A Lease whose ``renewTime`` has not changed for its duration is over. One that is seen for the first time gets its
    full duration, whatever its times say. When the judge itself got no processor for a while, the agents may have had
    none either: of the time between two looks, and of that which one takes, *patience* counts at most.

    Args:
        before: the last one.
        leases: all there are.
        asked: the judge's monotonic clock when it asked for *leases*: what it was told is not older.
        answered: the same clock when it had them: what it was told is not newer.
        patience: in seconds.
    """
    since_then = 0.0 if before.looked is None else asked - before.looked
    awake_asked = before.awake + min(since_then, patience)
    awake = awake_asked + min(answered - asked, patience)
    seen = {found.holder: found for found in (_sight(lease, before, awake=awake) for lease in leases) if found.holder}
    over = frozenset(uid for uid, found in seen.items() if awake_asked - found.since > found.duration)
    expired = tuple(seen[uid] for uid in sorted(over - before.over))
    return Judgement(seen, expired, over, awake=awake, looked=answered)


def forgive(before: Judgement) -> Judgement:
    """Return a judgement that gives every Lease its full duration again: nobody could renew them."""
    return Judgement(awake=before.awake, looked=before.looked)


def hear(before: Judgement, pods: AbstractSet[str]) -> Judgement:
    """Return a judgement in which *pods* were heard at its time: they gave a heartbeat, whatever their Leases say."""
    heard = {uid: replace(before.sightings[uid], since=before.awake) for uid in pods & before.sightings.keys()}
    return replace(before, sightings={**before.sightings, **heard}) if heard else before


def wants_drain(lease: Obj) -> bool:
    """Whether somebody asked, on the Lease, that the pod takes no more work."""
    annotations = meta(lease).get("annotations") or {}
    return bool(annotations.get(names.DRAIN_ANNOTATION) == "true")


def _sight(lease: Obj, before: Judgement, *, awake: float) -> Sighting:
    spec = spec_of(lease)
    holder = spec.get("holderIdentity") or ""
    known = before.sightings.get(holder)
    if known is not None and meta(known.lease).get("resourceVersion", "") == meta(lease).get("resourceVersion"):
        return known  # most Leases, most of the time
    renewed = str(spec.get("renewTime") or "")
    unchanged = known is not None and known.renewed == renewed
    drained_since = known.draining if known is not None and known.draining is not None else awake
    return Sighting(
        namespace=meta(lease).get("namespace", ""),
        name=meta(lease)["name"],
        holder=holder,
        renewed=renewed,
        duration=float(spec.get("leaseDurationSeconds") or 15),
        since=known.since if known is not None and unchanged else awake,
        draining=drained_since if wants_drain(lease) else None,
        lease=lease,
    )
