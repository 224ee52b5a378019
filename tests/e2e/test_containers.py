"""The images and the manifests together: what a node would run, with the rights that a cluster would give."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fairlead.testing.apiserver import ApiServer, running_apiserver
from fairlead.testing.containers import SYSTEM, Node, addresses, install, missing_images
from fairlead.testing.kubectl import Kubectl, condition, wait_for

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("fairlead-operator:0.1.0", "fairlead-gateway:0.1.0", "fairlead-agent:0.1.0")
API = "fairlead.dev/v1alpha1"
pytestmark = [pytest.mark.docker, pytest.mark.kubectl]


@dataclass
class Installed:
    """The control plane, running."""

    cluster: ApiServer
    kubectl: Kubectl
    node: Node


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    if absent := missing_images(IMAGES):
        required = "docker" in os.environ.get("FAIRLEAD_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)(f"build {', '.join(absent)} first: make images")
    folder = tmp_path_factory.mktemp("containers")
    folder.chmod(0o755)
    with running_apiserver(folder) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, "default", folder)
        node = Node(cluster, kubectl, folder, addresses())
        try:
            pods = install(replace(kubectl, namespace=""), ROOT / "manifests" / "overlays" / "kind")
            for pod in sorted(pods, key=lambda each: str(each["metadata"]["name"]), reverse=True):
                node.start(pod)  # the operator first: it has to wait for what the gateway publishes
            yield Installed(cluster, kubectl, node)
        finally:
            node.clear()


def apply_workflow(kubectl: Kubectl) -> None:
    use = {"match": "hi", "toolCalls": [{"name": "json_query", "arguments": {"data": [8], "expression": "[0]"}}]}
    responses = [use, {"reply": "hello"}]  # a model that uses a tool, so that the agent imports LangGraph
    answer = {"scripted": {"responses": responses, "usage": {"inputTokens": 1, "outputTokens": 1}}}
    rows = "city,people\nOslo,5\nBergen,3\n"
    tables = {"t": {"data": rows, "format": "csv"}}
    count = {"name": "sql", "arguments": {"query": "SELECT sum(people) AS n FROM t", "tables": tables}}
    nodes: list[dict[str, Any]] = [
        {"name": "greet", "llm": {"prompt": "hi", "tools": ["json_query"]}},
        {"name": "count", "needs": ["greet"], "tool": count},
        {
            "name": "pick",
            "needs": ["count"],
            "tool": {"name": "json_query", "arguments": {"data": "{{ outputs.count }}", "expression": "[0].n"}},
        },
    ]
    spec = {"model": "default", "nodes": nodes, "output": "{{ outputs.pick }}"}
    kubectl.apply(
        {"apiVersion": API, "kind": "Model", "metadata": {"name": "default"}, "spec": answer},
        {"apiVersion": API, "kind": "Workflow", "metadata": {"name": "counts"}, "spec": spec},
        {
            "apiVersion": API,
            "kind": "WorkflowRun",
            "metadata": {"name": "counted"},
            "spec": {"workflowRef": {"name": "counts"}},
        },
    )


def ended(kubectl: Kubectl, run: str) -> dict[str, Any] | None:
    found = kubectl.get("workflowrun", run)
    return found if condition(found, "Finished").get("status") == "True" else None


def test_run_finishes_in_containers_with_the_rights_of_the_manifests(installed: Installed) -> None:
    kubectl, node = installed.kubectl, installed.node
    apply_workflow(kubectl)
    pod = wait_for("the run's pod", lambda: kubectl.list("pods", "-l", "fairlead.dev/run=counted"), seconds=120)[0]
    node.start(pod)
    run = wait_for("the end of the run", lambda: ended(kubectl, "counted"), seconds=120)
    assert condition(run, "Succeeded").get("status") == "True", condition(run, "Succeeded")
    assert run["status"]["result"] == "8"
    assert kubectl.list("events", "--field-selector", "involvedObject.name=counted")


def test_quickstart_runs_in_containers(installed: Installed) -> None:
    kubectl, node = installed.kubectl, installed.node
    for name in ("agent", "data", "model", "workflow"):
        kubectl("apply", "--filename", str(ROOT / "configs" / "quickstart" / f"{name}.yaml"))
    spec = {"workflowRef": {"name": "support-report"}, "inputs": {"messages": 24, "replies": 2}}
    kubectl.apply({"apiVersion": API, "kind": "WorkflowRun", "metadata": {"name": "quickstart"}, "spec": spec})
    pool = ("pods", "-l", "fairlead.dev/agent=default")
    pod = wait_for("the pod of the pool", lambda: kubectl.list(*pool), seconds=120)[0]
    node.start(pod)
    run = wait_for("the end of the quickstart", lambda: ended(kubectl, "quickstart"), seconds=120)
    assert condition(run, "Succeeded").get("status") == "True", condition(run, "Succeeded")
    assert "24 messages" in run["status"]["result"], run["status"]
    assert node.stop(pod["metadata"]["name"], seconds=25) == 0


def test_nobody_was_refused_anything(installed: Installed) -> None:
    ours = [each for each in installed.cluster.audit() if f":{SYSTEM}:fairlead-" in each["user"]]
    assert {each["user"].rpartition(":")[2] for each in ours} == {"fairlead-operator", "fairlead-gateway"}
    assert [each for each in ours if each["code"] in (401, 403)] == []


def test_probes_answer_as_the_deployments_ask(installed: Installed) -> None:
    ports = installed.node.overrides
    places = (
        f"http://127.0.0.1:{ports['operator']['FAIRLEAD_PROBE_PORT']}",
        f"https://127.0.0.1:{ports['gateway']['FAIRLEAD_PORT']}",
    )
    unchecked = ssl._create_unverified_context()  # noqa: S323 - a kubelet checks no certificate either
    for place in places:
        for path in ("/healthz", "/readyz"):
            with urllib.request.urlopen(place + path, timeout=5, context=unchecked) as answer:  # noqa: S310 - two URLs
                assert answer.status == 200


def test_every_container_ends_at_sigterm_without_an_error(installed: Installed) -> None:
    node = installed.node
    for pod in ("fairlead-operator-0", "fairlead-gateway-0"):
        assert node.stop(pod, seconds=25) == 0, node.log(pod)
    for pod in node.names:
        lines = [line for line in node.log(pod).splitlines() if line.startswith("{")]
        assert [line for line in lines if json.loads(line).get("level") == "error"] == []
