"""The roles and bindings that every cluster has.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
"""

from __future__ import annotations

from fairlead.localcluster.apiserver.errors import Json

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_FULL = (*_READ, *_WRITE)
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_TO = "rbac.authorization.k8s.io/aggregate-to-"

_CORE_VIEW = (
    "configmaps endpoints events limitranges namespaces namespaces/status persistentvolumeclaims "
    "persistentvolumeclaims/status pods pods/log pods/status replicationcontrollers replicationcontrollers/scale "
    "replicationcontrollers/status resourcequotas resourcequotas/status serviceaccounts services services/status"
)
_CORE_EDIT = (
    "configmaps events persistentvolumeclaims pods pods/eviction replicationcontrollers replicationcontrollers/scale "
    "secrets serviceaccounts services"
)
_WORKLOADS = (
    "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets "
    "replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"
)
_WORKLOADS_EDIT = (
    "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets "
    "statefulsets/scale"
)


def _rule(verbs: tuple[str, ...], group: str, resources: str, **more: list[str]) -> Json:
    return {"verbs": list(verbs), "apiGroups": group.split() or [""], "resources": resources.split(), **more}


def _paths(paths: str) -> Json:
    return {"verbs": ["get"], "nonResourceURLs": paths.split()}


_INFO = "/healthz /livez /readyz /version /version/"
_DISCOVERY = "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"

_VIEW_RULES = [
    _rule(_READ, "", _CORE_VIEW),
    _rule(_READ, "apps", _WORKLOADS),
    _rule(_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    _rule(_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    _rule(_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    _rule(_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
]
_EDIT_RULES = [
    _rule(_READ, "", "secrets pods/attach pods/exec pods/portforward pods/proxy services/proxy"),
    _rule(("impersonate",), "", "serviceaccounts"),
    _rule(_WRITE, "", _CORE_EDIT),
    _rule(("create",), "", "serviceaccounts/token"),
    _rule(_WRITE, "apps", _WORKLOADS_EDIT),
    _rule(_WRITE, "batch", "cronjobs jobs"),
    _rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
    _rule(_WRITE, "policy", "poddisruptionbudgets"),
    _rule(_WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    _rule(_FULL, "coordination.k8s.io", "leases"),
]
_ADMIN_RULES = [
    _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews"),
    _rule(_FULL, "rbac.authorization.k8s.io", "roles rolebindings"),
]
_NODE_RULES = [
    _rule(_READ, "", "configmaps namespaces persistentvolumeclaims persistentvolumes secrets serviceaccounts services"),
    _rule((*_READ, "create", "delete", "patch", "update"), "", "nodes"),
    _rule((*_READ, "create", "delete"), "", "pods"),
    _rule(("patch", "update"), "", "nodes/status pods/status"),
    _rule(("create",), "", "pods/binding pods/eviction serviceaccounts/token"),
    _rule(("create", "patch", "update"), "", "events", apiGroups=["", "events.k8s.io"]),
    _rule(("create", "delete", "get", "patch", "update"), "coordination.k8s.io", "leases"),
    _rule(("create",), "authentication.k8s.io", "tokenreviews"),
    _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
    _rule(_READ, "node.k8s.io", "runtimeclasses"),
]

_ROLES: dict[str, list[Json]] = {
    "cluster-admin": [_rule(("*",), "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "system:discovery": [_paths(_DISCOVERY)],
    "system:public-info-viewer": [_paths(_INFO)],
    "system:basic-user": [
        _rule(("create",), "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        _rule(("create",), "authentication.k8s.io", "selfsubjectreviews"),
    ],
    "system:auth-delegator": [
        _rule(("create",), "authentication.k8s.io", "tokenreviews"),
        _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:node": _NODE_RULES,
}
_AGGREGATES = {
    "system:aggregate-to-view": ("view", _VIEW_RULES),
    "system:aggregate-to-edit": ("edit", _EDIT_RULES),
    "system:aggregate-to-admin": ("admin", _ADMIN_RULES),
}
_AGGREGATED = {"admin": "edit", "edit": "view", "view": ""}
"""Each role that is put together from labelled ones, and the next smaller of them."""

_BINDINGS = {
    "cluster-admin": ("system:masters",),
    "system:discovery": ("system:authenticated",),
    "system:basic-user": ("system:authenticated",),
    "system:public-info-viewer": ("system:authenticated", "system:unauthenticated"),
    "system:node": ("system:nodes",),
}


def bootstrap_objects() -> list[tuple[str, Json]]:
    """Return plural and object of everything that has to be there."""
    roles = [_role(name, rules) for name, rules in _ROLES.items()]
    roles += [_role(name, rules, {f"{_TO}{role}": "true"}) for name, (role, rules) in _AGGREGATES.items()]
    roles += [_aggregated(name, part_of=_larger(name)) for name in _AGGREGATED]
    bindings = [_binding(name, groups) for name, groups in _BINDINGS.items()]
    return [("clusterroles", role) for role in roles] + [("clusterrolebindings", binding) for binding in bindings]


def _larger(name: str) -> str:
    return next((role for role, smaller in _AGGREGATED.items() if smaller == name), "")


def _metadata(name: str, labels: dict[str, str] | None = None) -> Json:
    annotations = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
    return {"name": name, "labels": {**_LABELS, **(labels or {})}, "annotations": annotations}


def _role(name: str, rules: list[Json], labels: dict[str, str] | None = None) -> Json:
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    return {**head, "metadata": _metadata(name, labels), "rules": rules}


def _aggregated(name: str, *, part_of: str) -> Json:
    selectors = [{"matchLabels": {f"{_TO}{name}": "true"}}]
    labels = {f"{_TO}{part_of}": "true"} if part_of else None
    return {**_role(name, [], labels), "aggregationRule": {"clusterRoleSelectors": selectors}}


def _binding(role: str, groups: tuple[str, ...]) -> Json:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": _metadata(role),
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": name} for name in groups],
    }
