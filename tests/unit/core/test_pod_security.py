"""Every pod that the operator makes satisfies Pod Security "restricted", whatever its Agent says.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/, each rule as the page lists it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api.v1alpha1.agent import PodOptions
from fairlead.core import names
from fairlead.core.manifests import PodSettings, build_pool_pod, build_run_pod
from fairlead.core.resources import build_resources, parse_quantity

SETTINGS = PodSettings(image="agent:1", pull_policy="IfNotPresent", gateway_url="https://g", gateway_ca="pem")
EVIL: dict[str, Any] = {
    "hostNetwork": True,
    "hostPID": True,
    "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
    "securityContext": {"privileged": True},
    "initContainers": [{"name": "i", "image": "i"}],
    "automountServiceAccountToken": True,
    "command": ["sh"],
}
OPTIONS: dict[str, list[Any]] = {
    "image": ["mine:1"],
    "imagePullPolicy": ["Always", "Never"],
    "imagePullSecrets": [["registry"]],
    "env": [[{"name": "TZ", "value": "UTC"}], [{"name": "FAIRLEAD_GATEWAY_URL", "value": "http://evil"}]],
    "labels": [{names.AGENT_LABEL: "other", "team": "a", "app.kubernetes.io/part-of": "me"}],
    "annotations": [
        {"container.apparmor.security.beta.kubernetes.io/agent": "unconfined", "note": "x"},
        {"seccomp.security.alpha.kubernetes.io/pod": "unconfined", names.POOL_ANNOTATION: "stolen"},
    ],
    "nodeSelector": [{"disk": "ssd"}],
    "tolerations": [[{"operator": "Exists"}]],
    "priorityClassName": ["high"],
    "runtimeClassName": ["gvisor"],
    "serviceAccountName": ["robot"],
}
RESOURCES: list[dict[str, Any] | None] = [
    None,
    {},
    {"limits": {"memory": "64Mi"}},
    {"requests": {"cpu": "3", "memory": "2Gi", "ephemeral-storage": "1Gi"}},
    {"requests": {"cpu": 1}, "limits": {"cpu": 2, "nvidia.com/gpu": 1}},
    {"limits": {"cpu": "50m", "memory": "1G", "ephemeral-storage": "1Mi"}},
]
POD_FIELDS = {
    "restartPolicy",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "terminationGracePeriodSeconds",
    "securityContext",
    "containers",
    "volumes",
    "nodeSelector",
    "tolerations",
    "priorityClassName",
    "runtimeClassName",
    "serviceAccountName",
    "imagePullSecrets",
}
CONTAINER_FIELDS = {
    "name",
    "image",
    "imagePullPolicy",
    "env",
    "resources",
    "securityContext",
    "volumeMounts",
}
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def made(options: dict[str, Any], resources: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Yield a pod of the pool of an Agent with these options, and the pod of a run."""
    meta = {"name": "a", "namespace": "n", "uid": "u", "generation": 1}
    owner = {"apiVersion": names.API_VERSION, "kind": "Agent", "metadata": meta}
    spec = {"pod": options} | ({} if resources is None else {"resources": resources})
    yield build_pool_pod({**owner, "spec": spec}, 0, SETTINGS)
    yield build_run_pod({**owner, "kind": "WorkflowRun", "spec": spec}, 0, SETTINGS)


def check(pod: dict[str, Any]) -> None:
    check_restricted(pod)
    check_token(pod["spec"])
    check_fields(pod)


def check_restricted(pod: dict[str, Any]) -> None:
    """Hold a pod to every rule of the profile, those of "baseline" included."""
    spec = pod["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
    assert all((volume.keys() - {"name"}) <= VOLUMES for volume in spec["volumes"])
    assert not [key for key in pod["metadata"]["annotations"] if re.search(r"security\.(alpha|beta)\.", key)]
    pod_level = spec["securityContext"]
    assert pod_level["runAsNonRoot"] is True
    assert pod_level["runAsUser"] != 0
    assert pod_level["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (
        not {"sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile", "supplementalGroups"} & pod_level.keys()
    )
    assert "initContainers" not in spec
    assert "ephemeralContainers" not in spec
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert "ports" not in container
        assert "livenessProbe" not in container  # a probe may name another host


def check_token(spec: dict[str, Any]) -> None:
    """Hold a pod to the one credential that it has."""
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    sources = [source for volume in spec["volumes"] for source in volume.get("projected", {}).get("sources", ())]
    assert [source["serviceAccountToken"]["audience"] for source in sources] == ["fairlead-gateway"]
    assert not {"secret", "configMap"} & {key for volume in spec["volumes"] for key in volume}
    assert not any("valueFrom" in entry for entry in spec["containers"][0]["env"])


def check_fields(pod: dict[str, Any]) -> None:
    """Hold a pod to the fields that are known, and to what is Fairlead's to say."""
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert spec.keys() <= POD_FIELDS
    assert container.keys() == CONTAINER_FIELDS
    assert pod["metadata"].keys() == {"name", "namespace", "labels", "annotations", "ownerReferences"}
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert (env["FAIRLEAD_GATEWAY_URL"], len(env)) == ("https://g", len(container["env"]))
    assert names.PART_OF_LABELS.items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["labels"].get(names.AGENT_LABEL, "a") == "a"
    assert pod["metadata"]["annotations"].get(names.POOL_ANNOTATION, "u") == "u"
    bounded = container["resources"]["limits"]
    assert {"cpu", "memory", "ephemeral-storage"} <= bounded.keys()
    for name, request in container["resources"]["requests"].items():
        assert name not in bounded or parse_quantity(request) <= parse_quantity(bounded[name])
    assert spec["volumes"][1]["emptyDir"]["sizeLimit"]


def test_options_are_those_of_the_schema() -> None:
    """A new field of the schema has to be added here, and to be thought about."""
    assert OPTIONS.keys() == {field.alias for field in PodOptions.model_fields.values()}


def test_every_combination_of_options_is_restricted() -> None:
    """Each option given or not, with each of its values at least once: 2048 pods."""
    for present in itertools.product((False, True), repeat=len(OPTIONS)):
        chosen = [name for name, there in zip(OPTIONS, present, strict=True) if there]
        index = sum(present)
        options = {name: OPTIONS[name][index % len(OPTIONS[name])] for name in chosen}
        for pod in made(options | EVIL):
            check(pod)


@pytest.mark.parametrize("resources", RESOURCES)
def test_every_kind_of_resources_is_bounded(resources: dict[str, Any] | None) -> None:
    for pod in made({}, resources):
        check(pod)


QUANTITIES = st.one_of(
    st.integers(0, 10), st.builds("{}{}".format, st.integers(1, 2000), st.sampled_from(["m", "k", "Ki", "Mi", "Gi"]))
)
SOME = st.dictionaries(st.sampled_from(["cpu", "memory", "ephemeral-storage"]), QUANTITIES)


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional={"requests": SOME, "limits": SOME}))
def test_build_resources_keeps_what_is_given_and_makes_no_request_over_its_limit(given_: dict[str, Any]) -> None:
    built = build_resources(given_)
    for part in ("requests", "limits"):
        chosen = given_.get(part) or {}
        assert {key: built[part][key] for key in chosen} == {key: str(value) for key, value in chosen.items()}
    for name in ("cpu", "memory", "ephemeral-storage"):
        both = name in (given_.get("requests") or {}) and name in (given_.get("limits") or {})
        assert both or parse_quantity(built["requests"][name]) <= parse_quantity(built["limits"][name])
