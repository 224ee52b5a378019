from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import InvalidObject
from fairlead.localcluster.podruntime.environment import (
    build_command,
    build_environment,
    build_limits,
    field_value,
    parse_quantity,
    resource_value,
)
from fairlead.localcluster.podruntime.volumes import below, downward_files, references

OBJECTS: dict[tuple[str, str], dict[str, bytes]] = {
    ("ConfigMap", "conf"): {"a": b"1", "b": b"2"},
    ("Secret", "key"): {"token": b"canary-7d1"},
}


def lookup(kind: str, name: str) -> Mapping[str, bytes] | None:
    return OBJECTS.get((kind, name))


def environment(make_pod: Any, **container: Any) -> dict[str, str]:
    return build_environment(make_pod(), {"name": "agent", **container}, lookup)


def test_build_environment_expands_what_came_before(make_pod: Any) -> None:
    env = [{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)-$$(A)-$(C)"}, {"name": "C", "value": "late"}]
    assert environment(make_pod, env=env) == {"A": "x", "B": "x-$(A)-$(C)", "C": "late"}


def test_build_environment_reads_every_source(make_pod: Any) -> None:
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
        {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}},
        {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "a", "optional": True}}},
    ]
    sources = [{"prefix": "P_", "configMapRef": {"name": "conf"}}, {"secretRef": {"name": "none", "optional": True}}]
    found = environment(make_pod, env=env, envFrom=sources)
    assert found == {"P_a": "1", "P_b": "2", "NAME": "p", "KEY": "canary-7d1", "ONE": "1"}


@pytest.mark.parametrize(
    "container",
    [
        {"envFrom": [{"configMapRef": {"name": "none"}}]},
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]},
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "none"}}}]},
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nothing"}}}]},
    ],
)
def test_build_environment_without_a_source_names_it(make_pod: Any, container: dict[str, Any]) -> None:
    with pytest.raises(InvalidObject) as caught:
        environment(make_pod, **container)
    assert caught.value.reason == "CreateContainerConfigError"
    assert "none" in str(caught.value) or "spec.nothing" in str(caught.value)


def test_field_value_of_labels_and_annotations(make_pod: Any) -> None:
    pod = make_pod()
    pod["metadata"] |= {"labels": {"b": "2", "a": "1"}, "annotations": {"x/y": 'say "hi"'}}
    assert field_value(pod, "metadata.labels['a']") == "1"
    assert field_value(pod, "metadata.labels['none']") == ""
    assert field_value(pod, "metadata.labels") == 'a="1"\nb="2"'
    assert field_value(pod, "metadata.annotations") == 'x/y="say \\"hi\\""'


@pytest.mark.parametrize(
    ("text", "value"), [("250m", 0.25), ("64Mi", 64 * 2**20), ("1k", 1000.0), ("2", 2.0), ("1.5Gi", 1.5 * 2**30)]
)
def test_parse_quantity_reads_every_suffix(text: str, value: float) -> None:
    assert parse_quantity(text) == value


def test_parse_quantity_of_nonsense_is_refused() -> None:
    with pytest.raises(InvalidObject):
        parse_quantity("much")


def test_resource_value_is_rounded_up_to_its_divisor(make_pod: Any) -> None:
    pod = make_pod()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "250m", "memory": "100Mi"}}
    assert resource_value(pod, {"containerName": "agent", "resource": "limits.cpu"}) == "1"
    assert resource_value(pod, {"containerName": "agent", "resource": "limits.memory", "divisor": "1Mi"}) == "100"


def test_build_limits_turns_resources_into_rlimits() -> None:
    limits = build_limits({"resources": {"limits": {"memory": "64Mi", "ephemeral-storage": "1Mi", "cpu": "1"}}})
    assert limits == ["--limit=RLIMIT_CORE=0", f"--limit=RLIMIT_DATA={2 * 64 * 2**20}", f"--limit=RLIMIT_FSIZE={2**20}"]
    assert build_limits({}) == ["--limit=RLIMIT_CORE=0"]


def test_build_command_prefers_the_spec_and_expands() -> None:
    image = ["python", "-m", "fairlead_agent"]
    assert build_command({"args": ["$(X)"]}, image_command=image, variables={"X": "1"}) == [*image, "1"]
    assert build_command({"command": ["sh"], "args": ["-c"]}, image_command=image, variables={}) == ["sh", "-c"]


def test_references_finds_every_object_that_is_read() -> None:
    spec = {
        "containers": [
            {
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "c1"}}],
            }
        ],
        "volumes": [
            {"name": "a", "secret": {"secretName": "s2"}},
            {"name": "b", "projected": {"sources": [{"secret": {"name": "s3"}}, {"configMap": {"name": "c2"}}]}},
            {"name": "c", "emptyDir": {}},
        ],
    }
    names = {("Secret", "s1"), ("Secret", "s2"), ("Secret", "s3"), ("ConfigMap", "c1"), ("ConfigMap", "c2")}
    assert references(spec) == names


def test_below_refuses_to_lead_outside(tmp_path: Path) -> None:
    assert below(tmp_path, "/var/run/x") == tmp_path / "var/run/x"
    with pytest.raises(InvalidObject, match=r"\.\."):
        below(tmp_path, "a/../../b")


def test_downward_files_hold_fields_and_resources(make_pod: Any) -> None:
    pod = make_pod()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "2"}}
    items = [
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "agent", "resource": "limits.cpu"}},
    ]
    assert downward_files(pod, {"items": items}) == {"name": b"p", "cpu": b"2"}
