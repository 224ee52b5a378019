"""What Kubernetes does for single kinds, and no other code may know a kind by name.

`prepare` fills in, `admit` refuses; both are looked up by group and plural.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from fairlead.localcluster.apiserver import crds
from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import ApiError, Json, forbidden, invalid
from fairlead.localcluster.apiserver.rbac import GROUP as RBAC
from fairlead.localcluster.apiserver.rbac import SUPERUSERS, describe_rule, uncovered
from fairlead.localcluster.apiserver.requests import Attributes, User
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.store import TableKey
from fairlead.localcluster.schema.errors import FieldError, required
from fairlead.localcluster.schema.errors import forbidden as forbidden_field
from fairlead.localcluster.schema.errors import invalid as invalid_field

Prepare = Callable[[Cluster, Json, Json | None], None]
Admit = Callable[[Cluster, Resource, Json, Json | None, User], None]

_POD_MUTABLE = "spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations"
_POD_IMMUTABLE_TEXT = (
    f"pod updates may not change fields other than `{_POD_MUTABLE}` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def prepares(resource: Resource) -> bool:
    """Tell whether the kind fills anything in; it then reads fields before they are checked."""
    return resource.table in _PREPARE


def prepare(cluster: Cluster, resource: Resource, obj: Json, *, before: Json | None) -> None:
    """Fill in what the kind adds to every object."""
    hook = _PREPARE.get(resource.table)
    if hook is not None:
        hook(cluster, obj, before)


def admit(cluster: Cluster, resource: Resource, obj: Json, *, before: Json | None, user: User) -> None:
    """Refuse what the kind does not allow.

    Raises:
        ApiError: it is refused.
    """
    hook = _ADMIT.get(resource.table)
    if hook is not None:
        hook(cluster, resource, obj, before, user)


def warnings(resource: Resource, obj: Json) -> list[str]:
    """Return what to tell a client whose object is accepted."""
    return crds.warnings(obj) if resource.table == crds.TABLE else []


def _prepare_namespace(_cluster: Cluster, obj: Json, before: Json | None) -> None:
    metadata = obj["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata.get("name", "")}
    if before is None:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}


def _prepare_secret(_cluster: Cluster, obj: Json, _before: Json | None) -> None:
    plain = obj.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode((value or "").encode()).decode() for key, value in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _prepare_pod(cluster: Cluster, obj: Json, before: Json | None) -> None:
    spec = obj.get("spec")
    if before is not None or not isinstance(spec, dict):
        return
    spec = obj["spec"] = {**spec}
    spec["serviceAccountName"] = spec["serviceAccount"] = (
        spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    )
    _copy_pull_secrets(cluster, obj)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    spec["containers"] = [_with_pull_policy(each) for each in spec.get("containers") or []]
    obj["status"] = {"phase": "Pending", "qosClass": _qos_class(spec)}


def _copy_pull_secrets(cluster: Cluster, pod: Json) -> None:
    account = cluster.core("serviceaccounts", pod["metadata"].get("namespace", ""), pod["spec"]["serviceAccountName"])
    if account is not None and account.get("imagePullSecrets"):
        pod["spec"].setdefault("imagePullSecrets", account["imagePullSecrets"])


def _with_pull_policy(container: Any) -> Any:
    if not isinstance(container, dict) or "imagePullPolicy" in container:
        return container
    name = str(container.get("image", "")).rpartition("/")[2]
    latest = "@" not in name and name.partition(":")[2] in {"", "latest"}
    return {**container, "imagePullPolicy": "Always" if latest else "IfNotPresent"}


def _qos_class(spec: Json) -> str:
    """Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/."""
    resources = [each.get("resources") or {} for each in spec["containers"] if isinstance(each, dict)]
    if not any(each.get("requests") or each.get("limits") for each in resources):
        return "BestEffort"
    guaranteed = all(
        set(each.get("limits") or {}) >= {"cpu", "memory"} and each.get("requests", each["limits"]) == each["limits"]
        for each in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _admit_pod(cluster: Cluster, resource: Resource, obj: Json, before: Json | None, _user: User) -> None:
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    if not spec.get("containers"):
        raise invalid(resource, metadata["name"], [required("spec.containers")])
    if before is None:
        account = spec["serviceAccountName"]
        if cluster.core("serviceaccounts", metadata["namespace"], account) is None:
            missing = f'serviceaccount "{account}" not found'
            why = f"error looking up service account {metadata['namespace']}/{account}: {missing}"
            raise forbidden(resource, metadata["name"], why)
    elif _fixed_pod_spec(spec) != _fixed_pod_spec(before["spec"]):
        raise invalid(resource, metadata["name"], [forbidden_field("spec", _POD_IMMUTABLE_TEXT)])


def _fixed_pod_spec(spec: Json) -> Json:
    fixed = {name: value for name, value in spec.items() if name not in {"activeDeadlineSeconds", "tolerations"}}
    for containers in ("containers", "initContainers"):
        fixed[containers] = [{**each, "image": ""} for each in spec.get(containers) or []]
    return fixed


def _admit_immutable(_cluster: Cluster, resource: Resource, obj: Json, before: Json | None, _user: User) -> None:
    if before is None or not before.get("immutable"):
        return
    changed = [name for name in ("data", "binaryData", "immutable") if obj.get(name) != before.get(name)]
    if changed:
        problems = [forbidden_field(name, "field is immutable when `immutable` is set") for name in changed]
        raise invalid(resource, obj["metadata"]["name"], problems)


def _prepare_role(cluster: Cluster, obj: Json, _before: Json | None) -> None:
    if obj.get("aggregationRule"):
        from fairlead.localcluster.apiserver.controllers import aggregated_rules

        obj["rules"] = aggregated_rules(cluster, obj)


def _admit_role(cluster: Cluster, resource: Resource, obj: Json, before: Json | None, user: User) -> None:
    if obj.get("aggregationRule") and obj.get("aggregationRule") != (before or {}).get("aggregationRule"):
        _check_escalation(cluster, resource, obj, [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}], user=user)
    if before is None or obj.get("rules") != before.get("rules"):
        if obj.get("aggregationRule"):
            return
        _check_escalation(cluster, resource, obj, obj.get("rules") or [], user=user)


def _check_escalation(cluster: Cluster, resource: Resource, obj: Json, rules: list[Json], *, user: User) -> None:
    namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
    if _may(cluster, user, "escalate", resource.plural, namespace=namespace, name=name):
        return
    missing = uncovered(cluster.authorizer.rules(user, namespace), rules)
    if missing:
        raise forbidden(resource, name, _escalation_text(user, missing))


def _escalation_text(user: User, missing: list[Json]) -> str:
    groups = " ".join(f'"{group}"' for group in user.groups)
    lines = "\n".join(describe_rule(atom) for atom in missing)
    return (
        f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{lines}'
    )


def _may(cluster: Cluster, user: User, verb: str, plural: str, *, namespace: str, name: str) -> bool:
    if SUPERUSERS in user.groups:
        return True
    attributes = Attributes(verb=verb, group=RBAC, version="v1", resource=plural, namespace=namespace, name=name)
    return cluster.authorizer.decide(user, attributes).allowed


def _admit_binding(cluster: Cluster, resource: Resource, obj: Json, before: Json | None, user: User) -> None:
    reference, name = obj.get("roleRef") or {}, obj["metadata"]["name"]
    if before is not None and reference != before.get("roleRef"):
        raise invalid(resource, name, [invalid_field("roleRef", reference, "cannot change roleRef")])
    if before is not None and obj.get("subjects") == before.get("subjects"):
        return
    namespace = obj["metadata"].get("namespace", "")
    plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
    if _may(cluster, user, "bind", plural, namespace=namespace, name=reference.get("name", "")):
        return
    rules = cluster.authorizer.role_rules(reference, namespace)
    if rules is None:
        message = f'{plural}.{RBAC} "{reference.get("name")}" not found'
        raise ApiError(404, "NotFound", message, details={"name": reference.get("name"), "group": RBAC, "kind": plural})
    missing = uncovered(cluster.authorizer.rules(user, namespace), rules)
    if missing:
        raise forbidden(resource, name, _escalation_text(user, missing))


def _admit_lease(_cluster: Cluster, resource: Resource, obj: Json, _before: Json | None, _user: User) -> None:
    seconds = (obj.get("spec") or {}).get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        path = "spec.leaseDurationSeconds"
        raise invalid(resource, obj["metadata"]["name"], [invalid_field(path, seconds, "must be greater than 0")])


def _admit_event(_cluster: Cluster, resource: Resource, obj: Json, before: Json | None, _user: User) -> None:
    involved = (obj.get("involvedObject") or obj.get("regarding") or {}).get("namespace", "")
    namespace = obj["metadata"]["namespace"]
    if before is None and (involved or "default") != namespace:
        problem = FieldError("involvedObject.namespace", _event_text(involved), "FieldValueInvalid")
        raise invalid(resource, obj["metadata"]["name"], [problem])


def _event_text(namespace: str) -> str:
    return f'Invalid value: "{namespace}": does not match event.namespace'


def _prepare_crd(cluster: Cluster, obj: Json, before: Json | None) -> None:
    crds.prepare(obj, before, others=crds.all_crds(cluster), now=cluster.now())


def _admit_crd(cluster: Cluster, resource: Resource, obj: Json, before: Json | None, _user: User) -> None:
    crds.admit(cluster, resource, obj, before)


_PREPARE: Mapping[TableKey, Prepare] = {
    ("", "namespaces"): _prepare_namespace,
    ("", "secrets"): _prepare_secret,
    ("", "pods"): _prepare_pod,
    (RBAC, "clusterroles"): _prepare_role,
    crds.TABLE: _prepare_crd,
}
_ADMIT: Mapping[TableKey, Admit] = {
    ("", "pods"): _admit_pod,
    ("", "secrets"): _admit_immutable,
    ("", "configmaps"): _admit_immutable,
    ("", "events"): _admit_event,
    ("coordination.k8s.io", "leases"): _admit_lease,
    (RBAC, "clusterroles"): _admit_role,
    (RBAC, "roles"): _admit_role,
    (RBAC, "clusterrolebindings"): _admit_binding,
    (RBAC, "rolebindings"): _admit_binding,
    crds.TABLE: _admit_crd,
}
