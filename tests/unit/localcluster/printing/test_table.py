from __future__ import annotations

from typing import Any

import pytest

from fairlead.localcluster.printing import builtin_columns, to_table
from fairlead.localcluster.printing.durations import age, human

NOW = "2026-01-02T00:00:00Z"
COLUMNS = [
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "Count", "type": "integer", "jsonPath": ".spec.count", "priority": 1},
    {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
    {"name": "Since", "type": "date", "jsonPath": ".status.since"},
]


def cells(columns: Any, obj: dict[str, Any]) -> list[Any]:
    found: list[Any] = to_table(columns, [obj], include_object="None", now=NOW)["rows"][0]["cells"]
    return found


def shown(api_version: str, kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    table = to_table(builtin_columns(api_version, kind), [obj], include_object="None", now=NOW)
    return dict(zip((each["name"] for each in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))


def test_to_table_of_a_custom_kind_shows_its_columns_after_the_name() -> None:
    obj = {
        "metadata": {"name": "a"},
        "spec": {"count": 3, "on": True},
        "status": {
            "conditions": [{"type": "Other", "status": "x"}, {"type": "Ready", "status": "True"}],
            "since": "2026-01-01T23:55:00Z",
        },
    }
    assert cells(COLUMNS, obj) == ["a", "True", 3, True, "5m"]


def test_to_table_leaves_cells_empty_where_there_is_nothing_or_something_else() -> None:
    assert cells(COLUMNS, {"metadata": {"name": "a"}}) == ["a", None, None, None, None]
    odd = {"metadata": {"name": "a"}, "spec": {"count": "3", "on": 1}, "status": {"since": "then"}}
    assert cells(COLUMNS, odd) == ["a", None, None, None, "<invalid>"]


def test_to_table_without_columns_shows_the_age() -> None:
    obj = {"metadata": {"name": "a", "creationTimestamp": "2025-12-31T00:00:00Z"}}
    table = to_table([], [obj], include_object="Metadata", now=NOW)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Age"]
    assert table["rows"][0] == {
        "cells": ["a", "2d"],
        "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]},
    }
    assert to_table([], [obj], include_object="Object", now=NOW)["rows"][0]["object"] is obj


def test_to_table_marks_wide_columns() -> None:
    definitions = to_table(COLUMNS, [], include_object="None", now=NOW)["columnDefinitions"]
    assert [each["priority"] for each in definitions] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"), (-1, "0s"), (-2, "<invalid>"), (59, "59s"), (119, "119s"), (120, "2m"), (125, "2m5s"),
        (600, "10m"), (3599, "59m"),
        (3 * 3600, "3h"), (5 * 3600 + 120, "5h2m"), (8 * 3600, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"),
        (51 * 3600, "2d3h"), (8 * 86400, "8d"), (2 * 365 * 86400, "2y"),
        (3 * 365 * 86400 + 5 * 86400, "3y5d"), (9 * 365 * 86400, "9y"),
    ],
)  # fmt: skip
def test_human_is_kubectls_duration(seconds: int, expected: str) -> None:
    assert human(seconds) == expected


def test_age_of_what_is_no_time_says_so() -> None:
    assert age("yesterday", NOW) == "<invalid>"


RUNNING = {"state": {"running": {}}, "ready": True, "restartCount": 0}
CRASHING = {
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "ready": False,
    "restartCount": 3,
    "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:00Z"}},
}


@pytest.mark.parametrize(
    ("pod", "status", "ready", "restarts"),
    [
        pytest.param({"status": {"phase": "Pending"}}, "Pending", "0/1", "0", id="pending"),
        pytest.param(
            {"status": {"phase": "Running", "containerStatuses": [RUNNING]}}, "Running", "1/1", "0", id="running"
        ),
        pytest.param(
            {"status": {"phase": "Running", "containerStatuses": [CRASHING]}},
            "CrashLoopBackOff",
            "0/1",
            "3 (60s ago)",
            id="crashing",
        ),
        pytest.param(
            {
                "status": {
                    "phase": "Succeeded",
                    "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}],
                }
            },
            "Completed",
            "0/1",
            "0",
            id="completed",
        ),
        pytest.param(
            {"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}},
            "ExitCode:3",
            "0/1",
            "0",
            id="exit-code",
        ),
        pytest.param({"status": {"phase": "Failed", "reason": "Evicted"}}, "Evicted", "0/1", "0", id="reason"),
        pytest.param(
            {
                "spec": {"containers": [{}], "initContainers": [{}, {}]},
                "status": {
                    "phase": "Pending",
                    "initContainerStatuses": [{"state": {"terminated": {"exitCode": 0}}}, {"state": {"running": {}}}],
                },
            },
            "Init:1/2",
            "0/1",
            "0",
            id="init",
        ),
        pytest.param(
            {"metadata": {"name": "p", "deletionTimestamp": NOW}, "status": {"phase": "Running"}},
            "Terminating",
            "0/1",
            "0",
            id="terminating",
        ),
    ],
)
def test_builtin_columns_of_a_pod(pod: dict[str, Any], status: str, ready: str, restarts: str) -> None:
    row = shown("v1", "Pod", {"metadata": {"name": "p"}, "spec": {"containers": [{}]}} | pod)
    assert (row["Status"], row["Ready"], row["Restarts"]) == (status, ready, restarts)


@pytest.mark.parametrize(
    ("api_version", "kind", "obj", "expected"),
    [
        pytest.param("v1", "ConfigMap", {"data": {"a": ""}, "binaryData": {"b": ""}}, {"Data": 2}, id="ConfigMap"),
        pytest.param("v1", "Secret", {"type": "Opaque"}, {"Type": "Opaque", "Data": 0}, id="Secret"),
        pytest.param("v1", "Namespace", {"status": {"phase": "Active"}}, {"Status": "Active"}, id="Namespace"),
        pytest.param(
            "v1",
            "Service",
            {
                "spec": {
                    "type": "NodePort",
                    "clusterIP": "10.0.0.1",
                    "ports": [{"port": 80, "nodePort": 30080}],
                    "selector": {"a": "b"},
                }
            },
            {
                "Type": "NodePort",
                "Cluster-IP": "10.0.0.1",
                "External-IP": "<none>",
                "Port(s)": "80:30080/TCP",
                "Selector": "a=b",
            },
            id="Service",
        ),
        pytest.param(
            "v1",
            "Node",
            {
                "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            },
            {"Status": "Ready", "Roles": "control-plane"},
            id="Node",
        ),
        pytest.param(
            "v1",
            "Event",
            {
                "lastTimestamp": "2026-01-01T23:58:00Z",
                "type": "Normal",
                "reason": "R",
                "involvedObject": {"kind": "Pod", "name": "p"},
                "message": "m\n",
            },
            {"Last Seen": "2m", "Object": "pod/p", "Message": "m", "Count": 1},
            id="Event",
        ),
        pytest.param(
            "events.k8s.io/v1",
            "Event",
            {"eventTime": "2026-01-01T23:58:00.000001Z", "regarding": {"kind": "Pod", "name": "p"}, "note": "m"},
            {"Last Seen": "119s", "Object": "pod/p", "Message": "m"},
            id="events.k8s.io",
        ),
        pytest.param("coordination.k8s.io/v1", "Lease", {"spec": {"holderIdentity": "h"}}, {"Holder": "h"}, id="Lease"),
        pytest.param(
            "apps/v1",
            "Deployment",
            {"spec": {"replicas": 3}, "status": {"readyReplicas": 1}},
            {"Ready": "1/3", "Up-to-date": 0},
            id="Deployment",
        ),
        pytest.param(
            "batch/v1",
            "Job",
            {
                "spec": {"completions": 1},
                "status": {
                    "succeeded": 1,
                    "startTime": "2026-01-01T23:00:00Z",
                    "completionTime": "2026-01-01T23:00:09Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            {"Status": "Complete", "Completions": "1/1", "Duration": "9s"},
            id="Job",
        ),
        pytest.param(
            "batch/v1",
            "CronJob",
            {"spec": {"schedule": "* * * * *", "suspend": False}},
            {"Suspend": "False", "Active": 0, "Last Schedule": "<none>"},
            id="CronJob",
        ),
        pytest.param(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            {
                "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "namespace": "n", "name": "s"}, {"kind": "User", "name": "u"}],
            },
            {"Role": "Role/r", "Users": "u", "Groups": "", "ServiceAccounts": "n/s"},
            id="RoleBinding",
        ),
        pytest.param("rbac.authorization.k8s.io/v1", "Role", {}, {"Created At": "2026-01-01T00:00:00Z"}, id="Role"),
        pytest.param("node.k8s.io/v1", "RuntimeClass", {}, {"Age": "24h"}, id="a-kind-without-its-own"),
    ],
)
def test_builtin_columns_show_what_kubectl_users_know(
    api_version: str, kind: str, obj: dict[str, Any], expected: dict[str, Any]
) -> None:
    row = shown(api_version, kind, {"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}} | obj)
    assert {name: row[name] for name in expected} == expected
