"""What only containers can do: init containers, probes of a network, images, limits, and going on without a runtime."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from fairlead.testing.containers import docker
from fairlead.testing.kubectl import condition, wait_for
from fairlead.testing.podruntime import Runtime

pytestmark = [
    pytest.mark.docker,
    pytest.mark.process_runtime,
    pytest.mark.kubectl,
    pytest.mark.parametrize("runtime", ["docker"], indirect=True),
]
USER = 10001


def container(runtime: Runtime, script: str, **more: Any) -> dict[str, Any]:
    return {"name": "agent", "image": runtime.image, "command": ["sh", "-c", script], **more}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": list(containers), "terminationGracePeriodSeconds": 2, **spec},
    }


def said(runtime: Runtime, name: str, last: str) -> Any:
    return wait_for(f"{name} to say {last}", lambda: (lines := runtime.lines(name)) and last in lines and lines)


def wait_ready(runtime: Runtime, name: str, status: str = "True") -> None:
    wait_for(f"{name} to be ready: {status}", lambda: condition(runtime.pod(name), "Ready").get("status") == status)


def test_init_containers_prepare_what_the_others_find(runtime: Runtime) -> None:
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    first = container(runtime, "echo one >> /work/notes", **mount) | {"name": "first"}
    second = container(runtime, "sleep 0.2; echo two >> /work/notes", **mount) | {"name": "second"}
    fill = "head -c 3000000 /dev/zero 2>/dev/null > /work/big || echo full"
    server = f"cat /work/notes; {fill}; exec python3 -m http.server 8080"
    asks = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080').status, flush=True)"
    beside = container(runtime, f'until python3 -c "{asks}" 2>/dev/null; do sleep 0.1; done; exec sleep 100')
    runtime.kubectl.apply(
        pod(
            "prepared",
            container(runtime, server, **mount),
            beside | {"name": "beside"},
            initContainers=[first, second],
            volumes=[{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}],
        )
    )
    wait_ready(runtime, "prepared")
    assert wait_for("the answer", lambda: runtime.kubectl("logs", "prepared", "-c", "beside").split()) == ["200"]
    lines = runtime.kubectl("logs", "prepared", "-c", "agent").splitlines()
    assert lines[:2] == ["one", "two"]
    assert "full" in lines
    status = runtime.pod("prepared")["status"]
    assert [each["state"]["terminated"]["exitCode"] for each in status["initContainerStatuses"]] == [0, 0]
    runtime.kill("prepared")
    wait_for("the restart", lambda: runtime.state("prepared").get("restartCount") == 1)
    after = runtime.pod("prepared")["status"]
    assert (after["podIP"], after["initContainerStatuses"][0]["restartCount"]) == (status["podIP"], 0)
    again = wait_for("it to read again", lambda: runtime.kubectl("logs", "prepared", "-c", "agent").splitlines())
    assert again[:2] == ["one", "two"], "what is in an emptyDir stays while the pod is there"
    uid = f"dev.fairlead.pod-uid={runtime.pod('prepared')['metadata']['uid']}"
    assert runtime.left("volume", uid)
    runtime.kubectl("delete", "pod", "prepared")
    wait_for("nothing to be left of it", lambda: not runtime.left("ps", uid) and not runtime.left("volume", uid))


def test_security_context_and_limits_hold(runtime: Runtime) -> None:
    script = (
        "id -u; id -g; id -G; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; "
        "touch /x 2>&1; echo w > /scratch/x && echo wrote; stat -c %a:%g /conf/a; cat /conf/a; echo; "
        "cat /etc/hostname; ls -A /sys/class/net; echo end; exec sleep 100"
    )
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    limits = {"limits": {"memory": "64Mi", "cpu": "500m", "ephemeral-storage": "8Mi"}}
    mounts = [{"name": "tmp", "mountPath": "/scratch"}, {"name": "conf", "mountPath": "/conf"}]
    made = pod(
        "narrow",
        container(runtime, script, securityContext=security, resources=limits, volumeMounts=mounts),
        securityContext={"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": 20002},
        volumes=[{"name": "tmp", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "narrow"}}],
    )
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "narrow"}, "data": {"a": "for the group"}}
    runtime.kubectl.apply(data, made)
    lines = said(runtime, "narrow", "end")
    assert lines[:3] == [str(USER), str(USER), f"{USER} 20002"]
    known = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert known == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert {"wrote", "640:20002", "for the group", "narrow"} <= set(lines)
    assert any("Read-only file system" in line for line in lines)
    (found,) = json.loads(docker("inspect", runtime.container_of("narrow")).stdout)
    host = found["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 << 20, 64 << 20, 500_000_000)
    assert host["PidsLimit"] == 1024
    assert found["State"]["Running"]
    runtime.kubectl("delete", "pod", "narrow")


def test_probes_decide_who_is_ready_and_who_starts_again(runtime: Runtime) -> None:
    script = "rm -f /sick; sleep 0.3; cd /opt; exec python3 -m http.server 8080"
    quick = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20}
    probes = {
        "startupProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, **quick},
        "livenessProbe": {"exec": {"command": ["sh", "-c", "! test -e /sick"]}, **quick},
    }
    ports = [{"name": "web", "containerPort": 8080}]
    runtime.kubectl.apply(pod("probed", container(runtime, script, ports=ports, **probes)))
    wait_ready(runtime, "probed")
    assert runtime.state("probed")["started"] is True
    docker("exec", runtime.left("ps", "dev.fairlead.pod=probed", "dev.fairlead.container=agent")[0], "touch", "/sick")
    wait_for("the restart", lambda: runtime.state("probed").get("restartCount") == 1)
    wait_ready(runtime, "probed")
    events = runtime.kubectl.list("events", "--field-selector", "involvedObject.name=probed")
    messages = " ".join(event["message"] for event in events)
    assert "Liveness probe failed: exit code 1" in messages
    assert "Container agent failed liveness probe, will be restarted" in messages
    runtime.kubectl("delete", "pod", "probed")


def test_image_that_cannot_be_had_is_waited_for_and_why(runtime: Runtime) -> None:
    never = container(runtime, "", imagePullPolicy="Never") | {"image": "nobody/nothing:1"}
    absent = container(runtime, "") | {"image": "localhost:9/nothing:1"}
    root = container(runtime, "", securityContext={"runAsNonRoot": True})
    runtime.kubectl.apply(pod("never", never), pod("absent", absent), pod("rooted", root))
    assert "not present with pull policy of Never" in runtime.waits("never", "ErrImageNeverPull")
    assert "localhost:9" in runtime.waits("absent", "ImagePullBackOff")
    assert "ImagePullBackOff" in runtime.kubectl("get", "pod", "absent")
    assert "would run as root" in runtime.waits("rooted", "CreateContainerConfigError")
    docker("tag", runtime.image, f"localhost:9/nothing:{runtime.home_id}")
    try:
        there = container(runtime, "exec sleep 100") | {"image": f"localhost:9/nothing:{runtime.home_id}"}
        runtime.kubectl.apply(pod("there", there))
        wait_ready(runtime, "there")
    finally:
        docker("rmi", f"localhost:9/nothing:{runtime.home_id}")
    runtime.kubectl("delete", "pod", "never", "absent", "rooted", "there")


def test_killed_runtime_leaves_containers_that_its_successor_adopts(runtime: Runtime) -> None:
    count = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done"
    ends = "while ! test -e /work/end; do sleep 0.05; done; exit 3"
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    empty = {"volumes": [{"name": "work", "emptyDir": {}}]}
    runtime.kubectl.apply(
        pod("counting", container(runtime, count)),
        pod("ending", container(runtime, ends, **mount), restartPolicy="Never", **empty),
        pod("leaving", container(runtime, "sleep 100")),
    )
    for name in ("counting", "ending", "leaving"):
        wait_ready(runtime, name)
    before = runtime.container_of("counting")
    (ending,) = runtime.left("ps", "dev.fairlead.pod=ending", "dev.fairlead.container=agent")
    runtime.stop(signal.SIGKILL)
    assert runtime.alive(before)
    docker("exec", ending, "touch", "/work/end")
    runtime.kubectl("delete", "pod", "leaving", "--force", "--grace-period=0")
    numbers = len(runtime.lines("counting"))
    runtime.start()
    wait_for("its end to be known", lambda: runtime.pod("ending")["status"]["phase"] == "Failed")
    assert runtime.state("ending")["state"]["terminated"]["exitCode"] == 3
    wait_for("what is over to go", lambda: not runtime.left("ps", "dev.fairlead.pod=ending"))
    lines = wait_for(
        "it to count on", lambda: (found := runtime.lines("counting")) and len(found) > numbers + 5 and found
    )
    assert lines == [str(number + 1) for number in range(len(lines))], "no line is missing, and none is there twice"
    assert runtime.state("counting")["restartCount"] == 0
    assert runtime.container_of("counting") == before
    assert not runtime.left("ps", "dev.fairlead.pod=leaving")
    runtime.kubectl("delete", "pod", "counting", "ending")


def test_stopped_runtime_leaves_nothing_in_the_engine(runtime: Runtime) -> None:
    runtime.kubectl.apply(pod("last", container(runtime, "exec sleep 100")))
    wait_ready(runtime, "last")
    assert all(runtime.left(kind) for kind in ("ps", "network"))
    runtime.stop()
    assert [runtime.left(kind) for kind in ("ps", "volume", "network")] == [[], [], []]
    runtime.start()
    wait_for("the restart", lambda: runtime.state("last").get("restartCount") == 1)
    runtime.kubectl("delete", "pod", "last")
