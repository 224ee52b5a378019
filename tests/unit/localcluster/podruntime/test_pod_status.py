from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fairlead.localcluster.podruntime.state import Container, Exit, Waiting
from fairlead.localcluster.podruntime.status import build_status, phase_of, qos_class


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in status["conditions"]}


def test_build_status_of_a_running_pod(make_pod: Any, now: datetime) -> None:
    status = build_status(make_pod(), [Container("agent").started(now)], waiting={}, now=now)
    assert status["phase"] == "Running"
    assert (status["podIP"], status["startTime"], status["qosClass"]) == (
        "127.0.0.1",
        "2026-11-21T12:00:00Z",
        "BestEffort",
    )
    assert conditions(status) == dict.fromkeys(
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"], "True"
    )
    assert status["containerStatuses"][0]["state"] == {"running": {"startedAt": "2026-11-21T12:00:00Z"}}
    assert status["containerStatuses"][0]["ready"] is True


def test_build_status_keeps_transition_times_while_nothing_changes(make_pod: Any, now: datetime) -> None:
    pod, running = make_pod(), [Container("agent").started(now)]
    pod["status"] = build_status(pod, running, waiting={}, now=now)
    later = now + timedelta(hours=1)
    assert build_status(pod, running, waiting={}, now=later) == pod["status"]
    ended = [running[0].exited(Exit(1, "Error", now, later))]
    changed = build_status(pod, ended, waiting={"agent": Waiting("CrashLoopBackOff", "m")}, now=later)
    times = {condition["type"]: condition["lastTransitionTime"] for condition in changed["conditions"]}
    assert times["Ready"] == "2026-11-21T13:00:00Z"
    assert times["Initialized"] == "2026-11-21T12:00:00Z"
    assert changed["startTime"] == "2026-11-21T12:00:00Z"


def test_build_status_shows_the_end_before_as_last_state(make_pod: Any, now: datetime) -> None:
    crashed = Container("agent").started(now, ident="docker://a").exited(Exit(3, "Error", now, now))
    waiting = {"agent": Waiting("CrashLoopBackOff", "back-off 10s")}
    shown = build_status(make_pod(), [crashed], waiting=waiting, now=now)["containerStatuses"][0]
    assert shown["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert shown["lastState"]["terminated"]["exitCode"] == 3
    again = build_status(make_pod(), [crashed.started(now, ident="docker://b")], waiting={}, now=now)[
        "containerStatuses"
    ][0]
    assert (again["restartCount"], again["containerID"]) == (1, "docker://b")
    assert again["lastState"]["terminated"]["containerID"] == "docker://a"


def test_build_status_shows_what_prepares_the_pod(make_pod: Any, now: datetime) -> None:
    pod = make_pod(initContainers=[{"name": "init", "image": "i"}])
    init, main = Container("init", init=True).started(now), Container("agent")
    status = build_status(pod, [init, main], waiting={"agent": Waiting("PodInitializing")}, now=now, address="")
    assert (status["phase"], conditions(status)["Initialized"], "podIP" in status) == ("Pending", "False", False)
    assert "running" in status["initContainerStatuses"][0]["state"]
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    failed = init.exited(Exit(1, "Error", now, now))
    assert phase_of([failed, main], policy="Never") == "Failed"
    assert phase_of([failed, main], policy="Always") == "Pending"
    done = init.exited(Exit(0, "Completed", now, now))
    status = build_status(pod, [done, main.started(now)], waiting={}, now=now)
    assert (status["phase"], conditions(status)["Initialized"]) == ("Running", "True")
    assert status["initContainerStatuses"][0]["ready"] is True


def test_build_status_is_ready_when_the_probes_say_so(make_pod: Any, now: datetime) -> None:
    asked = Container("agent").started(now, probed=True)
    status = build_status(make_pod(), [asked], waiting={}, now=now)
    assert (status["phase"], conditions(status)["Ready"]) == ("Running", "False")
    assert status["containerStatuses"][0]["started"] is False
    status = build_status(make_pod(), [replace(asked, up=True, ready=True)], waiting={}, now=now)
    assert conditions(status)["Ready"] == "True"


def test_build_status_of_a_deleted_pod_is_final(make_pod: Any, now: datetime) -> None:
    pod = make_pod()
    pod["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    ended = Container("agent").started(now).exited(Exit(143, "Error", now, now, signal=15))
    status = build_status(pod, [ended], waiting={}, now=now)
    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Always", [None], "Pending"),
        ("Always", [1], "Running"),
        ("Never", [0], "Succeeded"),
        ("Never", [1], "Failed"),
        ("Never", [0, 1], "Failed"),
        ("OnFailure", [0], "Succeeded"),
        ("OnFailure", [1], "Running"),
    ],
)
def test_phase_of_containers_that_do_not_run(now: datetime, policy: str, codes: list[int | None], phase: str) -> None:
    containers = [
        Container(f"c{index}", ended=None if code is None else Exit(code, "", now, now))
        for index, code in enumerate(codes)
    ]
    assert phase_of(containers, policy=policy) == phase


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_qos_class_of_resources(resources: dict[str, Any], quality: str) -> None:
    assert qos_class({"containers": [{"name": "agent", "resources": resources}]}) == quality
