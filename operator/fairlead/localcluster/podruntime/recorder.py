"""Events about pods, as a kubelet reports them; the same event again raises its count."""

from __future__ import annotations

import secrets

from fairlead.clock import Clock
from fairlead.errors import FairleadError
from fairlead.kube import KubeClient, Ref
from fairlead.localcluster.podruntime.state import Json, to_time
from fairlead.logs import get_logger

_log = get_logger(__name__)
_REMEMBERED = 1000


class Recorder:
    """Writes events; that one is lost is logged and never more than that."""

    def __init__(self, client: KubeClient, clock: Clock, *, node: str) -> None:
        self._client, self._clock, self._node = client, clock, node
        self._written: dict[tuple[str, str, str], tuple[Ref, int]] = {}

    async def record(
        self, pod: Json, reason: str, *, message: str, warning: bool = False, component: str = "kubelet"
    ) -> None:
        """Say that *reason* happened to *pod*."""
        key = (pod["metadata"]["uid"], reason, message)
        try:
            known = self._written.pop(key, None)
            if known is not None and await self._count(*known):
                self._written[key] = (known[0], known[1] + 1)
                return
            event = self._event(pod, reason, message=message, warning=warning, component=component)
            self._written[key] = (Ref.of(await self._client.create(event)), 1)
            while len(self._written) > _REMEMBERED:
                self._written.pop(next(iter(self._written)))
        except FairleadError as error:
            _log.warning("event_lost", reason=reason, error=str(error), uid=key[0])

    async def _count(self, event: Ref, count: int) -> bool:
        patch = {"count": count + 1, "lastTimestamp": to_time(self._clock.now())}
        return await self._client.merge_patch(event, patch) is not None

    def _event(self, pod: Json, reason: str, *, message: str, warning: bool, component: str) -> Json:
        meta, now = pod["metadata"], to_time(self._clock.now())
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
            "resourceVersion": meta.get("resourceVersion", ""),
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{secrets.token_hex(8)}", "namespace": meta["namespace"]},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": component, "host": self._node},
            "reportingComponent": component,
            "reportingInstance": self._node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
