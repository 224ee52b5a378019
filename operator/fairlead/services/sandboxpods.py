"""What sandboxes that are pods need of the cluster: a few verbs on three kinds, in the one namespace that is theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairlead.errors import Refused, Unavailable
from fairlead.kube import KubeClient, Ref

_OK: Final = 200
_BAD_REQUEST: Final = 400
_SERVER_ERROR: Final = 500
_TOO_EARLY: Final = frozenset({404, 409, 429})


class SandboxPods:
    """Pods, Secrets and (to read) NetworkPolicies of the sandboxes' namespace."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Create an object, in this namespace whatever it says.

        Raises:
            Unavailable: the namespace's quota is used up now; it is free again when others have ended.
        """
        metadata = {**obj["metadata"], "namespace": self._namespace}
        try:
            return await self._kube.create({**obj, "apiVersion": "v1", "metadata": metadata})
        except Refused as error:
            if "exceeded quota" in str(error):
                raise Unavailable(str(error)) from error
            raise

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None."""
        return await self._kube.get(self._ref(kind, name))

    async def list(self, kind: str, labels: str) -> list[dict[str, Any]]:
        """Return the objects that a label selector chooses."""
        found: list[dict[str, Any]] = await self._kube.list(
            "v1", kind, namespace=self._namespace, label_selector=labels
        )
        return found

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object at once."""
        await self._kube.delete(self._ref(kind, name), grace_seconds=0)

    async def log(self, pod_name: str, limit_bytes: int) -> bytes:
        """Return the first bytes of what a pod's only container wrote; nothing where the node has none of it any more.

        Raises:
            Unavailable: its node does not give the log now.
            Refused: the gateway may not read it.
        """
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod_name}/log"
        query: Mapping[str, str] = {"limitBytes": str(limit_bytes)}
        status, _, body = await self._kube.raw("GET", path, query=query)
        if status == _OK:
            return body[:limit_bytes]
        if status == _BAD_REQUEST:  # so a server says that the container is gone: its pod was evicted
            return b""
        words = f"the log of pod {pod_name}: the cluster answered {status}"
        if status in _TOO_EARLY or status >= _SERVER_ERROR:
            raise Unavailable(words, retry_after=1)
        raise Refused(words, reason="Forbidden")

    def _ref(self, kind: str, name: str) -> Ref:
        version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "v1"
        return Ref(version, kind, name, self._namespace)
