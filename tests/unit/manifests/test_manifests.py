"""The installation as kustomize renders it: who may do what, and that every pod satisfies Pod Security "restricted"."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead import wiring
from fairlead.core.manifests import PodSettings, build_pool_pod, build_run_pod
from fairlead.core.names import GATEWAY_CA_CONFIGMAP, SANDBOX_NAMESPACE, SYSTEM_NAMESPACE
from fairlead.sandbox.base import Limits
from fairlead.sandbox.pod import PodShape, build_network_policy, build_pod
from fairlead.settings import GatewaySettings, OperatorSettings

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_name("rbac.golden")
RENDERED = ("base", "overlays/kind", "overlays/postgres", "overlays/openshift")
OPENSHIFT = "overlays/openshift"
USER = {"runAsUser", "runAsGroup", "fsGroup"}
GA = {
    "v1",
    "apps/v1",
    "rbac.authorization.k8s.io/v1",
    "apiextensions.k8s.io/v1",
    "networking.k8s.io/v1",
}
pytestmark = pytest.mark.kubectl


@cache
def rendered(name: str) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(ROOT / "manifests" / name)]
    text = subprocess.run(command, capture_output=True, check=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(name: str, *kinds: str) -> Iterator[dict[str, Any]]:
    return (document for document in rendered(name) if document["kind"] in kinds)


def rules_as_text(documents: list[dict[str, Any]]) -> str:
    lines = []
    for document in documents:
        meta = document["metadata"]
        lines.append(f"{document['kind']} {meta.get('namespace', '*')}/{meta['name']}")
        for rule in document.get("rules", ()):
            groups, resources = ",".join(g or "core" for g in rule["apiGroups"]), ",".join(rule["resources"])
            only = f" [{','.join(rule['resourceNames'])}]" if "resourceNames" in rule else ""
            lines.append(f"  {groups}: {resources}{only}: {','.join(rule['verbs'])}")
        lines += [
            f"  {document['roleRef']['kind']}/{document['roleRef']['name']} <- {subject['name']}"
            for subject in document.get("subjects", ())
        ]
    return "\n".join(lines) + "\n"


def test_rbac_is_what_was_agreed() -> None:
    roles = of_kind("overlays/kind", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
    documents = sorted(roles, key=lambda d: (d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]))
    assert rules_as_text(documents) == GOLDEN.read_text(), "look at every new right, then correct rbac.golden"


def test_operator_reads_no_secrets_and_enters_no_pods() -> None:
    for role in of_kind("base", "Role", "ClusterRole"):
        if role["metadata"]["name"] == "fairlead-operator":
            resources = {resource for rule in role["rules"] for resource in rule["resources"]}
            assert not resources & {"secrets", "pods/exec", "pods/attach", "pods/portforward", "*"}


def test_everybody_may_read_the_gateways_authority_and_nothing_else() -> None:
    bindings = [one for one in of_kind("base", "RoleBinding", "ClusterRoleBinding") if _is_for_groups(one)]
    (binding,) = bindings
    assert (binding["kind"], binding["metadata"]["namespace"]) == ("RoleBinding", SYSTEM_NAMESPACE)
    (role,) = [one for one in of_kind("base", "Role") if one["metadata"]["name"] == binding["roleRef"]["name"]]
    only = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [GATEWAY_CA_CONFIGMAP], "verbs": ["get"]}
    assert role["rules"] == [only]


def _is_for_groups(binding: dict[str, Any]) -> bool:
    return any(subject["kind"] != "ServiceAccount" for subject in binding["subjects"])


@pytest.mark.parametrize("name", RENDERED)
def test_only_stable_api_versions(name: str) -> None:
    assert {document["apiVersion"] for document in rendered(name)} <= GA


@pytest.mark.parametrize("name", RENDERED)
def test_every_deployment_is_restricted_and_bounded(name: str) -> None:
    deployments = list(of_kind(name, "Deployment"))
    assert len(deployments) == 2
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        assert_restricted(pod, fixed_user=name != OPENSHIFT)
        for container in pod["containers"]:
            assert {"livenessProbe", "readinessProbe", "startupProbe"} <= container.keys()


@pytest.mark.parametrize("name", RENDERED)
def test_namespace_enforces_restricted(name: str) -> None:
    namespaces = list(of_kind(name, "Namespace"))
    assert len(namespaces) == 2
    for namespace in namespaces:
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", RENDERED)
def test_sandboxes_are_alone_reach_nothing_and_are_bounded(name: str) -> None:
    inside = [one for one in rendered(name) if one["metadata"].get("namespace") == SANDBOX_NAMESPACE]
    kinds = {one["kind"] for one in inside}
    assert kinds == {"NetworkPolicy", "ResourceQuota", "LimitRange", "Role", "RoleBinding"}
    (policy,) = [found for found in of_kind(name, "NetworkPolicy") if found["metadata"]["name"] == "sandboxes"]
    wanted = build_network_policy(PodShape("", SANDBOX_NAMESPACE))
    assert (policy["metadata"]["namespace"], policy["spec"]) == (SANDBOX_NAMESPACE, wanted["spec"])


@pytest.mark.parametrize("name", ["namespace", "overlays/kind"])
def test_agents_reach_the_gateway_and_the_names_only(name: str) -> None:
    (policy,) = [found for found in of_kind(name, "NetworkPolicy") if found["metadata"]["name"] == "fairlead-agents"]
    spec = policy["spec"]
    assert policy["metadata"].get("namespace") == {"overlays/kind": "default"}.get(name)
    assert (sorted(spec["policyTypes"]), spec["ingress"]) == (["Egress", "Ingress"], [])
    (gateway,) = [found for found in of_kind("base", "Deployment") if found["metadata"]["name"] == "fairlead-gateway"]
    to_gateway, to_names = spec["egress"]
    (where,) = to_gateway["to"]
    labels = gateway["spec"]["template"]["metadata"]["labels"]
    assert where["podSelector"]["matchLabels"].items() <= labels.items()
    assert where["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": gateway["metadata"]["namespace"]
    }
    assert {port["port"] for port in to_gateway["ports"]} == {8443}
    assert [(port["protocol"], port["port"]) for port in to_names["ports"]] == [("UDP", 53), ("TCP", 53)]
    pods, *nodes = to_names["to"]
    assert pods["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    (expression,) = pods["podSelector"]["matchExpressions"]
    assert expression == {"key": "k8s-app", "operator": "In", "values": ["kube-dns", "node-local-dns"]}
    assert {node["ipBlock"]["cidr"] for node in nodes} == {"169.254.20.10/32", "169.254.25.10/32"}
    selected = spec["podSelector"]["matchLabels"]
    for pod in agent_pods():
        assert selected.items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("name", ["base", "overlays/kind", OPENSHIFT])
def test_whoever_mounts_the_volume_follows_everybody_else_who_does(name: str) -> None:
    """A term that a pod matches itself lets the first one go anywhere, and the second one only to the first."""
    shared: dict[str, str] = {}
    for deployment in of_kind(name, "Deployment"):
        pod = deployment["spec"]["template"]
        claims = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["spec"]["volumes"]]
        assert "fairlead-data" in claims
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert (term["topologyKey"], term.keys()) == ("kubernetes.io/hostname", {"topologyKey", "labelSelector"})
        shared = shared or term["labelSelector"]["matchLabels"]
        assert term["labelSelector"] == {"matchLabels": shared}
        assert shared.items() <= pod["metadata"]["labels"].items()
        assert not shared.keys() & deployment["spec"]["selector"]["matchLabels"].keys()  # which cannot change
    for pod in agent_pods():
        assert not shared.items() <= pod["metadata"]["labels"].items()


def test_postgres_overlay_has_no_volume_and_takes_the_url_from_a_secret() -> None:
    assert not list(of_kind("overlays/postgres", "PersistentVolumeClaim"))
    for deployment in of_kind("overlays/postgres", "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]
        assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["tmp"]
        (url,) = [entry for entry in pod["containers"][0]["env"] if entry["name"] == "FAIRLEAD_STORAGE_URL"]
        assert url["valueFrom"]["secretKeyRef"] == {"name": "fairlead-storage", "key": "url"}
        assert "affinity" not in pod
        assert "fairlead.dev/volume" not in deployment["spec"]["template"]["metadata"]["labels"]


def test_crds_are_all_installed() -> None:
    files = {path.name.removesuffix(".yaml") for path in (ROOT / "crds").glob("*.yaml")}
    names = {document["metadata"]["name"] for document in of_kind("base", "CustomResourceDefinition")}
    assert names == {f"{plural}.{group}" for group, plural in (name.split("_") for name in files)}


def agent_pods(*, fixed_user: bool = True) -> Iterator[dict[str, Any]]:
    settings = PodSettings("i", "IfNotPresent", gateway_url="https://g", gateway_ca="pem", fixed_user=fixed_user)
    owner = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"pod": {"labels": {"x": "y"}}, "resources": {"limits": {"memory": "1Gi"}}},
    }
    yield build_pool_pod(owner, 0, settings)
    yield build_run_pod(owner, 0, settings)


def test_agent_pods_are_restricted_and_bounded() -> None:
    for pod in agent_pods():
        assert_restricted(pod["spec"])
        assert pod["spec"]["automountServiceAccountToken"] is False


def test_openshift_chooses_the_users_of_all_pods() -> None:
    env = {
        entry["name"]: entry.get("value", "")
        for deployment in of_kind(OPENSHIFT, "Deployment")
        for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    operator, gateway = OperatorSettings.model_validate(_fields(env)), GatewaySettings.model_validate(_fields(env))
    assert not operator.agent_fixed_user
    assert not gateway.sandbox_fixed_user
    for pod in agent_pods(fixed_user=wiring._pod_defaults(operator).fixed_user):
        assert_restricted(pod["spec"], fixed_user=False)
    shape = PodShape("i", SANDBOX_NAMESPACE, fixed_user=gateway.sandbox_fixed_user)
    assert not USER & build_pod(shape, "sandbox-1", Limits(), 0)["spec"]["securityContext"].keys()


def _fields(env: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("FAIRLEAD_").lower(): value for name, value in env.items()}


def test_openshift_lets_agents_ask_its_own_names_servers() -> None:
    (policy,) = of_kind(f"{OPENSHIFT}/namespace", "NetworkPolicy")
    (base,) = of_kind("namespace", "NetworkPolicy")
    to_gateway, to_names = policy["spec"]["egress"]
    assert to_gateway == base["spec"]["egress"][0]
    assert to_names["to"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}},
            "podSelector": {"matchLabels": {"dns.operator.openshift.io/daemonset-dns": "default"}},
        }
    ]
    assert [(port["protocol"], port["port"]) for port in to_names["ports"]] == [("UDP", 5353), ("TCP", 5353)]


def assert_restricted(pod: dict[str, Any], *, fixed_user: bool = True) -> None:
    """Check what https://kubernetes.io/docs/concepts/security/pod-security-standards/ asks of "restricted"."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    named = {key: pod["securityContext"][key] for key in USER & pod["securityContext"].keys()}
    assert named == (dict.fromkeys(USER, 10001) if fixed_user else {})
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all((volume.keys() - {"name"}) <= allowed for volume in pod["volumes"])
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"]
        assert not any("hostPort" in port for port in container.get("ports", ()))
