"""The kinds that are there without a CRD, one row each."""

from __future__ import annotations

from fairlead.localcluster.apiserver.resources import Resource, ScalePaths

REVIEW = ("create",)

_CORE = (
    # plural, kind, short names, namespaced, subresources, categories
    ("configmaps", "ConfigMap", "cm", True, "", ""),
    ("endpoints", "Endpoints", "ep", True, "", ""),
    ("events", "Event", "ev", True, "", ""),
    ("limitranges", "LimitRange", "limits", True, "", ""),
    ("namespaces", "Namespace", "ns", False, "status finalize", ""),
    ("nodes", "Node", "no", False, "status", ""),
    ("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", True, "status", ""),
    ("persistentvolumes", "PersistentVolume", "pv", False, "status", ""),
    ("pods", "Pod", "po", True, "status log binding eviction", "all"),
    ("podtemplates", "PodTemplate", "", True, "", ""),
    ("replicationcontrollers", "ReplicationController", "rc", True, "status scale", "all"),
    ("resourcequotas", "ResourceQuota", "quota", True, "status", ""),
    ("secrets", "Secret", "", True, "", ""),
    ("serviceaccounts", "ServiceAccount", "sa", True, "token", ""),
    ("services", "Service", "svc", True, "status", "all"),
)

_GROUPS = (
    # group, version, rows as above
    (
        "apps",
        "v1",
        (
            ("controllerrevisions", "ControllerRevision", "", True, "", ""),
            ("daemonsets", "DaemonSet", "ds", True, "status", "all"),
            ("deployments", "Deployment", "deploy", True, "status scale", "all"),
            ("replicasets", "ReplicaSet", "rs", True, "status scale", "all"),
            ("statefulsets", "StatefulSet", "sts", True, "status scale", "all"),
        ),
    ),
    (
        "batch",
        "v1",
        (("cronjobs", "CronJob", "cj", True, "status", "all"), ("jobs", "Job", "", True, "status", "all")),
    ),
    ("autoscaling", "v2", (("horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", True, "status", "all"),)),
    ("policy", "v1", (("poddisruptionbudgets", "PodDisruptionBudget", "pdb", True, "status", ""),)),
    ("coordination.k8s.io", "v1", (("leases", "Lease", "", True, "", ""),)),
    ("events.k8s.io", "v1", (("events", "Event", "ev", True, "", ""),)),
    ("discovery.k8s.io", "v1", (("endpointslices", "EndpointSlice", "", True, "", ""),)),
    (
        "networking.k8s.io",
        "v1",
        (
            ("ingressclasses", "IngressClass", "", False, "", ""),
            ("ingresses", "Ingress", "ing", True, "status", ""),
            ("networkpolicies", "NetworkPolicy", "netpol", True, "", ""),
        ),
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        (
            ("clusterrolebindings", "ClusterRoleBinding", "", False, "", ""),
            ("clusterroles", "ClusterRole", "", False, "", ""),
            ("rolebindings", "RoleBinding", "", True, "", ""),
            ("roles", "Role", "", True, "", ""),
        ),
    ),
    ("scheduling.k8s.io", "v1", (("priorityclasses", "PriorityClass", "pc", False, "", ""),)),
    ("node.k8s.io", "v1", (("runtimeclasses", "RuntimeClass", "", False, "", ""),)),
    (
        "storage.k8s.io",
        "v1",
        (
            ("csidrivers", "CSIDriver", "", False, "", ""),
            ("csinodes", "CSINode", "", False, "", ""),
            ("storageclasses", "StorageClass", "sc", False, "", ""),
            ("volumeattachments", "VolumeAttachment", "", False, "status", ""),
        ),
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        (("customresourcedefinitions", "CustomResourceDefinition", "crd crds", False, "status", "api-extensions"),),
    ),
)

_REVIEWS = (
    # group, plural, kind, namespaced
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", False),
    ("authentication.k8s.io", "tokenreviews", "TokenReview", False),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", True),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", False),
)

_WITHOUT_GENERATION = frozenset(
    [
        "configmaps",
        "endpoints",
        "events",
        "namespaces",
        "nodes",
        "persistentvolumes",
        "persistentvolumeclaims",
        "secrets",
        "serviceaccounts",
        "services",
        "leases",
        "endpointslices",
        "clusterroles",
        "clusterrolebindings",
        "roles",
        "rolebindings",
        "limitranges",
        "resourcequotas",
        "podtemplates",
        "csidrivers",
        "csinodes",
        "storageclasses",
        "volumeattachments",
        "controllerrevisions",
        "runtimeclasses",
        "ingressclasses",
    ]
)
_RETURNS_DELETED = frozenset(
    [
        "pods",
        "services",
        "serviceaccounts",
        "persistentvolumeclaims",
        "persistentvolumes",
        "podtemplates",
        "resourcequotas",
    ]
)

_POD_FIELDS = (
    "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase"
)
SELECTABLE = {
    ("", "pods"): f"{_POD_FIELDS} status.podIP status.nominatedNodeName",
    ("", "events"): (
        "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion "
        "involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type"
    ),
    ("", "secrets"): "type",
    ("", "namespaces"): "status.phase",
    ("", "nodes"): "spec.unschedulable",
    ("", "services"): "spec.clusterIP spec.type",
    ("batch", "jobs"): "status.successful",
    ("apps", "replicasets"): "status.replicas",
    ("", "replicationcontrollers"): "status.replicas",
}
"""Fields that a field selector may name, besides metadata.name and metadata.namespace."""


_SCALE = ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector")


def builtin_resources() -> list[Resource]:
    """Return the resource of every row."""
    rows = [("", "v1", row) for row in _CORE]
    rows += [(group, version, row) for group, version, group_rows in _GROUPS for row in group_rows]
    stored = [_stored(group, version, row) for group, version, row in rows]
    reviews = [
        Resource(group=group, version="v1", plural=plural, kind=kind, namespaced=namespaced, verbs=REVIEW)
        for group, plural, kind, namespaced in _REVIEWS
    ]
    return stored + reviews


def _stored(group: str, version: str, row: tuple[str, str, str, bool, str, str]) -> Resource:
    plural, kind, short_names, namespaced, subresources, categories = row
    return Resource(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        namespaced=namespaced,
        short_names=tuple(short_names.split()),
        subresources=frozenset(subresources.split()),
        categories=tuple(categories.split()),
        has_generation=plural not in _WITHOUT_GENERATION,
        returns_deleted=plural in _RETURNS_DELETED,
        selectable=tuple(SELECTABLE.get((group, plural), "").split()),
        stored_as=("", "events") if plural == "events" else None,
        scale=_SCALE if "scale" in subresources else None,
    )
