from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fairlead.localcluster.podruntime.plan import (
    Bind,
    Kill,
    Plan,
    Remove,
    Rules,
    Start,
    Stop,
    plan_pod,
)
from fairlead.localcluster.podruntime.refusals import same_image
from fairlead.localcluster.podruntime.state import Backoff, Container, Exit, Waiting

RULES = Rules("local", "fairlead-agent:0.1.0")
FRESH = Container("agent")


def ended(now: datetime, *, code: int, ago: float = 0, backoff: Backoff | None = None) -> Container:
    finished = now - timedelta(seconds=ago)
    end = Exit(code, "Error" if code else "Completed", finished, finished)
    return Container("agent", ended=end, backoff=backoff or Backoff())


def plan(pod: dict[str, Any], *containers: Container, now: datetime, rules: Rules = RULES) -> Plan:
    return plan_pod(pod, containers or (FRESH,), now=now, rules=rules)


def test_plan_pod_without_node_is_bound(make_pod: Any, now: datetime) -> None:
    assert plan(make_pod(node=""), now=now).actions == (Bind(),)


@pytest.mark.parametrize(
    ("node", "more"),
    [
        pytest.param("", {"schedulingGates": [{"name": "wait"}]}, id="gated-pods-wait"),
        pytest.param("other", {}, id="pods-of-other-nodes-are-theirs"),
    ],
)
def test_plan_pod_leaves_alone_what_is_not_its_own(make_pod: Any, now: datetime, node: str, more: Any) -> None:
    assert plan(make_pod(node=node, **more), now=now) == Plan()


def test_plan_pod_starts_a_new_container(make_pod: Any, now: datetime) -> None:
    assert plan(make_pod(), now=now).actions == (Start("agent"),)


def test_plan_pod_does_nothing_more_once_it_runs(make_pod: Any, now: datetime) -> None:
    assert plan(make_pod(), FRESH.started(now), now=now).actions == ()


@pytest.mark.parametrize(
    ("policy", "code", "restarted"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_plan_pod_follows_the_restart_policy(
    make_pod: Any, now: datetime, policy: str, code: int, *, restarted: bool
) -> None:
    found = plan(make_pod(restartPolicy=policy), ended(now, code=code), now=now)
    assert found.actions == ((Start("agent"),) if restarted else ())


def test_plan_pod_waits_out_the_back_off_and_says_so(make_pod: Any, now: datetime) -> None:
    crashed = ended(now, code=1, ago=4, backoff=Backoff(timedelta(seconds=10), now - timedelta(seconds=5)))
    found = plan(make_pod(), crashed, now=now)
    assert found.actions == ()
    assert found.wake_at == now + timedelta(seconds=6)
    assert found.waiting is not None
    assert found.waiting["agent"].reason == "CrashLoopBackOff"
    assert "back-off 10s restarting failed container=agent pod=p_default(u-1)" in found.waiting["agent"].message
    assert plan(make_pod(), crashed, now=found.wake_at).actions == (Start("agent"),)


def test_plan_pod_tries_again_after_a_problem(make_pod: Any, now: datetime) -> None:
    retry_at = now + timedelta(seconds=10)
    stuck = Container("agent", problem=Waiting("CreateContainerConfigError", "no such Secret"), retry_at=retry_at)
    found = plan(make_pod(), stuck, now=now)
    assert found == Plan((), {"agent": Waiting("CreateContainerConfigError", "no such Secret")}, retry_at)
    assert plan(make_pod(), stuck, now=retry_at).actions == (Start("agent"),)


def test_plan_pod_of_another_image_says_what_is_needed(make_pod: Any, now: datetime) -> None:
    found = plan(make_pod(image="nginx"), now=now)
    assert found.actions == ()
    assert found.waiting is not None
    assert found.waiting["agent"].reason == "ErrImageNeverPull"
    assert 'image "nginx" needs a container engine' in found.waiting["agent"].message
    assert "kind create cluster" in found.waiting["agent"].message


def test_plan_pod_with_one_foreign_container_starts_none(make_pod: Any, now: datetime) -> None:
    pod = make_pod()
    pod["spec"]["containers"].append({"name": "side", "image": "envoy"})
    found = plan(pod, FRESH, Container("side"), now=now)
    assert found.actions == ()
    assert {name: waiting.reason for name, waiting in (found.waiting or {}).items()} == {
        "agent": "ContainerCreating",
        "side": "ErrImageNeverPull",
    }


INIT, LATER = Container("init", init=True), Container("later", init=True)


def with_init(make_pod: Any, **spec: Any) -> Any:
    first = [{"name": name, "image": "fairlead-agent:0.1.0"} for name in ("init", "later")]
    return make_pod(initContainers=first, **spec)


def exit_with(code: int, now: datetime) -> Exit:
    return Exit(code, "", now, now)


def test_plan_pod_runs_init_containers_one_after_the_other_before_all_others(make_pod: Any, now: datetime) -> None:
    pod = with_init(make_pod)
    first = plan(pod, INIT, LATER, FRESH, now=now)
    assert first.actions == (Start("init"),)
    assert first.waiting == dict.fromkeys(["later", "agent"], Waiting("PodInitializing"))
    assert plan(pod, INIT.started(now), LATER, FRESH, now=now).actions == ()
    done = INIT.started(now).exited(exit_with(0, now))
    assert plan(pod, done, LATER, FRESH, now=now).actions == (Start("later"),)
    both = LATER.started(now).exited(exit_with(0, now))
    assert plan(pod, done, both, FRESH, now=now).actions == (Start("agent"),)
    assert plan(pod, done, both, FRESH.started(now), now=now).actions == ()


def test_plan_pod_starts_a_failed_init_container_again_unless_never(make_pod: Any, now: datetime) -> None:
    failed = INIT.started(now).exited(exit_with(1, now))
    assert plan(with_init(make_pod), failed, LATER, FRESH, now=now).actions == (Start("init"),)
    assert plan(with_init(make_pod, restartPolicy="Never"), failed, LATER, FRESH, now=now).actions == ()


def test_plan_pod_does_not_prepare_again_what_has_run(make_pod: Any, now: datetime) -> None:
    crashed = FRESH.started(now).exited(exit_with(1, now))
    assert plan(with_init(make_pod), INIT, LATER, crashed, now=now).actions == (Start("agent"),)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"hostNetwork": True}, "hostNetwork", id="host-network"),
        pytest.param({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "hostPath", id="host-path"),
        pytest.param(
            {"containers": [{"name": "agent", "securityContext": {"privileged": True}}]}, "privileged", id="privileged"
        ),
        pytest.param({"containers": [{"name": "agent", "lifecycle": {"preStop": {}}}]}, "lifecycle", id="hooks"),
        pytest.param({"containers": [{"name": "agent", "livenessProbe": {"grpc": {}}}]}, "gRPC", id="grpc"),
        pytest.param({"initContainers": [{"name": "s", "restartPolicy": "Always"}]}, "goes on running", id="sidecar"),
    ],
)
def test_plan_pod_that_cannot_be_had_says_what(make_pod: Any, now: datetime, spec: dict[str, Any], said: str) -> None:
    found = plan({**make_pod(), "spec": {**make_pod()["spec"], **spec}}, now=now, rules=Rules("local", "a", "docker"))
    assert found.actions == ()
    assert found.waiting is not None
    assert found.waiting["agent"].reason == "CreateContainerConfigError"
    assert said in found.waiting["agent"].message


def test_plan_pod_of_another_image_starts_where_there_is_an_engine(make_pod: Any, now: datetime) -> None:
    assert plan(make_pod(image="nginx"), now=now, rules=Rules("local", "a", "docker")).actions == (Start("agent"),)


def test_plan_pod_ends_an_unhealthy_container_and_starts_it_again(make_pod: Any, now: datetime) -> None:
    pod = make_pod(terminationGracePeriodSeconds=5)
    sick = replace(FRESH.started(now), unhealthy="failed liveness probe")
    assert plan(pod, sick, now=now) == Plan((Stop("agent"),), {}, now + timedelta(seconds=5))
    asked = replace(sick, stopping_since=now)
    assert plan(pod, asked, now=now).actions == ()
    assert plan(pod, asked, now=now + timedelta(seconds=5)).actions == (Kill("agent"),)
    assert plan(pod, asked.exited(exit_with(143, now)), now=now).actions == (Start("agent"),)


def test_plan_pod_that_is_deleted_stops_then_kills_then_goes(make_pod: Any, now: datetime) -> None:
    pod, running = make_pod(), FRESH.started(now)
    pod["metadata"] |= {"deletionTimestamp": "2026-11-21T12:00:05Z", "deletionGracePeriodSeconds": 5}
    end = now + timedelta(seconds=5)
    asked = replace(running, stopping_since=now)
    assert plan(pod, running, now=now) == Plan((Stop("agent"),), wake_at=end)
    assert plan(pod, asked, now=now + timedelta(seconds=2)) == Plan(wake_at=end)
    assert plan(pod, asked, now=end).actions == (Kill("agent"),)
    assert plan(pod, running.exited(Exit(143, "Error", now, now)), now=now).actions == (Remove(),)


def test_plan_pod_that_is_deleted_before_it_started_goes_at_once(make_pod: Any, now: datetime) -> None:
    pod = make_pod(image="nginx")
    pod["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:05Z"
    assert plan(pod, now=now).actions == (Remove(),)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_plan_pod_that_has_finished_stays_finished(make_pod: Any, now: datetime, phase: str) -> None:
    pod = make_pod()
    pod["status"] = {"phase": phase}
    assert plan(pod, now=now) == Plan()


@pytest.mark.parametrize(
    ("image", "same"),
    [
        ("fairlead-agent:0.1.0", True),
        ("docker.io/library/fairlead-agent:0.1.0", True),
        ("fairlead-agent", False),
        ("fairlead-agent:0.2.0", False),
        ("localhost:5000/fairlead-agent:0.1.0", False),
        ("evil/fairlead-agent:0.1.0", False),
    ],
)
def test_same_image_compares_whole_references(image: str, *, same: bool) -> None:
    assert same_image(image, RULES.agent_image) is same


def test_same_image_without_tag_is_latest() -> None:
    assert same_image("agent:latest", "agent")
    assert same_image("localhost:5000/agent", "localhost:5000/agent:latest")
