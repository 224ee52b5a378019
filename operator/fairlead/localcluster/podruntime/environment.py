"""A container's environment and limits, from its spec and the objects that the spec names. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from fairlead.errors import InvalidObject
from fairlead.localcluster.podruntime.state import Json
from fairlead.localcluster.podruntime.status import LOOPBACK

Source = Mapping[str, bytes]
Lookup = Callable[[str, str], Source | None]
"""(``ConfigMap`` or ``Secret``, name) to its data, or None."""

_VARIABLE: Final = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_ENV_NAME: Final = re.compile(r"[ -<>-~]+\Z")
_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL: Final = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_HARD_MEMORY_FACTOR: Final = 2
MOUNT_POINT: Final = "CONTAINER_SANDBOX_MOUNT_POINT"


def build_environment(pod: Json, container: Json, lookup: Lookup) -> dict[str, str]:
    """Return the variables that the spec gives a container, references resolved and ``$(NAME)`` expanded.

    Raises:
        InvalidObject: a ConfigMap, Secret or key that is not optional is missing.
    """
    variables: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        variables |= {name: value for name, value in _env_from(source, lookup).items() if _ENV_NAME.match(name)}
    for entry in container.get("env") or ():
        if "valueFrom" in entry:
            found = _value_from(entry["valueFrom"], pod, container, lookup=lookup)
            variables |= {} if found is None else {entry["name"]: found}
        else:
            variables[entry["name"]] = expand(entry.get("value") or "", variables)
    return variables


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; ``$$`` is a dollar sign, and a name that is not there stays as it is."""
    return _VARIABLE.sub(
        lambda found: "$" if found.group() == "$$" else variables.get(found.group(1), found.group()), text
    )


def _env_from(source: Json, lookup: Lookup) -> dict[str, str]:
    reference, kind = (
        (source["configMapRef"], "ConfigMap") if "configMapRef" in source else (source.get("secretRef") or {}, "Secret")
    )
    data = lookup(kind, reference.get("name", ""))
    if data is None and not reference.get("optional"):
        raise _missing(kind, reference)
    return {source.get("prefix", "") + key: value.decode(errors="replace") for key, value in (data or {}).items()}


def _value_from(source: Json, pod: Json, container: Json, *, lookup: Lookup) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_value(pod, source["resourceFieldRef"], container)
    kind, reference = (
        ("ConfigMap", source["configMapKeyRef"])
        if "configMapKeyRef" in source
        else ("Secret", source.get("secretKeyRef") or {})
    )
    value = (lookup(kind, reference.get("name", "")) or {}).get(reference.get("key", ""))
    if value is None and not reference.get("optional"):
        raise _missing(kind, reference)
    return None if value is None else value.decode(errors="replace")


def _missing(kind: str, reference: Json) -> InvalidObject:
    key = f' or its key "{reference["key"]}"' if "key" in reference else ""
    text = f'{kind} "{reference.get("name", "")}"{key} not found'
    return InvalidObject(text, reason="CreateContainerConfigError")


def field_value(pod: Json, path: str) -> str:
    """Return what ``fieldRef.fieldPath`` names.

    Raises:
        InvalidObject: there is no such field to refer to.
    """
    meta, spec = pod["metadata"], pod["spec"]
    address = (pod.get("status") or {}).get("podIP", LOOPBACK)
    for name in ("labels", "annotations"):
        if path.startswith(f"metadata.{name}['"):
            return str((meta.get(name) or {}).get(path.partition("['")[2].removesuffix("']"), ""))
    known: dict[str, str] = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "metadata.labels": _key_values(meta.get("labels")),
        "metadata.annotations": _key_values(meta.get("annotations")),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": LOOPBACK,
        "status.hostIPs": LOOPBACK,
    }
    if path not in known:
        raise InvalidObject(f'unsupported fieldPath "{path}"', reason="CreateContainerConfigError")
    return known[path]


def _key_values(pairs: Mapping[str, str] | None) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "\n".join(f'{key}="{quoted(value)}"' for key, value in sorted((pairs or {}).items()))


def resource_value(pod: Json, reference: Json, container: Json | None = None) -> str:
    """Return what ``resourceFieldRef`` names, in units of its divisor, rounded up."""
    named = reference.get("containerName")
    if named:
        container = next((c for c in pod["spec"]["containers"] if c["name"] == named), None)
    where, _, name = reference["resource"].partition(".")
    amount = (((container or {}).get("resources") or {}).get(where) or {}).get(name, "0")
    divisor = parse_quantity(str(reference.get("divisor") or "1")) or 1
    return str(int(-(-parse_quantity(str(amount)) // divisor)))


def parse_quantity(text: str) -> float:
    """Return the number that a resource quantity (``250m``, ``64Mi``) stands for.

    Raises:
        InvalidObject: it is none.
    """
    for suffix, factor in {**_BINARY, **_DECIMAL}.items():
        if text.endswith(suffix):
            text, scale = text.removesuffix(suffix), float(factor)
            break
    else:
        scale = 1.0
    try:
        return float(text) * scale
    except ValueError as error:
        raise InvalidObject(f'"{text}" is no resource quantity', reason="CreateContainerConfigError") from error


def memory_limit(container: Json) -> int:
    """Return the bytes of memory that a container may use; 0 for no limit."""
    limits = (container.get("resources") or {}).get("limits") or {}
    return int(parse_quantity(str(limits.get("memory", "0"))))


def build_limits(container: Json) -> list[str]:
    """Return the limits that the operating system enforces, as `lifeline` takes them.

    The memory limit itself is kept by looking at the process, as a cgroup would count it; what the kernel refuses at
    once is data far above it. A share of a processor cannot be had without an engine.
    """
    limits = (container.get("resources") or {}).get("limits") or {}
    found = ["--limit=RLIMIT_CORE=0"]
    memory = memory_limit(container)
    if memory:
        found.append(f"--limit=RLIMIT_DATA={memory * _HARD_MEMORY_FACTOR}")
    if "ephemeral-storage" in limits:
        found.append(f"--limit=RLIMIT_FSIZE={int(parse_quantity(str(limits['ephemeral-storage'])))}")
    return found


def build_command(container: Json, *, image_command: list[str], variables: Mapping[str, str]) -> list[str]:
    """Return what to execute: the spec's ``command`` and ``args``, where it has none the image's own."""
    command = [expand(part, variables) for part in container.get("command") or ()]
    arguments = [expand(part, variables) for part in container.get("args") or ()]
    return [*(command or image_command), *arguments]
