"""The pod runtimes against a real API server, with real processes and containers, as kubectl shows them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fairlead.testing.kubectl import condition, wait_for
from fairlead.testing.podruntime import Runtime

pytestmark = [pytest.mark.process_runtime, pytest.mark.kubectl]

SAY_PID = "echo pid=$$$$; "  # in a pod's command $$ is one dollar sign
"""Each pod says its process id first, so that a test ends that process and no other."""


def pod(runtime: Runtime, name: str, script: str, **more: Any) -> dict[str, Any]:
    container = {
        "name": "agent",
        "image": runtime.image,
        "command": ["sh", "-c", SAY_PID + script],
        **more.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 2, **more},
    }


only_processes = pytest.mark.parametrize("runtime", ["process"], indirect=True)


def wait_phase(runtime: Runtime, name: str, phase: str) -> None:
    wait_for(f"{name} to be {phase}", lambda: (runtime.pod(name).get("status") or {}).get("phase") == phase)


def test_pod_gets_its_environment_files_and_token_and_nothing_else(runtime: Runtime) -> None:
    script = (
        "cd $CONTAINER_SANDBOX_MOUNT_POINT/; env | sort; cat etc/conf/a; echo; cat etc/keys/s; echo; "
        "cat var/run/secrets/fairlead.dev/token | wc -c; cat facts/labels; echo; "
        "touch work/x && echo writable; sleep 100"
    )
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"a": "from-config"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"s": "canary-secret-77"}},
    ]
    token = {"serviceAccountToken": {"path": "token", "audience": "fairlead-gateway", "expirationSeconds": 3600}}
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    volumes = [
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "token", "projected": {"sources": [token]}},
        {"name": "facts", "downwardAPI": {"items": [labels]}},
        {"name": "work", "emptyDir": {}},
    ]
    mounts = {
        "conf": "/etc/conf",
        "keys": "/etc/keys",
        "token": "/var/run/secrets/fairlead.dev",
        "facts": "/facts",
        "work": "/work",
    }
    env = [
        {"name": "PLAIN", "value": "value"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOTH", "value": "$(POD)/$(PLAIN)"},
    ]
    container = {"env": env, "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()]}
    runtime.kubectl.apply(*objects, pod(runtime, "files", script, container=container, volumes=volumes))
    said = wait_for("the pod to have said it all", lambda: _said(runtime, "files", "writable"))
    names = {line.partition("=")[0] for line in said if "=" in line and '"' not in line}
    assert names - runtime.image_variables == {"pid", "BOTH", "PLAIN", "POD", "PWD", "OLDPWD"}
    assert "BOTH=files/value" in said
    assert {"from-config", "canary-secret-77", 'app="files"'} <= set(said)
    assert int(next(line for line in said if line.isdigit())) > 400
    root = runtime.pods / str(runtime.pod("files")["metadata"]["uid"])
    assert root.stat().st_mode & 0o077 == 0
    assert "canary-secret-77" not in (runtime.folder / "runtime.log").read_text()
    runtime.kubectl("delete", "pod", "files")
    wait_for("its folder to go", lambda: not root.exists())


def _said(runtime: Runtime, name: str, last: str) -> list[str]:
    lines = runtime.lines(name)
    return lines if last in lines else []


@only_processes  # a token is the same, whatever runs
def test_token_is_bound_to_the_pod(runtime: Runtime) -> None:
    source = {"serviceAccountToken": {"path": "token", "audience": "fairlead-gateway", "expirationSeconds": 3600}}
    volumes = [{"name": "token", "projected": {"sources": [source]}}]
    container = {"volumeMounts": [{"name": "token", "mountPath": "/t"}]}
    script = "cat $CONTAINER_SANDBOX_MOUNT_POINT/t/token; echo; echo end; sleep 100"
    runtime.kubectl.apply(pod(runtime, "bound", script, container=container, volumes=volumes))
    token = wait_for("the token", lambda: _said(runtime, "bound", "end"))[1]
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["fairlead-gateway"]},
    }
    answer = json.loads(runtime.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review)))["status"]
    assert answer["authenticated"] is True
    assert answer["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [runtime.pod("bound")["metadata"]["uid"]]
    runtime.kubectl("delete", "pod", "bound")
    answer = json.loads(runtime.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review)))["status"]
    assert not answer.get("authenticated")


def test_killed_process_is_started_again_in_the_same_pod(runtime: Runtime) -> None:
    runtime.kubectl.apply(pod(runtime, "lively", "sleep 100 & wait"))
    first, said = runtime.mark("lively"), runtime.lines("lively")
    runtime.kill("lively")
    wait_for(
        "the restart", lambda: runtime.state("lively").get("restartCount") == 1 and runtime.state("lively")["ready"]
    )
    last = runtime.state("lively")["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "Error")
    assert runtime.mark("lively") != first
    assert runtime.kubectl("logs", "lively", "--previous").splitlines()[:1] == said[:1]
    assert {"Scheduled", "Started"} <= runtime.reasons("lively")
    runtime.kubectl("delete", "pod", "lively")


def test_crashing_container_backs_off_and_says_so(runtime: Runtime) -> None:
    runtime.kubectl.apply(pod(runtime, "crashing", "exit 3"))
    message = runtime.waits("crashing", "CrashLoopBackOff")
    assert message.startswith("back-off 10s restarting failed container=agent")
    assert runtime.state("crashing")["restartCount"] == 1
    assert runtime.state("crashing")["lastState"]["terminated"]["exitCode"] == 3
    wait_for("the event", lambda: "BackOff" in runtime.reasons("crashing"))
    assert "CrashLoopBackOff" in runtime.kubectl("get", "pod", "crashing")
    assert condition(runtime.pod("crashing"), "Ready")["status"] == "False"
    runtime.kubectl("delete", "pod", "crashing")


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (7, "Failed")])
def test_pod_that_is_not_restarted_ends_with_its_process(runtime: Runtime, code: int, phase: str) -> None:
    name = f"once-{code}"
    runtime.kubectl.apply(pod(runtime, name, f"exit {code}", restartPolicy="Never"))
    wait_phase(runtime, name, phase)
    assert runtime.state(name)["state"]["terminated"]["exitCode"] == code
    runtime.kubectl("delete", "pod", name)


def test_deleted_pod_may_finish_what_it_does(runtime: Runtime) -> None:
    script = "trap 'echo bye; exit 0' TERM; while true; do sleep 0.05; done"
    runtime.kubectl.apply(pod(runtime, "polite", script))
    mark = runtime.mark("polite")
    log = _log_file(runtime, "polite")
    reader = log.open()
    runtime.kubectl("delete", "pod", "polite")
    assert "bye" in reader.read()
    reader.close()
    assert not runtime.alive(mark)


def test_deleted_pod_that_does_not_listen_is_killed_with_its_children(runtime: Runtime) -> None:
    script = "trap '' TERM; sleep 100 & echo child=$!; while true; do sleep 0.05; done"
    runtime.kubectl.apply(pod(runtime, "deaf", script))
    mark = runtime.mark("deaf")
    child = wait_for("its child", lambda: [line for line in runtime.lines("deaf") if "child=" in line])[0][6:]
    runtime.kubectl("delete", "pod", "deaf", "--grace-period=1")
    assert not runtime.alive(mark)
    if runtime.engine == "process":  # a container's children end with it
        wait_for("its child to end", lambda: not runtime.alive(child))
    assert "Killing" in runtime.reasons("deaf")


def _log_file(runtime: Runtime, name: str) -> Path:
    assert runtime.server.pod_log_dir is not None
    (folder,) = runtime.server.pod_log_dir.glob(f"default_{name}_*")
    return folder / "agent" / "0.log"


def test_process_over_its_memory_is_killed_and_called_so(runtime: Runtime) -> None:
    script = "exec python3 -c 'x = bytearray(90 * 2**20); import time; time.sleep(100)'"
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    runtime.kubectl.apply(pod(runtime, "hungry", script, restartPolicy="Never", container=limits))
    wait_phase(runtime, "hungry", "Failed")
    ended = runtime.state("hungry")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
    runtime.kubectl("delete", "pod", "hungry")


@only_processes
def test_other_image_waits_and_says_what_it_needs(runtime: Runtime) -> None:
    foreign = pod(runtime, "foreign", "")
    foreign["spec"]["containers"][0] |= {"image": "nginx:1.29"}
    runtime.kubectl.apply(foreign)
    assert "needs a container engine" in runtime.waits("foreign", "ErrImageNeverPull")
    wait_for("the event", lambda: "Failed" in runtime.reasons("foreign"))
    assert "needs a container engine" in runtime.kubectl("describe", "pod", "foreign")
    runtime.kubectl("delete", "pod", "foreign")


def test_missing_config_is_named_and_waited_for(runtime: Runtime) -> None:
    container = {"envFrom": [{"configMapRef": {"name": "later"}}]}
    runtime.kubectl.apply(pod(runtime, "early", "sleep 100", container=container))
    assert runtime.waits("early", "CreateContainerConfigError") == 'ConfigMap "later" not found'
    runtime.kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later"}, "data": {"k": "v"}})
    wait_phase(runtime, "early", "Running")
    runtime.kubectl("delete", "pod", "early")


@only_processes
def test_runtime_killed_takes_its_processes_along_and_its_successor_goes_on(runtime: Runtime) -> None:
    runtime.kubectl.apply(pod(runtime, "survivor", "sleep 100"), pod(runtime, "final", "exit 0", restartPolicy="Never"))
    mark = runtime.mark("survivor")
    wait_phase(runtime, "final", "Succeeded")
    runtime.stop(signal.SIGKILL)
    wait_for("the process to end with the runtime", lambda: not runtime.alive(mark))
    runtime.start()
    wait_for("the restart", lambda: runtime.state("survivor").get("restartCount") == 1)
    assert runtime.state("survivor")["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert runtime.state("final")["restartCount"] == 0
    runtime.kubectl("delete", "pod", "survivor", "final")


def test_runtime_stopped_ends_its_processes_and_keeps_the_pods(runtime: Runtime) -> None:
    runtime.kubectl.apply(pod(runtime, "resting", "sleep 100"))
    mark = runtime.mark("resting")
    runtime.stop()
    assert not runtime.alive(mark)
    assert runtime.pod("resting")["metadata"].get("deletionTimestamp") is None
    runtime.start()
    wait_for("the restart", lambda: runtime.state("resting").get("restartCount") == 1)
    runtime.kubectl("delete", "pod", "resting")


def test_node_shows_what_runs_pods(runtime: Runtime) -> None:
    shown = runtime.kubectl("get", "node", "-o", "wide")
    assert "Ready" in shown
    assert f"{runtime.engine}://" in shown
