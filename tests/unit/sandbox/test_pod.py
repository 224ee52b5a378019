from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from fairlead.errors import Refused, Unavailable
from fairlead.sandbox.base import Ended, Job, JobRefused, Limits, SandboxBroken
from fairlead.sandbox.pod import (
    SELECTOR,
    UNTIL,
    PodSandbox,
    PodShape,
    build_network_policy,
    build_pod,
    build_secret,
    never_began,
    over_time,
    parse_log,
)
from fairlead.testing.clock import FakeClock

SHAPE = PodShape("fairlead-sandbox:0.1.0", "fairlead-sandboxes", runtime_class="gvisor")
LIMITS = Limits(wall_seconds=30, memory_bytes=100 << 20, disk_bytes=10 << 20)
FINE = orjson.dumps({
    "ended": "Exited", "exitCode": 0, "stdout": "aGk=", "stderr": "", "truncated": False, "files": {}, "dropped": [],
})  # fmt: skip
LOG = b"ready\n%d\n%b" % (len(FINE), FINE)


def ended(phase: str = "Succeeded", **status: Any) -> dict[str, Any]:
    return {"status": {"phase": phase, **status}}


def container(state: str, reason: str, message: str = "") -> list[dict[str, Any]]:
    return [{"state": {state: {"reason": reason, "message": message}}}]


class FakePods:
    """A cluster that runs every pod at once."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.made: list[dict[str, Any]] = []
        self.status: dict[str, Any] = ended(containerStatuses=container("terminated", "Completed"))
        self.text = LOG
        self.fails: Exception | None = None
        self.silent = 0
        self.policy: dict[str, Any] | None = build_network_policy(SHAPE)

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        if self.fails is not None and obj["kind"] == "Pod":
            raise self.fails
        self.objects[obj["kind"], obj["metadata"]["name"]] = obj
        self.made.append(obj)
        return obj

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        if kind == "NetworkPolicy":
            return self.policy
        if self.silent:
            self.silent -= 1
            raise Unavailable("down")
        found = self.objects.get((kind, name))
        return found and {**found, **self.status}

    async def list(self, kind: str, labels: str) -> list[dict[str, Any]]:
        assert labels == SELECTOR
        return [obj for (each, _), obj in self.objects.items() if each == kind]

    async def delete(self, kind: str, name: str) -> None:
        self.objects.pop((kind, name), None)

    async def log(self, pod_name: str, limit_bytes: int) -> bytes:
        assert ("Pod", pod_name) in self.objects
        return self.text[:limit_bytes]


def make(pods: FakePods, clock: FakeClock | None = None) -> PodSandbox:
    return PodSandbox(pods, SHAPE, parallel=2, clock=clock or FakeClock())


async def test_run_brings_the_job_in_a_secret_and_the_result_out_by_the_log() -> None:
    pods = FakePods()

    result = await make(pods).run(Job("shell", "echo hi", limits=LIMITS))

    secret, pod = pods.made
    assert (result.ended, result.stdout) == (Ended.EXITED, "hi")
    assert b"echo hi" in base64.b64decode(secret["data"]["job"])
    assert "echo hi" not in str(pod)
    assert pod["spec"]["volumes"][0]["secret"]["secretName"] == secret["metadata"]["name"]
    assert pods.objects == {}, "both are removed"


@pytest.mark.parametrize("wall", [1, 60, 3600])
@pytest.mark.parametrize("runtime_class", ["", "kata"])
def test_build_pod_is_restricted_and_more(wall: int, runtime_class: str) -> None:
    shape = replace(SHAPE, runtime_class=runtime_class)

    pod = build_pod(shape, "sandbox-1", replace(LIMITS, wall_seconds=wall), 1000)

    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert spec.get("runtimeClassName", "") == runtime_class
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert (spec["hostNetwork"], spec["hostPID"], spec["hostIPC"]) == (False, False, False)
    assert spec["activeDeadlineSeconds"] >= wall
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert int(container["resources"]["limits"]["memory"]) == (100 + 16 + 10) << 20
    assert {next(key for key in volume if key != "name") for volume in spec["volumes"]} == {"secret", "emptyDir"}
    assert spec["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": str(10 << 20)}
    assert "env" not in container
    assert "serviceAccountName" not in spec
    assert "initContainers" not in spec


def test_build_secret_cannot_be_changed() -> None:
    assert build_secret(SHAPE, "x", b"job", 1)["immutable"] is True


def test_build_network_policy_denies_everything() -> None:
    spec = build_network_policy(SHAPE)["spec"]

    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []}


async def test_run_with_more_disk_than_a_node_may_lose_is_refused() -> None:
    with pytest.raises(JobRefused, match="diskMiB: sandboxes that are pods have at most 1024"):
        await make(FakePods()).run(Job("python", "", limits=Limits(disk_bytes=2 << 30)))


async def test_run_with_a_network_is_refused_with_the_reason() -> None:
    with pytest.raises(JobRefused, match="docker or bubblewrap"):
        await make(FakePods()).run(Job("python", "", network=("a.test",)))


@pytest.mark.parametrize(
    ("text", "pod", "expected"),
    [
        pytest.param(b"", ended("Failed", reason="DeadlineExceeded"), Ended.TIMEOUT, id="deadline"),
        pytest.param(b"ready\n", ended("Failed", reason="Evicted", message="disk"), Ended.KILLED, id="evicted"),
        pytest.param(
            b"ready\n",
            ended("Failed", containerStatuses=[{"state": {"terminated": {"reason": "OOMKilled"}}}]),
            Ended.MEMORY,
            id="out-of-memory",
        ),
        pytest.param(LOG[:-1], ended(), Ended.KILLED, id="half-a-result"),
        pytest.param(b"ready\n99999999999\nx", ended(), Ended.KILLED, id="a-size-that-lies"),
        pytest.param(b"x" + LOG, ended(), Ended.KILLED, id="something-before-it"),
    ],
)
def test_parse_log_without_a_result_says_why(text: bytes, pod: dict[str, Any], expected: Ended) -> None:
    result = parse_log(text, pod, LIMITS)

    assert result.ended is expected
    assert result.message


def test_parse_log_of_a_pod_that_its_node_took_along_may_be_tried_again() -> None:
    pod = ended("Failed", reason="Terminated", message="imminent node shutdown")

    with pytest.raises(SandboxBroken, match="imminent node shutdown"):
        parse_log(b"ready\n", pod, LIMITS)
    assert parse_log(LOG, pod, LIMITS).stdout == "hi", "it had ended before"


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(ended("Failed", reason="OutOfcpu", message="full"), "OutOfcpu: full", id="no-room-on-the-node"),
        pytest.param(ended("Failed", reason="Evicted", message="rejected"), "Evicted: rejected", id="before-it-began"),
        pytest.param(
            ended("Failed", containerStatuses=container("terminated", "StartError", "no such file")),
            "StartError: no such file",
            id="no-entrypoint",
        ),
        pytest.param(
            ended("Failed", containerStatuses=container("terminated", "ContainerStatusUnknown", "lost")),
            "ContainerStatusUnknown: lost",
            id="lost-with-its-node",
        ),
        pytest.param(
            ended("Failed", reason="Evicted", containerStatuses=container("terminated", "ContainerStatusUnknown")),
            "",
            id="evicted-at-work",
        ),
        pytest.param(ended("Failed", containerStatuses=container("terminated", "OOMKilled")), "", id="out-of-memory"),
        pytest.param(ended(containerStatuses=container("terminated", "Completed")), "", id="completed"),
    ],
)
def test_never_began(pod: dict[str, Any], expected: str) -> None:
    assert never_began(pod) == expected


async def test_run_of_a_pod_whose_container_was_never_started_may_be_tried_again() -> None:
    pods = FakePods()
    pods.status, pods.text = ended("Failed", reason="UnexpectedAdmissionError", message="no device"), b""

    with pytest.raises(SandboxBroken, match="UnexpectedAdmissionError: no device"):
        await make(pods).run(Job("python", ""))
    assert pods.objects == {}


def test_over_time_of_a_pod_that_found_no_node_may_be_tried_again() -> None:
    unmet = [
        {"type": "PodReadyToStartContainers", "status": "False"},
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"},
    ]

    with pytest.raises(SandboxBroken, match="Unschedulable: 0/1 nodes are available"):
        over_time(ended("Pending", conditions=unmet), LIMITS)
    with pytest.raises(SandboxBroken, match="did not start"):
        over_time(ended("Pending", containerStatuses=container("waiting", "ContainerCreating")), LIMITS)


def test_over_time_of_a_program_that_runs_is_its_time_out() -> None:
    assert over_time(ended("Running", containerStatuses=container("running", "")), LIMITS).ended is Ended.TIMEOUT


async def test_run_of_a_pod_that_does_not_start_may_be_tried_again() -> None:
    pods = FakePods()
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    pods.status = ended("Pending", containerStatuses=[{"state": waiting}])

    with pytest.raises(SandboxBroken, match="ErrImagePull: not found"):
        await make(pods).run(Job("python", ""))
    assert pods.objects == {}


@pytest.mark.parametrize("error", [Unavailable("down"), Refused("quota", reason="Forbidden")])
async def test_run_that_cannot_make_the_pod_leaves_no_secret(error: Exception) -> None:
    pods = FakePods()
    pods.fails = error

    with pytest.raises((SandboxBroken, Refused)):
        await make(pods).run(Job("python", ""))
    assert (pods.objects, len(pods.made)) == ({}, 1)


async def test_unavailable_removes_what_is_past_its_time() -> None:
    pods, clock = FakePods(), FakeClock()
    now = int(clock.now().timestamp())
    for name, until in (("old", now - 1), ("new", now + int(timedelta(minutes=1).total_seconds()))):
        pods.objects["Pod", name] = {"metadata": {"name": name, "annotations": {UNTIL: str(until)}}}
    pods.objects["Secret", "odd"] = {"metadata": {"name": "odd"}}

    assert await make(pods, clock).unavailable() is None
    assert list(pods.objects) == [("Pod", "new")]


async def test_run_removes_what_has_passed_its_time_since_it_was_asked() -> None:
    pods, clock = FakePods(), FakeClock()
    sandbox = make(pods, clock)
    until = int(clock.now().timestamp()) + 30
    pods.objects["Pod", "left"] = {"metadata": {"name": "left", "annotations": {UNTIL: str(until)}}}
    assert await sandbox.unavailable() is None

    await sandbox.run(Job("shell", "", limits=LIMITS))
    await sandbox.aclose()
    assert list(pods.objects) == [("Pod", "left")]

    clock.advance(61)
    await sandbox.run(Job("shell", "", limits=LIMITS))
    await sandbox.aclose()
    assert pods.objects == {}


async def test_run_outlasts_a_cluster_that_is_silent_for_a_while() -> None:
    pods = FakePods()
    pods.silent = 5

    result = await make(pods).run(Job("shell", "", limits=LIMITS))

    assert (result.ended, pods.silent) == (Ended.EXITED, 0)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(None, id="none"),
        pytest.param({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Egress"]}, id="of-other-pods"),
        pytest.param({"podSelector": {}, "policyTypes": ["Ingress"]}, id="of-what-comes-in"),
        pytest.param({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}, id="that-allows"),
    ],
)
async def test_unavailable_without_a_policy_that_denies(spec: dict[str, Any] | None) -> None:
    pods = FakePods()
    pods.policy = spec and {"spec": spec}

    assert "manifests/base/sandboxes.yaml" in (await make(pods).unavailable() or "")


async def test_unavailable_takes_the_policy_as_a_cluster_returns_it() -> None:
    pods = FakePods()
    pods.policy = {"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}

    assert await make(pods).unavailable() is None
