"""Cells of built-in kinds that take more than one field."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from fairlead.localcluster.printing.durations import age, human
from fairlead.localcluster.schema.formats import parse_time

Json = dict[str, Any]

_NONE = "<none>"


def _get(obj: Json, *path: str) -> Any:
    value: Any = obj
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _joined(items: Iterable[Any]) -> str:
    return ",".join(str(item) for item in items) or _NONE


def _labels(selector: Any) -> str:
    return _joined(f"{key}={value}" for key, value in sorted(selector.items())) if selector else _NONE


def data_count(obj: Json, _now: str) -> int:
    """Keys of a ConfigMap or Secret."""
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


def _containers(obj: Json) -> list[Json]:
    found: list[Json] = (
        _get(obj, "spec", "jobTemplate", "spec", "template", "spec", "containers")
        or _get(obj, "spec", "template", "spec", "containers")
        or []
    )
    return found


def container_names(obj: Json, _now: str) -> str:
    """Names of the template's containers."""
    return _joined(item.get("name", "") for item in _containers(obj))


def container_images(obj: Json, _now: str) -> str:
    """Images of the template's containers."""
    return _joined(item.get("image", "") for item in _containers(obj))


def selector(obj: Json, _now: str) -> str:
    """The selector of a Service or a workload."""
    chosen = _get(obj, "spec", "selector") or {}
    return _labels(chosen.get("matchLabels") if "matchLabels" in chosen else chosen)


def pod_selector(obj: Json, _now: str) -> str:
    """Whom a NetworkPolicy is about."""
    return _labels(_get(obj, "spec", "podSelector", "matchLabels"))


def node_selector(obj: Json, _now: str) -> str:
    """Where a DaemonSet runs."""
    return _labels(_get(obj, "spec", "template", "spec", "nodeSelector"))


def pod_ready(obj: Json, _now: str) -> str:
    """Ready containers of all."""
    statuses = _get(obj, "status", "containerStatuses") or []
    total = len(_get(obj, "spec", "containers") or [])
    return f"{sum(bool(item.get('ready')) for item in statuses)}/{total}"


def pod_restarts(obj: Json, now: str) -> str:
    """Restarts, and when the last one was."""
    statuses = _get(obj, "status", "containerStatuses") or []
    count = sum(item.get("restartCount", 0) for item in statuses)
    ends = [_get(item, "lastState", "terminated", "finishedAt") for item in statuses]
    last = max((end for end in ends if end), default=None)
    return f"{count} ({age(last, now)} ago)" if count and last else str(count)


def pod_status(obj: Json, _now: str) -> str:
    """The one word that says how a pod is."""
    status = obj.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    starting = _init_reason(obj)
    if starting:
        reason = starting
    else:
        for item in reversed(status.get("containerStatuses") or []):
            reason = _container_reason(item.get("state") or {}) or reason
        if reason == "Completed" and any(_running(item) for item in status.get("containerStatuses") or []):
            reason = "Running" if _condition(obj, "Ready") == "True" else "NotReady"
    if obj.get("metadata", {}).get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return str(reason)


def _running(item: Json) -> bool:
    return bool(item.get("ready")) and _get(item, "state", "running") is not None


def _container_reason(state: Json) -> str:
    waiting, ended = state.get("waiting") or {}, state.get("terminated")
    if waiting.get("reason"):
        return str(waiting["reason"])
    if ended is None:
        return ""
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _init_reason(obj: Json) -> str:
    statuses = _get(obj, "status", "initContainerStatuses") or []
    total = len(_get(obj, "spec", "initContainers") or [])
    for index, item in enumerate(statuses):
        state = item.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if ended is not None:
            return f"Init:{_container_reason(state)}"
        if waiting.get("reason") not in {None, "", "PodInitializing"}:
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return ""


def _condition(obj: Json, kind: str) -> str:
    found = (item for item in _get(obj, "status", "conditions") or [] if item.get("type") == kind)
    return str((next(found, None) or {}).get("status", ""))


def service_ports(obj: Json, _now: str) -> str:
    """``80/TCP,443:30443/TCP``."""
    return _joined(
        f"{item.get('port')}{':' + str(item['nodePort']) if item.get('nodePort') else ''}/{item.get('protocol', 'TCP')}"
        for item in _get(obj, "spec", "ports") or []
    )


def external_ips(obj: Json, _now: str) -> str:
    """How a Service is reached from outside."""
    kind = _get(obj, "spec", "type")
    if kind == "ExternalName":
        return str(_get(obj, "spec", "externalName") or _NONE)
    given = [item.get("ip") or item.get("hostname") for item in _get(obj, "status", "loadBalancer", "ingress") or []]
    if kind == "LoadBalancer" and not given:
        return "<pending>"
    return _joined([*given, *(_get(obj, "spec", "externalIPs") or [])])


def endpoints(obj: Json, _now: str) -> str:
    """Addresses and ports behind a Service."""
    return _joined(
        f"{address.get('ip')}:{port.get('port')}"
        for subset in obj.get("subsets") or []
        for port in subset.get("ports") or []
        for address in subset.get("addresses") or []
    )


def node_status(obj: Json, _now: str) -> str:
    """Ready, NotReady or Unknown, and whether it takes pods."""
    word = {"True": "Ready", "False": "NotReady"}.get(_condition(obj, "Ready"), "Unknown")
    return f"{word},SchedulingDisabled" if _get(obj, "spec", "unschedulable") else word


def node_roles(obj: Json, _now: str) -> str:
    """Roles from the labels."""
    prefix = "node-role.kubernetes.io/"
    labels = _get(obj, "metadata", "labels") or {}
    return _joined(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix)))


def access_modes(obj: Json, _now: str) -> str:
    """Short access modes of a claim."""
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(mode, mode) for mode in _get(obj, "status", "accessModes") or [])


def _event_times(obj: Json) -> tuple[str | None, str | None]:
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    series = _get(obj, "series", "lastObservedTime")
    last = series or obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or first
    return first, last


def event_first_seen(obj: Json, now: str) -> str:
    """When an event came first."""
    first, _ = _event_times(obj)
    return age(first, now) if first else "<unknown>"


def event_last_seen(obj: Json, now: str) -> str:
    """When an event came last."""
    _, last = _event_times(obj)
    return age(last, now) if last else "<unknown>"


def event_count(obj: Json, _now: str) -> int:
    """How often an event came."""
    return int(_get(obj, "series", "count") or obj.get("count") or obj.get("deprecatedCount") or 1)


def _regarding(obj: Json) -> Json:
    return obj.get("involvedObject") or obj.get("regarding") or {}


def event_object(obj: Json, _now: str) -> str:
    """What an event is about, ``pod/name``."""
    about = _regarding(obj)
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}" if about.get("name") else about.get("kind", "")


def event_subobject(obj: Json, _now: str) -> str:
    """The part of the object."""
    return str(_regarding(obj).get("fieldPath") or "")


def event_source(obj: Json, _now: str) -> str:
    """Who said it."""
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return ", ".join(part for part in (component, host) if part)


def event_message(obj: Json, _now: str) -> str:
    """What was said."""
    return str(obj.get("message") or obj.get("note") or "").strip()


def replicas_ready(obj: Json, _now: str) -> str:
    """Ready replicas of those wanted."""
    return f"{_get(obj, 'status', 'readyReplicas') or 0}/{_get(obj, 'spec', 'replicas') or 0}"


def job_status(obj: Json, _now: str) -> str:
    """Complete, Failed, Suspended, Terminating or Running."""
    if _condition(obj, "Complete") == "True":
        return "Complete"
    if _condition(obj, "Failed") == "True":
        return "Failed"
    if obj.get("metadata", {}).get("deletionTimestamp"):
        return "Terminating"
    return "Suspended" if _condition(obj, "Suspended") == "True" else "Running"


def job_completions(obj: Json, _now: str) -> str:
    """Finished pods of those wanted."""
    done = _get(obj, "status", "succeeded") or 0
    wanted = _get(obj, "spec", "completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    parallel = _get(obj, "spec", "parallelism") or 0
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def job_duration(obj: Json, now: str) -> str:
    """How long a Job ran."""
    start = parse_time(_get(obj, "status", "startTime") or "")
    end = parse_time(_get(obj, "status", "completionTime") or now)
    if start is None or end is None:
        return ""
    return human(int((end - start) / timedelta(seconds=1)))


def suspended(obj: Json, _now: str) -> str:
    """True or False, as Go prints it."""
    value = _get(obj, "spec", "suspend")
    return _NONE if value is None else str(value)


def last_schedule(obj: Json, now: str) -> str:
    """When a CronJob started last."""
    last = _get(obj, "status", "lastScheduleTime")
    return age(last, now) if last else _NONE


def role_ref(obj: Json, _now: str) -> str:
    """``Role/name`` of a binding."""
    reference = obj.get("roleRef") or {}
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


def subjects(kind: str) -> Any:
    """Return a cell with the subjects of one kind."""

    def cell(obj: Json, _now: str) -> str:
        found = [item for item in obj.get("subjects") or [] if item.get("kind") == kind]
        spaced = (
            f"{item.get('namespace', '')}/{item['name']}" if kind == "ServiceAccount" else item["name"]
            for item in found
        )
        return ", ".join(spaced)

    return cell


def ingress_hosts(obj: Json, _now: str) -> str:
    """Hosts of an Ingress."""
    hosts = [rule["host"] for rule in _get(obj, "spec", "rules") or [] if rule.get("host")]
    return ",".join(hosts) or "*"


def ingress_ports(obj: Json, _now: str) -> str:
    """80, and 443 with TLS."""
    return "80, 443" if _get(obj, "spec", "tls") else "80"


def expandable(obj: Json, _now: str) -> str:
    """Whether volumes of a StorageClass can grow."""
    return "true" if obj.get("allowVolumeExpansion") else "false"
