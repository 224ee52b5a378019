"""No body makes the server fail: every field of a good one is replaced by every kind of nonsense."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

NONSENSE = (
    None,
    5,
    -1,
    1.5,
    True,
    "",
    "x",
    [],
    {},
    [None],
    [5],
    ["x"],
    [[]],
    [{}],
    {"a": 5},
    {"a": None},
    {"name": []},
)
CORE = "/api/v1/namespaces/default"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUTHENTICATION, AUTHORIZATION = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
METADATA = {
    "name": "x",
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
    "finalizers": ["a.b/c"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": True}],
}
POD = {
    "metadata": METADATA,
    "spec": {
        "serviceAccountName": "default",
        "containers": [
            {"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}, "env": [{"name": "A", "value": "b"}]}
        ],
    },
}
SCHEMA = {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}
CRD = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": SCHEMA,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.a", "statusReplicasPath": ".status.a"},
                },
                "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a"}],
            }
        ],
    },
}
ROLE = {
    "metadata": {"name": "x"},
    "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
    "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
}
BINDING = {
    "metadata": {"name": "x"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
}
ACCESS = {
    "spec": {
        "user": "u",
        "groups": ["g"],
        "extra": {"a": ["b"]},
        "resourceAttributes": {"verb": "get", "resource": "pods"},
    }
}
BOUND = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
TOKEN_REQUEST = {"spec": {"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": BOUND}}
DELETE = {"gracePeriodSeconds": 1, "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan", "dryRun": ["All"]}

CASES = [
    ("POST", f"{CORE}/configmaps", {"metadata": METADATA, "data": {"a": "b"}, "immutable": True}, ""),
    ("POST", f"{CORE}/secrets", {"metadata": {"name": "x"}, "stringData": {"a": "b"}, "type": "t"}, ""),
    ("POST", f"{CORE}/pods", POD, ""),
    ("POST", f"{CORE}/events", {"metadata": {"name": "x"}, "involvedObject": {"namespace": "default"}, "count": 1}, ""),
    ("POST", f"{CORE}/serviceaccounts", {"metadata": {"name": "x"}, "imagePullSecrets": [{"name": "a"}]}, ""),
    ("POST", "/api/v1/namespaces", {"metadata": METADATA}, ""),
    ("POST", CRDS, CRD, ""),
    ("POST", f"{RBAC}/clusterroles", ROLE, ""),
    ("POST", f"{RBAC}/clusterrolebindings", BINDING, ""),
    ("POST", f"{AUTHENTICATION}/tokenreviews", {"spec": {"token": "t", "audiences": ["a"]}}, ""),
    ("POST", f"{AUTHORIZATION}/subjectaccessreviews", ACCESS, ""),
    ("POST", f"{AUTHORIZATION}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}, ""),
    ("POST", f"{CORE}/serviceaccounts/default/token", TOKEN_REQUEST, ""),
    ("POST", f"{CORE}/pods/p/binding", {"target": {"name": "n"}}, ""),
    ("POST", f"{CORE}/pods/p/eviction", {"metadata": {"name": "p"}, "deleteOptions": DELETE}, ""),
    ("PUT", "/apis/apps/v1/namespaces/default/deployments/d/scale", {"metadata": {}, "spec": {"replicas": 1}}, ""),
    ("PATCH", "/apis/apps/v1/namespaces/default/deployments/d/scale", {"spec": {"replicas": 1}}, MERGE),
    ("PATCH", f"{CORE}/pods/p", POD, MERGE),
    ("PATCH", f"{CORE}/pods/p", POD, STRATEGIC),
    (
        "PATCH",
        f"{CORE}/pods/y?fieldManager=m",
        {"apiVersion": "v1", "kind": "Pod", **POD},
        "application/apply-patch+yaml",
    ),
    (
        "PATCH",
        f"{CORE}/pods/p",
        [{"op": "replace", "path": "/spec/hostname", "value": "a"}],
        "application/json-patch+json",
    ),
    ("DELETE", f"{CORE}/configmaps/kube-root-ca.crt", DELETE, ""),
]


def mutations(body: Any) -> Iterator[Any]:
    """Yield *body* with each of its parts, in turn, replaced by nonsense."""
    for path in paths(body):
        for nonsense in NONSENSE:
            changed = copy.deepcopy(body)
            target = changed
            for step in path[:-1]:
                target = target[step]
            target[path[-1]] = nonsense
            yield changed


def paths(body: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for step, inner in steps:
        yield (*prefix, step)
        yield from paths(inner, (*prefix, step))


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_no_body_makes_the_server_fail(call: Any, method: str, path: str, *, body: Any, kind: str) -> None:
    await call(
        "POST", f"{CORE}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await call("POST", "/apis/apps/v1/namespaces/default/deployments", {"metadata": {"name": "d"}, "spec": spec})
    dry = f"{path}{'&' if '?' in path else '?'}dryRun=All"
    failed = []
    with capture_logs():
        for changed in [*NONSENSE, *mutations(body)]:
            code, _ = await call(method, dry, changed, kind=kind or "application/json")
            if code >= 500:
                failed.append(changed)
    assert failed == []


async def test_a_body_that_is_nested_too_deeply_is_refused(call: Any) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    loose = copy.deepcopy(CRD)
    loose["spec"]["versions"][0]["schema"] = {
        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    }
    assert (await call("POST", CRDS, loose))[0] == 201
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "deep": deep}
    assert (await call("POST", "/apis/example.com/v1/namespaces/default/things", thing))[0] == 400
    thing["deep"] = deep[0][0][0][0]
    assert (await call("GET", "/apis/example.com/v1/namespaces/default/things/a"))[0] == 404
