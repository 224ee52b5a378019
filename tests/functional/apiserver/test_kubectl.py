"""What people type. Every command is the real kubectl's."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.kubectl, pytest.mark.usefixtures("widgets")]


@pytest.fixture
def manifest(tmp_path: Path, widget: Callable[..., Any]) -> Callable[..., str]:
    def write(name: str, **spec: Any) -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(widget(name, **spec)))
        return str(path)

    return write


def test_apply_client_side_creates_then_configures_then_leaves_unchanged(
    kubectl: Callable[..., str], manifest: Callable[..., str]
) -> None:
    assert kubectl("apply", "-f", manifest("a")) == "widget.example.com/a created\n"
    assert kubectl("apply", "-f", manifest("a", size=2)) == "widget.example.com/a configured\n"
    assert kubectl("apply", "-f", manifest("a", size=2)) == "widget.example.com/a unchanged\n"


def test_apply_server_side_reports_conflicts_and_force_takes_over(
    kubectl: Callable[..., str], manifest: Callable[..., str]
) -> None:
    applied = kubectl("apply", "--server-side", "-f", manifest("a"))
    assert applied == "widget.example.com/a serverside-applied\n"
    refused = kubectl("apply", "--server-side", "--field-manager=ci", "-f", manifest("a", size=3), fails=True)
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .spec.size' in refused
    kubectl("apply", "--server-side", "--field-manager=ci", "--force-conflicts", "-f", manifest("a", size=3))
    assert kubectl("get", "widget", "a", "-o", "jsonpath={.spec.size}") == "3"


def test_apply_moves_from_client_side_to_server_side(kubectl: Callable[..., str], manifest: Callable[..., str]) -> None:
    kubectl("apply", "-f", manifest("a"))
    kubectl("apply", "--server-side", "-f", manifest("a", size=4))
    managers = json.loads(kubectl("get", "wg", "a", "-o", "json", "--show-managed-fields"))["metadata"]["managedFields"]
    names = [(each["manager"], each["operation"]) for each in managers]
    assert names == [("kubectl", "Apply"), ("kubectl-last-applied", "Apply")]


def test_get_prints_the_columns_of_the_definition(kubectl: Callable[..., str], manifest: Callable[..., str]) -> None:
    kubectl("apply", "-f", manifest("a", color="blue"))
    kubectl("patch", "wg", "a", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Spinning"}}')
    narrow, wide = kubectl("get", "wg").splitlines(), kubectl("get", "wg", "-o", "wide").splitlines()
    assert narrow[0].split() == ["NAME", "SIZE", "PHASE", "AGE"]
    assert narrow[1].split()[:3] == ["a", "1", "Spinning"]
    assert wide[0].split() == ["NAME", "SIZE", "PHASE", "COLOR", "AGE"]
    assert wide[1].split()[:4] == ["a", "1", "Spinning", "blue"]
    assert kubectl("get", "gadgets", "-o", "name") == "widget.example.com/a\n"
    assert yaml.safe_load(kubectl("get", "wg", "a", "-o", "yaml"))["spec"] == {"size": 1, "color": "blue"}


def test_get_watch_prints_each_change(kubectl: Any, manifest: Callable[..., str]) -> None:
    kubectl("apply", "-f", manifest("a"))
    watching = kubectl.start("get", "wg", "-w")
    try:
        lines = [watching.stdout.readline() for _ in range(2)]
        kubectl("patch", "wg", "a", "--type=merge", "-p", '{"spec":{"size":5}}')
        lines.append(watching.stdout.readline())
    finally:
        watching.terminate()
        watching.wait()
        watching.stdout.close()
    assert [line.split()[:2] for line in lines] == [["NAME", "SIZE"], ["a", "1"], ["a", "5"]]


def test_describe_shows_the_object_and_its_events(
    kubectl: Callable[..., str], api: Any, namespace: str, manifest: Callable[..., str]
) -> None:
    kubectl("apply", "-f", manifest("a"))
    found = api.get(f"/apis/example.com/v1/namespaces/{namespace}/widgets/a")["metadata"]
    event = {
        "metadata": {"name": "a.1"},
        "involvedObject": {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "namespace": namespace,
            "name": "a",
            "uid": found["uid"],
        },
        "reason": "Spun",
        "message": "It spins.",
        "type": "Normal",
        "source": {"component": "test"},
        "firstTimestamp": found["creationTimestamp"],
        "lastTimestamp": found["creationTimestamp"],
        "count": 1,
    }
    assert api.post(f"/api/v1/namespaces/{namespace}/events", event).status == 201
    described = kubectl("describe", "wg", "a")
    assert "Size:   1" in described
    assert "It spins." in described
    assert "Spun" in kubectl("get", "events")
    assert "Spun" in kubectl("events", "--for", "widget.example.com/a")
    assert "It spins." in kubectl("get", "events.events.k8s.io", "-o", "yaml")


def test_explain_knows_the_schema(kubectl: Callable[..., str]) -> None:
    assert "-required-" in kubectl("explain", "widget.spec")
    assert "weight\t<integer>" in kubectl("explain", "widget.spec", "--recursive")
    assert "KIND:       ConfigMap" in kubectl("explain", "configmap.data")


def test_wait_returns_when_the_condition_comes_true(kubectl: Any, manifest: Callable[..., str]) -> None:
    kubectl("apply", "-f", manifest("a"))
    waiting = kubectl.start("wait", "--for=condition=Ready", "wg/a", "--timeout=30s")
    status = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
    kubectl("patch", "wg", "a", "--subresource=status", "--type=merge", "-p", status)
    assert waiting.communicate(timeout=30)[0] == "widget.example.com/a condition met\n"
    assert kubectl("wait", "--for=jsonpath={.spec.size}=1", "wg/a", "--timeout=5s")


def test_edit_saves_what_the_editor_wrote(kubectl: Any, manifest: Callable[..., str], tmp_path: Path) -> None:
    kubectl("apply", "-f", manifest("a"))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/size: 1/size: 9/" "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    kubectl.environment["EDITOR"] = str(editor)
    assert kubectl("edit", "wg", "a") == "widget.example.com/a edited\n"
    assert kubectl("get", "wg", "a", "-o", "jsonpath={.spec.size}") == "9"


def test_diff_shows_what_apply_would_change(kubectl: Any, manifest: Callable[..., str]) -> None:
    kubectl("apply", "-f", manifest("a"))
    assert kubectl("diff", "-f", manifest("a")) == ""
    assert "+  size: 2" in kubectl("diff", "-f", manifest("a", size=2), fails=True)
    changed = kubectl("diff", "--server-side", "--force-conflicts", "-f", manifest("a", size=2), fails=True)
    assert "+  size: 2" in changed
    assert kubectl("get", "wg", "a", "-o", "jsonpath={.spec.size}") == "1"


def test_patch_of_the_three_types(kubectl: Callable[..., str]) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    kubectl("patch", "cm", "c", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "cm", "c", "--type=merge", "-p", '{"data":{"a":null}}')
    kubectl("patch", "cm", "c", "--type=json", "-p", '[{"op":"add","path":"/data/c","value":"3"}]')
    assert json.loads(kubectl("get", "cm", "c", "-o", "jsonpath={.data}")) == {"b": "2", "c": "3"}


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_delete_with_each_cascade(
    kubectl: Callable[..., str], api: Any, namespace: str, cascade: str, eventually: Callable[..., Any]
) -> None:
    kubectl("create", "configmap", "owner")
    uid = kubectl("get", "cm", "owner", "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": True}
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    api.post(path, {"metadata": {"name": "owned", "ownerReferences": [owner]}})
    kubectl("delete", "cm", "owner", f"--cascade={cascade}")
    eventually(lambda: api.get(f"{path}/owner").status == 404)
    if cascade == "orphan":
        assert "ownerReferences" not in api.get(f"{path}/owned")["metadata"]
    else:
        eventually(lambda: api.get(f"{path}/owned").status == 404)


def test_auth_can_i_follows_the_bindings(kubectl: Callable[..., str], namespace: str) -> None:
    kubectl("create", "serviceaccount", "bot")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=widgets.example.com")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:bot")
    bot = f"--as=system:serviceaccount:{namespace}:bot"
    assert kubectl("auth", "can-i", "get", "widgets.example.com", bot) == "yes\n"
    assert kubectl("auth", "can-i", "delete", "widgets.example.com", bot, fails=True).startswith("no")
    assert kubectl("auth", "can-i", "*", "*") == "yes\n"
    assert "widgets.example.com" in kubectl("auth", "can-i", "--list", bot)


def test_api_resources_lists_a_category(kubectl: Callable[..., str]) -> None:
    lines = kubectl("api-resources", "--categories=gadgets").splitlines()
    assert lines[1].split() == ["widgets", "wg", "example.com/v1", "true", "Widget"]


def test_label_annotate_and_scale(kubectl: Callable[..., str], manifest: Callable[..., str]) -> None:
    kubectl("apply", "-f", manifest("a"))
    kubectl("label", "wg", "a", "team=red")
    kubectl("annotate", "wg", "a", "note=hello there")
    kubectl("scale", "wg", "a", "--replicas=6")
    assert kubectl("get", "wg", "-l", "team in (red,blue)", "-o", "name") == "widget.example.com/a\n"
    assert kubectl("get", "wg", "-l", "team notin (red)", "-o", "name") == ""
    assert kubectl("get", "wg", "--field-selector=spec.color=red", "-o", "name") == "widget.example.com/a\n"
    assert kubectl("get", "wg", "a", "-o", "jsonpath={.spec.size} {.metadata.annotations.note}") == "6 hello there"


def test_create_makes_every_kind_that_kubectl_can(kubectl: Callable[..., str]) -> None:
    """`kubectl create` sends protobuf; what the server stores is what kubectl says it would send."""
    for arguments in CREATED:
        kind, *rest = arguments
        wanted = json.loads(kubectl("create", *kind.split(), "--dry-run=client", "-o", "json", *rest))
        stored = json.loads(kubectl("create", *kind.split(), "-o", "json", *rest))
        assert contains(stored, wanted), f"{arguments}: {stored}"


CREATED = [
    ("configmap", "c", "--from-literal=a=b"),
    ("secret generic", "s", "--from-literal=password=x"),
    ("serviceaccount", "sa"),
    ("service clusterip", "svc", "--tcp=80:8080"),
    ("deployment", "d", "--image=nginx:1", "--replicas=2", "--port=80"),
    ("job", "j", "--image=busybox:1", "--", "echo", "hi"),
    ("cronjob", "cj", "--image=busybox:1", "--schedule=*/5 * * * *", "--", "date"),
    ("role", "r", "--verb=get,list", "--resource=pods,deployments.apps", "--resource-name=x"),
    ("rolebinding", "rb", "--role=r", "--user=joe", "--group=g", "--serviceaccount=a:b"),
    ("quota", "q", "--hard=pods=3,cpu=1500m"),
    ("poddisruptionbudget", "pdb", "--selector=a=b", "--min-available=50%"),
]


def contains(stored: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return all(value in (None, {}, 0) or contains(stored.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(contains, stored, wanted))
    return bool(stored == wanted)


def test_create_token_speaks_for_the_account(kubectl: Callable[..., str], api: Any, namespace: str) -> None:
    kubectl("create", "serviceaccount", "bot")
    token = kubectl("create", "token", "bot", "--duration=15m").strip()
    review = {"spec": {"token": token}}
    answer = api.post("/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]
    assert answer["authenticated"] is True
    assert answer["user"]["username"] == f"system:serviceaccount:{namespace}:bot"


@pytest.mark.process_runtime
def test_logs_reads_what_the_runtime_wrote(kubectl: Callable[..., str], api: Any, namespace: str, cluster: Any) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    uid = api.post(pods, pod)["metadata"]["uid"]
    folder = cluster.pod_log_dir / f"{namespace}_p_{uid}" / "main"
    folder.mkdir(parents=True)
    lines = [f"2026-01-01T00:00:0{n}.123456789Z stdout F line {n}\n" for n in range(5)]
    (folder / "0.log").write_text("".join(lines))
    assert kubectl("logs", "p") == "".join(f"line {n}\n" for n in range(5))
    assert kubectl("logs", "p", "--tail=2") == "line 3\nline 4\n"
    assert kubectl("logs", "p", "--timestamps", "--tail=1") == "2026-01-01T00:00:04.123456789Z line 4\n"
    assert "is not valid for pod p" in kubectl("logs", "p", "-c", "other", fails=True)


@pytest.mark.process_runtime
def test_logs_follow_ends_when_the_container_has(kubectl: Any, api: Any, namespace: str, cluster: Any) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    uid = api.post(pods, pod)["metadata"]["uid"]
    folder = cluster.pod_log_dir / f"{namespace}_p_{uid}" / "main"
    folder.mkdir(parents=True)
    (folder / "0.log").write_text("2026-01-01T00:00:00Z stdout F first\n")
    following = kubectl.start("logs", "-f", "p")
    assert following.stdout.readline() == "first\n"
    with (folder / "0.log").open("a") as log:
        log.write("2026-01-01T00:00:01Z stdout P sec\n")
    status = {"containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 0}}}]}
    with (folder / "0.log").open("a") as log:
        log.write("2026-01-01T00:00:02Z stdout F ond\n")
    api.send("PATCH", f"{pods}/p/status", {"status": status}, content="application/merge-patch+json")
    assert following.communicate(timeout=30)[0] == "second\n"
