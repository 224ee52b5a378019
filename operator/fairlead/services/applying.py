"""Applies plans: actions in order, then the status. Writes the few Events that people get to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from fairlead.clock import Clock
from fairlead.core.actions import Action, Create, Delete, Drain, Obj, Plan, meta, owner_of, spec_of
from fairlead.core.leases import wants_drain
from fairlead.core.manifests import build_event
from fairlead.core.statuses import status_patch
from fairlead.errors import Conflict, FairleadError, Refused
from fairlead.kube import KubeClient, Ref
from fairlead.logs import get_logger
from fairlead.services.election import LeadershipLost
from fairlead.services.leases import drain_request, lease_ref
from fairlead.services.objects import Objects

_log = get_logger(__name__)


class Applier:
    """The operator's only way to change objects.

    Args:
        leads: whether this process may act. Asked before every write: a process that was stopped for a while goes on
            where it was, and another one may be active since.
    """

    def __init__(
        self, kube: KubeClient, objects: Objects, clock: Clock, *, reporter: str, leads: Callable[[], bool]
    ) -> None:
        self._kube = kube
        self._objects = objects
        self._clock = clock
        self._reporter = reporter
        self._leads = leads

    async def write_status(self, obj: Obj, plan: Plan) -> Obj | None:
        """Bring the status to the plan's in at most one write."""
        patch = status_patch(obj, plan, now=self._clock.now())
        if not patch:
            return obj
        self._require_leadership()
        fresh = await self._kube.write_status(obj, patch)
        if fresh is not None:
            self._objects.put(fresh)
        return fresh

    async def act(self, actions: Iterable[Action]) -> None:
        """Carry out actions, in order."""
        for action in actions:
            match action:
                case Create(obj):
                    await self._create(obj)
                case Delete(obj, why):
                    await self.delete(obj, why)
                case Drain(pod, why):
                    await self._drain(pod, why)
                case _:
                    assert_never(action)

    async def _create(self, obj: Obj) -> None:
        self._require_leadership()
        try:
            created = await self._kube.create(obj)
        except Conflict as error:
            if error.reason != "AlreadyExists":  # many at once: their quota was counted by somebody else meanwhile
                raise
            await self._require_own(obj)  # one of that name is there: if it is ours, the watch shows it
            return
        self._objects.put(created)
        _log.info("created", kind=obj["kind"], namespace=meta(obj)["namespace"], name=meta(obj)["name"])

    async def _require_own(self, pod: Obj) -> None:
        """Raise if the pod that has the name of another one will keep it: it is somebody else's."""
        if pod["kind"] != "Pod":
            return
        found = await self._kube.get(Ref.of(pod))
        if found is None or meta(found).get("deletionTimestamp"):
            return
        ours, theirs = owner_of(pod), owner_of(found)
        if _called(ours) != _called(theirs):  # an earlier owner of the same name is gone, and its pods go with it
            whose = " ".join(_called(theirs)) or "nobody"
            text = f"the pod {meta(pod)['name']} is there already and belongs to {whose}: delete or rename one of them"
            raise Refused(text)

    async def delete(self, obj: Obj, why: str, *, grace_seconds: int | None = None) -> None:
        """Delete the very object that was observed."""
        self._require_leadership()
        try:
            await self._kube.delete(Ref.of(obj), uid=meta(obj)["uid"], grace_seconds=grace_seconds)
        except Conflict:
            return  # it is gone, and another one has its name
        _log.info("deleted", kind=obj["kind"], namespace=meta(obj)["namespace"], name=meta(obj)["name"], why=why)

    async def _drain(self, pod: Obj, why: str) -> None:
        """Ask a pod to take no more work; one that has no Lease takes none."""
        self._require_leadership()
        ref = lease_ref(meta(pod)["namespace"], meta(pod)["name"])
        lease = await self._kube.get(ref)
        if lease is None or spec_of(lease).get("holderIdentity") != meta(pod)["uid"] or wants_drain(lease):
            return
        try:
            await self._kube.merge_patch(ref, drain_request(meta(lease)["uid"]))
        except Conflict:
            return  # it is gone, and another one has its name
        _log.info("drained", kind="Pod", namespace=ref.namespace, name=ref.name, why=why)

    async def tell(self, about: Obj, reason: str, message: str, *, warning: bool, related: Obj | None = None) -> None:
        """Write an Event. What was said before is not said again; that it cannot be said stops nothing."""
        event = build_event(
            about,
            reason=reason,
            message=message,
            warning=warning,
            at=self._clock.now(),
            reporter=self._reporter,
            related=related,
        )
        try:
            self._require_leadership()
            await self._kube.create(event)
        except Conflict:
            return
        except FairleadError as error:
            _log.warning("event_not_written", kind=about["kind"], name=meta(about)["name"], error=str(error))

    def _require_leadership(self) -> None:
        if not self._leads():
            raise LeadershipLost("the Lease of the operator is over: another process may be active")


def _called(owner: Obj | None) -> tuple[str, ...]:
    return () if owner is None else (owner["kind"], meta(owner)["name"])
