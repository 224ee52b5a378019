"""Chooses the one active operator by a Lease, and knows at once when it is no longer this one."""

from __future__ import annotations

from typing import Any, Final

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.actions import spec_of
from fairlead.errors import Conflict, FairleadError, RetryableError, TerminalError
from fairlead.kube import KubeClient, Ref
from fairlead.logs import get_logger

_log = get_logger(__name__)
_LEASE: Final = "coordination.k8s.io/v1"


class LeadershipLost(RetryableError):
    """Another operator may be active from now on: this process has to end."""

    reason = "LeadershipLost"


class Election:
    """One candidate. Others' times are only compared with themselves, by this process's monotonic clock."""

    def __init__(self, kube: KubeClient, clock: Clock, *, namespace: str, identity: str, seconds: float) -> None:
        self._kube = kube
        self._clock = clock
        self._ref = Ref(_LEASE, "Lease", names.OPERATOR_LEASE, namespace)
        self._identity = identity
        self._seconds = seconds
        self._renewed = float("-inf")
        self._seen: tuple[str, str] = ("", "")
        self._since = float("-inf")

    @property
    def holds(self) -> bool:
        """Whether this process may act: its last renewal is recent enough."""
        return self._clock.monotonic() - self._renewed < self._seconds * 2 / 3

    async def acquire(self) -> None:
        """Wait until this process is the one."""
        waiting = False
        while not await self._try():
            if not waiting:
                _log.info("standing_by", identity=self._identity, holder=self._seen[0])
                waiting = True
            await self._clock.sleep(self._seconds / 5)
        _log.info("leading", identity=self._identity)

    async def keep(self) -> None:
        """Renew for ever.

        Raises:
            LeadershipLost: it could not be renewed in time, or somebody else has it.
            Refused: it may not be renewed, and time is up.
        """
        while True:
            await self._clock.sleep(self._seconds / 5)
            if not await self._try() and not self.holds:
                raise LeadershipLost("the Lease of the operator could not be renewed in time")

    async def resign(self) -> None:
        """Let the next one start at once."""
        lease = await self._kube.get(self._ref)
        if lease is not None and spec_of(lease).get("holderIdentity") == self._identity:
            await self._kube.replace(lease | {"spec": {**lease["spec"], "holderIdentity": ""}})
        self._renewed = float("-inf")

    async def _try(self) -> bool:
        """Take or renew the Lease if that is possible now."""
        at = self._clock.monotonic()
        try:
            done = await self._write()
        except LeadershipLost:
            raise
        except FairleadError as error:
            if isinstance(error, TerminalError) and not self.holds:  # a server that is upgraded refuses for a moment
                raise
            _log.warning("lease_not_renewed", error=str(error))
            return False
        if done:
            self._renewed = at
        return done

    async def _write(self) -> bool:
        lease = await self._kube.get(self._ref)
        if lease is None:
            await self._kube.create(self._build({}, takes=True))
            return True
        spec = spec_of(lease)
        mine = spec.get("holderIdentity") == self._identity
        if not mine and not self._is_free(spec):
            if self._renewed > float("-inf"):
                raise LeadershipLost(f"the Lease of the operator is held by {spec.get('holderIdentity')}")
            return False
        try:
            await self._kube.replace(self._build(lease, takes=not mine))
        except Conflict:
            return False
        return True

    def _is_free(self, spec: Any) -> bool:
        holder = spec.get("holderIdentity") or ""
        sight = (holder, str(spec.get("renewTime")))
        if sight != self._seen:
            self._seen, self._since = sight, self._clock.monotonic()
        return not holder or self._clock.monotonic() - self._since > float(spec.get("leaseDurationSeconds") or 0)

    def _build(self, lease: dict[str, Any], *, takes: bool) -> dict[str, Any]:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = spec_of(lease)
        return {
            "apiVersion": _LEASE,
            "kind": "Lease",
            "metadata": lease.get("metadata")
            or {"name": self._ref.name, "namespace": self._ref.namespace, "labels": dict(names.PART_OF_LABELS)},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(round(self._seconds), 1),
                "acquireTime": now if takes else old.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if takes and old else 0),
            },
        }
