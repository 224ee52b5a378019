"""What a pod may ask for that cannot be had on this machine: said at once, with what a person can do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fairlead.localcluster.podruntime.state import Json, Waiting

_REASON: Final = "CreateContainerConfigError"
_VOLUMES: Final = frozenset({"configMap", "secret", "downwardAPI", "projected", "emptyDir"})


def refused(pod: Json, *, agent_image: str, engine: str) -> dict[str, Waiting]:
    """Return why containers cannot run here at all, by name; the pod runs as a whole or not."""
    spec = pod["spec"]
    every = [*(spec.get("initContainers") or ()), *spec["containers"]]
    found = next(_unsupported(spec, engine=engine), None)
    if found:
        return {container["name"]: Waiting(_REASON, f"laptop mode cannot run this pod: {found}") for container in every}
    if engine != "process":
        return {}
    foreign = {c["name"]: c.get("image", "") for c in every if not same_image(c.get("image", ""), agent_image)}
    if not foreign:
        return {}
    waits = {c["name"]: Waiting("ContainerCreating", "waits for the pod's other containers") for c in every}
    return waits | {
        name: Waiting("ErrImageNeverPull", no_engine(image, agent_image)) for name, image in foreign.items()
    }


def _unsupported(spec: Json, *, engine: str) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name} would give it the machine itself"
    for volume in spec.get("volumes") or ():
        if kinds := set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {', '.join(sorted(kinds))}; known are {', '.join(sorted(_VOLUMES))}"
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        name = container["name"]
        if container.get("restartPolicy") == "Always":
            yield f"{name} is an init container that goes on running (restartPolicy: Always)"
        if container.get("lifecycle"):
            yield f"{name} has lifecycle hooks"
        if any("grpc" in (container.get(probe) or {}) for probe in ("startupProbe", "livenessProbe", "readinessProbe")):
            yield f"{name} has a gRPC probe; exec, httpGet and tcpSocket are known"
        if (container.get("securityContext") or {}).get("privileged") and engine != "process":
            yield f"{name} is privileged, which would give it the machine itself"


def no_engine(image: str, agent_image: str) -> str:
    """Return what a person can do about an image that is not the agent's."""
    return (
        f'Container image "{image}" needs a container engine, and laptop mode runs pods as local processes here: only '
        f'"{agent_image}" can run. Install Docker (https://docs.docker.com/get-docker) and say: fairlead up --runtime '
        "docker; or apply this pod to a cluster: https://kind.sigs.k8s.io, then: kind create cluster"
    )


def same_image(image: str, other: str) -> bool:
    """Whether two references are the same, under their short or their full names."""
    return full_name(image) == full_name(other)


def full_name(image: str) -> str:
    """Return the reference without what may be left out, and with its tag."""
    for prefix in ("docker.io/", "index.docker.io/", "library/"):
        image = image.removeprefix(prefix)
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"
