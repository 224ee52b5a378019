"""What a pod's specification means to Docker, from an allow-list of fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from docker.types import LogConfig, Mount, Ulimit

from fairlead.core import names
from fairlead.errors import InvalidObject
from fairlead.localcluster.podruntime.dockerengine import labels
from fairlead.localcluster.podruntime.environment import expand, memory_limit, parse_quantity
from fairlead.localcluster.podruntime.state import Json

Options = dict[str, Any]

GATEWAY_MOUNT: Final = "/run/fairlead"
SOCKET_VARIABLE: Final = "FAIRLEAD_GATEWAY_SOCKET"
_AGENT_LABELS: Final = (names.AGENT_LABEL, names.RUN_LABEL)
_PIDS: Final = 1024
_NANO: Final = 1_000_000_000
_SHARES: Final = 1024
_EMPTY_BYTES: Final = 1 << 30
"""The size of an ``emptyDir`` without ``sizeLimit``: it is memory, and counts as that of who fills it."""
_HOST_NAME: Final = 63
_SANDBOX_MEMORY: Final = 64 << 20
_SANDBOX_PIDS: Final = 16
_NOBODY: Final = "65534:65534"


def is_agent(pod: Json) -> bool:
    """Whether a pod is an agent's: it then has no network, and a socket that leads to the gateway."""
    given = pod["metadata"].get("labels") or {}
    ours = all(given.get(key) == value for key, value in names.PART_OF_LABELS.items())
    return ours and any(label in given for label in _AGENT_LABELS)


def needs_sandbox(pod: Json) -> bool:
    """Whether something has to hold what the pod's containers share, from before the first to after the last."""
    spec = pod["spec"]
    return not is_agent(pod) or len(spec["containers"]) + len(spec.get("initContainers") or ()) > 1


def security_of(pod: Json, container: Json) -> Json:
    """Return the security context that holds for a container: its own, where that is silent its pod's."""
    return {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}


def check_user(pod: Json, container: Json, *, image_user: str) -> None:
    """Hold a container to ``runAsNonRoot``.

    Raises:
        InvalidObject: it would run as root, or nobody can say.
    """
    security = security_of(pod, container)
    if not security.get("runAsNonRoot"):
        return
    user = str(security.get("runAsUser", image_user.partition(":")[0]))
    if user in ("", "0", "root"):
        text = f"container {container['name']} has runAsNonRoot and would run as root"
    elif not user.isdigit():
        text = (
            f"container {container['name']} has runAsNonRoot, and its image has a user by name ({user}): give runAsUser"
        )
    else:
        return
    raise InvalidObject(text, reason="CreateContainerConfigError")


def container_options(pod: Json, container: Json, environment: Mapping[str, str]) -> Options:
    """Return what a container is created with, but for its name, labels, mounts and network."""
    variables = dict(environment)
    if is_agent(pod):
        variables[SOCKET_VARIABLE] = f"{GATEWAY_MOUNT}/{labels.GATEWAY_SOCKET}"
    command = [expand(part, environment) for part in container.get("command") or ()]
    arguments = [expand(part, environment) for part in container.get("args") or ()]
    options: Options = {
        "environment": variables,
        "working_dir": container.get("workingDir") or None,
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "2"}),
        **_resources(container),
        **_security(pod, container),
    }
    # Without a command of the pod's own the image's ENTRYPOINT holds, and without arguments also its CMD.
    if command:
        options["entrypoint"] = command
    if arguments:
        options["command"] = arguments
    return {key: value for key, value in options.items() if value is not None}


def _resources(container: Json) -> Options:
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    memory = memory_limit(container)
    cpu = parse_quantity(str(limits.get("cpu", "0")))
    share = parse_quantity(str(requests.get("cpu") or limits.get("cpu") or "0"))
    ulimits = [Ulimit(name="core", soft=0, hard=0)]
    if "ephemeral-storage" in limits:
        size = int(parse_quantity(str(limits["ephemeral-storage"])))
        ulimits.append(Ulimit(name="fsize", soft=size, hard=size))
    return {
        "mem_limit": memory or None,
        "memswap_limit": memory or None,
        "nano_cpus": int(cpu * _NANO) or None,
        "cpu_shares": max(2, int(share * _SHARES)) if share else None,
        "pids_limit": _PIDS,
        "ulimits": ulimits,
    }


def _security(pod: Json, container: Json) -> Options:
    security = security_of(pod, container)
    capabilities = security.get("capabilities") or {}
    groups = [*_groups(pod)]
    profile = (security.get("seccompProfile") or {}).get("type", "RuntimeDefault")
    if profile == "Localhost":
        raise InvalidObject("seccomp profiles of the node are not known here", reason="CreateContainerConfigError")
    more = ["seccomp=unconfined"] if profile == "Unconfined" else []
    if security.get("allowPrivilegeEscalation") is False:
        more.append("no-new-privileges:true")
    return {
        "user": _user(security),
        "group_add": groups or None,
        "read_only": bool(security.get("readOnlyRootFilesystem")),
        "cap_drop": capabilities.get("drop") or None,
        "cap_add": capabilities.get("add") or None,
        "security_opt": more or None,
    }


def _user(security: Json) -> str | None:
    if "runAsUser" not in security:
        return None
    group = security.get("runAsGroup")
    return f"{security['runAsUser']}" if group is None else f"{security['runAsUser']}:{group}"


def _groups(pod: Json) -> list[str]:
    security = pod["spec"].get("securityContext") or {}
    own = [security["fsGroup"]] if "fsGroup" in security else []
    return [str(group) for group in dict.fromkeys([*own, *(security.get("supplementalGroups") or ())])]


def empty_dirs(pod: Json) -> dict[str, dict[str, str]]:
    """Return how to make each ``emptyDir`` of a pod: in memory, of the size that it may have."""
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    made = {}
    for volume in pod["spec"].get("volumes") or ():
        if "emptyDir" not in volume:
            continue
        limit = (volume["emptyDir"] or {}).get("sizeLimit")
        size = int(parse_quantity(str(limit))) if limit else _EMPTY_BYTES
        owner = "" if group is None else f",gid={group}"
        made[volume["name"]] = {"type": "tmpfs", "device": "tmpfs", "o": f"size={size},mode=0777,nosuid,nodev{owner}"}
    return made


def volume_mount(mount: Json, source: str, *, empty: bool) -> Mount:
    """Return a mount of one of the pod's volumes; only an ``emptyDir`` can be written to.

    Raises:
        InvalidObject: a part of an ``emptyDir`` is asked for.
    """
    if empty and mount.get("subPath"):
        raise InvalidObject(f'subPath of emptyDir "{mount["name"]}" is not known here', reason="FailedMount")
    target = str(mount["mountPath"])
    if empty:
        read_only = bool(mount.get("readOnly"))
        return Mount(target=target, source=source, type="volume", read_only=read_only, no_copy=True)
    return Mount(target=target, source=source, type="bind", read_only=True)


def gateway_mount(folder: str) -> Mount:
    """Return the mount of the folder that holds the gateway's socket, and nothing else."""
    return Mount(target=GATEWAY_MOUNT, source=folder, type="bind", read_only=True)


def network_options(pod: Json, *, sandbox: str) -> Options:
    """Return the network of one of a pod's containers. *sandbox*: the container that has the pod's; empty: none."""
    if sandbox:
        process = {"pid_mode": f"container:{sandbox}"} if pod["spec"].get("shareProcessNamespace") else {}
        return {"network_mode": f"container:{sandbox}", **process}
    return {"network_mode": "none", "hostname": host_name(pod)}


def sandbox_options(pod: Json, *, python: str, network: str, volumes: Sequence[str]) -> Options:
    """Return the container that holds what a pod's containers share: their network, and volumes that stay filled.

    Args:
        pod: its object.
        python: the agent image's interpreter.
        network: the network that it joins; empty: none.
        volumes: the engine's names of the pod's ``emptyDir`` volumes.
    """
    aliases = {
        host: each["ip"] for each in pod["spec"].get("hostAliases") or () for host in each.get("hostnames") or ()
    }
    mounts = [
        Mount(target=f"/run/volumes/{index}", source=name, type="volume", no_copy=True)
        for index, name in enumerate(volumes)
    ]
    return {
        "entrypoint": [python, "-I", "-S", "-c", "import signal\nwhile True: signal.pause()"],
        "command": [],
        "user": _NOBODY,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": _SANDBOX_MEMORY,
        "pids_limit": _SANDBOX_PIDS,
        "hostname": host_name(pod),
        "extra_hosts": aliases,
        "mounts": mounts,
        **({"network": network} if network else {"network_mode": "none"}),
    }


def host_name(pod: Json) -> str:
    """Return the name that the pod has for itself."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:_HOST_NAME].rstrip("-.")
