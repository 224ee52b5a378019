"""Laptop mode on Docker: the quickstart in containers, what an agent can reach and read, and a supervisor that dies."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.localcluster.supervisor.home import Home
from fairlead.testing.containers import docker, missing_images
from fairlead.testing.echo import Echo, running_echo
from fairlead.testing.laptop import Laptop
from fairlead.testing.standins import StandIn, running_standin

pytestmark = [pytest.mark.docker, pytest.mark.process_runtime, pytest.mark.kubectl]

API = "fairlead.dev/v1alpha1"
IMAGE = os.environ.get("FAIRLEAD_AGENT_IMAGE", "fairlead-agent:0.1.0")
CANARIES = {
    "the supervisor's environment": "canary-environment-8d21c07b",
    "a Model's key": "canary/model+2f6c91ab",
    "a Tool's header": "canary-tool-77ab3e10",
    "a Secret of nobody": "canary-bystander-41d9e2",
    "a file in the home": "canary-file-c35507aa",
    "a file beside the home": "canary-beside-90fe6b12",
}
FOLDER = Path(__file__).parent


@dataclass
class Docked:
    """A laptop whose pods are containers, with people's secrets all around."""

    laptop: Laptop
    demo: subprocess.CompletedProcess[str]
    standin: StandIn
    echo: Echo

    def containers(self, *labels: str) -> list[dict[str, Any]]:
        """Return what the home has in the engine, as the engine describes it."""
        wanted = [f"--filter=label={each}" for each in (f"dev.fairlead.home={self.laptop.home.id}", *labels)]
        found = docker("ps", "--all", "--quiet", *wanted).stdout.split()
        return list(json.loads(docker("inspect", *found).stdout)) if found else []

    def agent(self) -> str:
        """Return the container of the agent's only pod."""
        (found,) = self.containers("dev.fairlead.pod=default-0")
        return str(found["Id"])

    def inside(self, program: str, given: Any) -> Any:
        """Run one of the programs beside this file in the agent's container, as its user, and return what it found."""
        command = ["docker", "exec", "--interactive", self.agent(), "python", "-c", (FOLDER / program).read_text()]
        done = subprocess.run(
            command, input=json.dumps(given), capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def left(self) -> list[str]:
        """Return everything that the home has in the engine: containers, volumes, networks."""
        mark = f"--filter=label=dev.fairlead.home={self.laptop.home.id}"
        kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [each for kind in kinds for each in docker(*kind, "--quiet", mark).stdout.split()]


@pytest.fixture(scope="module")
def docked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docked]:
    """The laptop after `demo`, as `make demo` runs it where an engine is."""
    if missing_images([IMAGE]):
        required = "docker" in os.environ.get("FAIRLEAD_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)(f"build {IMAGE} first: make image")
    home = Home(tmp_path_factory.mktemp("docked") / "home")
    settings = {
        "FAIRLEAD_AGENT_IMAGE": IMAGE,
        "FAIRLEAD_ALLOW_LOOPBACK_TOOLS": "true",
        "MY_SECRET": CANARIES["the supervisor's environment"],
        "OPENAI_API_KEY": CANARIES["the supervisor's environment"],
    }
    laptop = Laptop(home, settings, runtime="auto")
    with running_standin() as standin, running_echo() as echo:
        try:
            yield Docked(laptop, laptop.run("demo", "--scripted", "--messages", "60"), standin, echo)
        finally:
            laptop.run("down", code=None)


def test_quickstart_runs_in_a_container_of_the_agent_image(docked: Docked) -> None:
    said = docked.demo.stderr
    assert "pod runtime  docker: Docker" in said
    assert "# Support report" in docked.demo.stdout
    (container,) = docked.containers()
    assert (container["Config"]["Image"], container["State"]["Running"]) == (IMAGE, True)
    host, user = container["HostConfig"], container["Config"]["User"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["Privileged"], user) == (
        "none",
        True,
        False,
        "10001:10001",
    )
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges:true"])
    assert {mount["Destination"] for mount in container["Mounts"]} == {
        "/run/fairlead",
        "/tmp",  # noqa: S108 - in the container
        "/var/run/secrets/fairlead.dev",
    }
    kubectl = docked.laptop.kubectl
    pod = kubectl.get("pod", "default-0")
    assert pod is not None
    status = pod["status"]["containerStatuses"][0]
    assert status["containerID"] == f"docker://{container['Id']}"
    assert (status["ready"], status["restartCount"], pod["status"].get("podIP")) == (True, 0, None)
    assert '"registered"' in kubectl("logs", "default-0")
    assert "docker://" in kubectl("get", "node", "-o", "wide")
    assert (
        "agents run in containers that reach nothing but the gateway" in docked.laptop.run("doctor", code=None).stdout
    )


def test_agent_reaches_nothing_but_the_gateway(docked: Docked) -> None:
    ports = docked.laptop.state.ports
    bridge = json.loads(docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"][0]["Gateway"]
    own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    hosts = ["127.0.0.1", "::1", "localhost", "host.docker.internal", bridge, *own]
    places = [[host, port] for host in hosts for port in (*ports.values(), 22)]
    places += [["169.254.169.254", 80], ["1.1.1.1", 53], ["2606:4700:4700::1111", 53], ["example.com", 443]]
    found = docked.inside("container_reach.py", {"places": places, "gateway": ports["gateway"]})
    assert found["interfaces"] == ["lo"]
    assert found["reached"] == []
    assert len(found["refused"]) == 2 * len(places), "TCP and UDP to each of them"
    assert found["names"] == []
    assert found["sockets"] == ["/run/fairlead/gateway.sock"]
    assert found["gateway"] == {"/readyz": 200, "/v1/claim": 401, "/v1/namespaces/default/runs": 401}


def use_keys(docked: Docked) -> None:
    """Run a workflow whose Model and Tool need keys, in a pod of the pool and in one of its own."""
    reference = {"valueFrom": {"secretKeyRef": {"name": "keys", "key": "model"}}}
    model = {"model": "openai/gpt-4o-mini", "baseURL": f"{docked.standin.url}/v1", "apiKey": reference}
    header = {"name": "X-Key", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "tool"}}}
    tool = {"description": "asks", "http": {"url": f"{docked.echo.url}/ask", "headers": [header]}}
    nodes = [{"name": "think", "llm": {"prompt": "think"}}, {"name": "ask", "tool": {"name": "asker", "arguments": {}}}]
    own = {"model": "keyed", "nodes": nodes, "output": "{{ outputs.think }}"}
    keys = {"model": CANARIES["a Model's key"], "tool": CANARIES["a Tool's header"]}
    objects = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": keys},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "bystander"},
            "stringData": {"of": CANARIES["a Secret of nobody"]},
        },
    ]
    described: list[tuple[str, str, dict[str, Any]]] = [
        ("Model", "keyed", model),
        ("Tool", "asker", tool),
        ("WorkflowRun", "warm", {"workflow": own | {"runsOn": {"agent": "default"}}}),
        ("WorkflowRun", "own", {"workflow": own}),
    ]
    objects += [
        {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec} for kind, name, spec in described
    ]
    docked.laptop.kubectl.apply(*objects)


def test_container_of_an_agent_holds_none_of_the_secrets(docked: Docked) -> None:
    home, laptop = docked.laptop.home, docked.laptop
    (home.root / "notes.txt").write_text(CANARIES["a file in the home"])
    (home.root.parent / "notes.txt").write_text(CANARIES["a file beside the home"])
    use_keys(docked)
    laptop.wait_for("a container of the run's own", lambda: docked.containers("dev.fairlead.pod=own-r0"))
    laptop.kubectl("wait", "run/warm", "run/own", "--for=condition=Succeeded", "--timeout=110s")
    assert {seen.headers["authorization"] for seen in docked.standin.asked} == {"Bearer " + CANARIES["a Model's key"]}
    assert {seen["headers"]["x-key"] for seen in docked.echo.asked} == {CANARIES["a Tool's header"]}
    url = f"https://127.0.0.1:{laptop.state.ports['gateway']}"
    needles = {name: forms(secret) for name, secret in (CANARIES | credentials(home)).items()}
    docker("exec", docked.agent(), "python", "-c", "open('/tmp/planted', 'w').write('planted-in-the-container')")
    planted = {"a file of its own": ["planted-in-the-container"], "its own environment": [url]}
    found = docked.inside("container_scan.py", {"needles": needles | planted})
    assert found["files"] > 500
    assert found["memory"] > 10 << 20
    places: dict[str, list[str]] = found["found"]
    assert places.pop("a file of its own") == ["/tmp/planted"]  # noqa: S108 - in the container
    assert {"/proc/1/environ", "/proc/1/mem"} <= set(places.pop("its own environment")), "the search looks there, too"
    assert places == {}
    laptop.wait_for("the run's own container to go", lambda: not docked.containers("dev.fairlead.pod=own-r0"))


def credentials(home: Home) -> dict[str, str]:
    """Return what the control plane itself signs in with."""
    found = {}
    for path in (home.kubeconfig, *(home.credentials(name) for name in ("gateway", "operator", "podruntime"))):
        user = yaml.safe_load(path.read_text())["users"][0]["user"]
        found[f"the token of {path.name}"] = user["token"]
    keys = [path for path in home.apiserver.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()[:200]]
    assert keys
    for path in keys:
        found[f"the key {path.name}"] = path.read_text().splitlines()[1]
    return found


def forms(secret: str) -> list[str]:
    """Return how a secret may be written."""
    return [secret, base64.b64encode(secret.encode()).decode().rstrip("=")]


@pytest.mark.soak  # tests/functional/local/test_docker_pods.py kills the runtime alone, every time
def test_supervisor_killed_leaves_the_run_to_go_on_in_its_container(docked: Docked) -> None:
    laptop = docked.laptop
    before = docked.agent()
    laptop("run", "support-report", "--name", "crashed", "--input", "messages=120")
    laptop.wait_for("classify to be under way", lambda: items_done(laptop, "crashed") > 20)
    laptop.crash()
    (container,) = docked.containers()
    assert (container["Id"], container["State"]["Running"]) == (before, True)
    laptop.up()
    laptop.kubectl("wait", "run/crashed", "--for=condition=Succeeded", "--timeout=110s")
    assert docked.agent() == before
    pod = laptop.kubectl.get("pod", "default-0")
    assert pod is not None
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    ended = [
        (entry.get("node"), entry.get("item"), entry["kind"])
        for entry in laptop.journal("crashed")
        if entry["kind"] in ("ItemFinished", "NodeFinished")
    ]
    assert len(ended) == len(set(ended)), "nothing was done twice"
    assert sum(node == "classify" and item is not None for node, item, _ in ended) == 120
    said = docker("logs", before)
    assert laptop.kubectl("logs", "default-0") == said.stdout + said.stderr, (
        "no line is missing, and none is there twice"
    )


def items_done(laptop: Laptop, run: str) -> int:
    if laptop.find(run) is None:
        return 0
    return sum(entry["kind"] == "ItemFinished" for entry in laptop.journal(run))


def test_down_leaves_nothing_in_the_engine_even_when_the_supervisor_is_dead(docked: Docked) -> None:
    laptop = docked.laptop
    laptop.crash()
    assert docked.left()
    laptop.run("down")
    assert docked.left() == []
    assert not re.search(rb"canary", (laptop.home.logs / "podruntime.log").read_bytes())
