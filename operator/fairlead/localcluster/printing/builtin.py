"""What ``kubectl get`` shows of Kubernetes' own kinds."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from fairlead.localcluster.printing import cells
from fairlead.localcluster.printing.jsonpath import find
from fairlead.localcluster.printing.table import AGE, CREATED, NAME, Cell, Column, Columns, Json

_NONE: Final = "<none>"


def builtin_columns(api_version: str, kind: str) -> Columns:
    """Return the columns of a built-in kind; name and age for kinds without their own."""
    group = api_version.rpartition("/")[0]
    return _columns().get((group, kind)) or (NAME, AGE)


def _at(path: str, default: Any = "") -> Cell:
    def cell(obj: Json, _now: str) -> Any:
        values = find(path, obj)
        return values[0] if values and values[0] is not None else default

    return cell


def _count(path: str) -> Cell:
    return lambda obj, _now: len(next(iter(find(path, obj)), None) or ())


def _text(name: str, cell: Cell | str, default: Any = "", *, wide: bool = False) -> Column:
    return Column(name, _at(cell, default) if isinstance(cell, str) else cell, priority=int(wide))


def _number(name: str, cell: Cell | str, default: Any = 0) -> Column:
    return Column(name, _at(cell, default) if isinstance(cell, str) else cell, type="integer")


def _wide(*columns: tuple[str, Cell | str]) -> Columns:
    return tuple(_text(name, cell, _NONE, wide=True) for name, cell in columns)


_CONTAINERS: Final = (("Containers", cells.container_names), ("Images", cells.container_images))
_SELECTOR: Final = ("Selector", cells.selector)


@cache
def _columns() -> dict[tuple[str, str], Columns]:
    return _core() | _workloads() | _batch() | _access() | _others()


def _core() -> dict[tuple[str, str], Columns]:
    return {
        ("", "ConfigMap"): (NAME, Column("Data", cells.data_count), AGE),
        ("", "Secret"): (NAME, _text("Type", ".type"), Column("Data", cells.data_count), AGE),
        ("", "ServiceAccount"): (NAME, _number("Secrets", _count(".secrets")), AGE),
        ("", "Namespace"): (NAME, _text("Status", ".status.phase"), AGE),
        ("", "Pod"): _pod(),
        ("", "Service"): (
            NAME,
            _text("Type", ".spec.type"),
            _text("Cluster-IP", ".spec.clusterIP", _NONE),
            _text("External-IP", cells.external_ips),
            _text("Port(s)", cells.service_ports),
            AGE,
            *_wide(_SELECTOR),
        ),
        ("", "Endpoints"): (NAME, _text("Endpoints", cells.endpoints), AGE),
        ("", "Node"): _node(),
        ("", "PersistentVolumeClaim"): _claim(),
        **{(group, "Event"): _event() for group in ("", "events.k8s.io")},
    }


def _pod() -> Columns:
    return (
        NAME,
        _text("Ready", cells.pod_ready),
        _text("Status", cells.pod_status),
        Column("Restarts", cells.pod_restarts),
        AGE,
        *_wide(
            ("IP", ".status.podIP"),
            ("Node", ".spec.nodeName"),
            ("Nominated Node", ".status.nominatedNodeName"),
            ("Readiness Gates", lambda _obj, _now: _NONE),
        ),
    )


def _node() -> Columns:
    return (
        NAME,
        _text("Status", cells.node_status),
        _text("Roles", cells.node_roles),
        AGE,
        _text("Version", ".status.nodeInfo.kubeletVersion"),
        *_wide(
            ("Internal-IP", '.status.addresses[?(@.type=="InternalIP")].address'),
            ("External-IP", '.status.addresses[?(@.type=="ExternalIP")].address'),
            ("OS-Image", ".status.nodeInfo.osImage"),
            ("Kernel-Version", ".status.nodeInfo.kernelVersion"),
            ("Container-Runtime", ".status.nodeInfo.containerRuntimeVersion"),
        ),
    )


def _claim() -> Columns:
    return (
        NAME,
        _text("Status", ".status.phase"),
        _text("Volume", ".spec.volumeName"),
        _text("Capacity", ".status.capacity.storage"),
        _text("Access Modes", cells.access_modes),
        _text("StorageClass", ".spec.storageClassName"),
        _text("VolumeAttributesClass", ".spec.volumeAttributesClassName", "<unset>"),
        AGE,
        _text("VolumeMode", ".spec.volumeMode", "<unset>", wide=True),
    )


def _event() -> Columns:
    return (
        Column("Last Seen", cells.event_last_seen),
        _text("Type", ".type"),
        _text("Reason", ".reason"),
        _text("Object", cells.event_object),
        _text("Subobject", cells.event_subobject, wide=True),
        _text("Source", cells.event_source, wide=True),
        _text("Message", cells.event_message),
        Column("First Seen", cells.event_first_seen, priority=1),
        Column("Count", cells.event_count, priority=1),
        Column("Name", NAME.cell, format="name", priority=1),
    )


def _workloads() -> dict[tuple[str, str], Columns]:
    wide = _wide(*_CONTAINERS, _SELECTOR)
    return {
        ("apps", "Deployment"): (
            NAME,
            _text("Ready", cells.replicas_ready),
            _number("Up-to-date", ".status.updatedReplicas"),
            _number("Available", ".status.availableReplicas"),
            AGE,
            *wide,
        ),
        ("apps", "ReplicaSet"): (
            NAME,
            _number("Desired", ".spec.replicas"),
            _number("Current", ".status.replicas"),
            _number("Ready", ".status.readyReplicas"),
            AGE,
            *wide,
        ),
        ("apps", "StatefulSet"): (NAME, _text("Ready", cells.replicas_ready), AGE, *_wide(*_CONTAINERS)),
        ("apps", "DaemonSet"): (
            NAME,
            _number("Desired", ".status.desiredNumberScheduled"),
            _number("Current", ".status.currentNumberScheduled"),
            _number("Ready", ".status.numberReady"),
            _number("Up-to-date", ".status.updatedNumberScheduled"),
            _number("Available", ".status.numberAvailable"),
            _text("Node Selector", cells.node_selector),
            AGE,
            *wide,
        ),
    }


def _batch() -> dict[tuple[str, str], Columns]:
    wide = _wide(*_CONTAINERS, _SELECTOR)
    return {
        ("batch", "Job"): (
            NAME,
            _text("Status", cells.job_status),
            _text("Completions", cells.job_completions),
            _text("Duration", cells.job_duration),
            AGE,
            *wide,
        ),
        ("batch", "CronJob"): (
            NAME,
            _text("Schedule", ".spec.schedule"),
            _text("Timezone", ".spec.timeZone", _NONE),
            _text("Suspend", cells.suspended),
            _number("Active", _count(".status.active")),
            _text("Last Schedule", cells.last_schedule),
            AGE,
            *wide,
        ),
    }


def _access() -> dict[tuple[str, str], Columns]:
    group = "rbac.authorization.k8s.io"
    binding = (
        NAME,
        _text("Role", cells.role_ref),
        AGE,
        _text("Users", cells.subjects("User"), wide=True),
        _text("Groups", cells.subjects("Group"), wide=True),
        _text("ServiceAccounts", cells.subjects("ServiceAccount"), wide=True),
    )
    return {
        (group, "Role"): (NAME, CREATED),
        (group, "ClusterRole"): (NAME, CREATED),
        (group, "RoleBinding"): binding,
        (group, "ClusterRoleBinding"): binding,
        ("apiextensions.k8s.io", "CustomResourceDefinition"): (NAME, CREATED),
    }


def _others() -> dict[tuple[str, str], Columns]:
    return {
        ("coordination.k8s.io", "Lease"): (NAME, _text("Holder", ".spec.holderIdentity"), AGE),
        ("networking.k8s.io", "NetworkPolicy"): (NAME, _text("Pod-Selector", cells.pod_selector), AGE),
        ("networking.k8s.io", "Ingress"): (
            NAME,
            _text("Class", ".spec.ingressClassName", _NONE),
            _text("Hosts", cells.ingress_hosts),
            _text("Address", ".status.loadBalancer.ingress[0].ip"),
            _text("Ports", cells.ingress_ports),
            AGE,
        ),
        ("policy", "PodDisruptionBudget"): (
            NAME,
            _text("Min Available", ".spec.minAvailable", "N/A"),
            _text("Max Unavailable", ".spec.maxUnavailable", "N/A"),
            _number("Allowed Disruptions", ".status.disruptionsAllowed"),
            AGE,
        ),
        ("scheduling.k8s.io", "PriorityClass"): (
            NAME,
            _number("Value", ".value"),
            Column("Global-Default", _at(".globalDefault", default=False), type="boolean"),
            AGE,
            _text("PreemptionPolicy", ".preemptionPolicy"),
        ),
        ("storage.k8s.io", "StorageClass"): (
            NAME,
            _text("Provisioner", ".provisioner"),
            _text("ReclaimPolicy", ".reclaimPolicy", "Delete"),
            _text("VolumeBindingMode", ".volumeBindingMode", "Immediate"),
            _text("AllowVolumeExpansion", cells.expandable),
            AGE,
        ),
    }
