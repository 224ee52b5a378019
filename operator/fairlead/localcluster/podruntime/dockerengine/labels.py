"""How everything that the runtime makes in the engine is named and labelled: by that it is found again. Pure."""

from __future__ import annotations

from typing import Final

from fairlead.localcluster.podruntime.state import Json

_GROUP: Final = "dev.fairlead"
HOME: Final = f"{_GROUP}.home"
UID: Final = f"{_GROUP}.pod-uid"
NAMESPACE: Final = f"{_GROUP}.namespace"
POD: Final = f"{_GROUP}.pod"
CONTAINER: Final = f"{_GROUP}.container"
ATTEMPT: Final = f"{_GROUP}.attempt"
GATEWAY_SOCKET: Final = "gateway.sock"
"""The name of the gateway's socket, in a folder that holds nothing else."""
SANDBOX: Final = ""
"""The value of `CONTAINER` for what holds a pod's network and volumes: no container of a pod can be called so."""


def pod_labels(home: str, pod: Json) -> dict[str, str]:
    """Return the labels of everything that belongs to a pod."""
    meta = pod["metadata"]
    return {HOME: home, UID: meta["uid"], NAMESPACE: meta["namespace"], POD: meta["name"]}


def container_labels(home: str, pod: Json, *, container: str, attempt: int) -> dict[str, str]:
    """Return the labels of one start of a container."""
    return {**pod_labels(home, pod), CONTAINER: container, ATTEMPT: str(attempt)}


def container_name(pod: Json, container: str, attempt: int) -> str:
    """Return the name of one start of a container: what a person recognises, and unique by the pod's uid."""
    meta = pod["metadata"]
    return f"fairlead_{container or 'sandbox'}_{meta['name']}_{meta['namespace']}_{meta['uid']}_{attempt}"


def volume_name(pod: Json, volume: str) -> str:
    """Return the name of an ``emptyDir``."""
    return f"fairlead_{pod['metadata']['uid']}_{volume}"


def network_name(home: str) -> str:
    """Return the name of a home's network."""
    return f"fairlead-{home}"
