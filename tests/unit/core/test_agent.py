"""Pools: which pods come and go, what is said of it, and that a second pass does nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api.conditions import Reason
from fairlead.core import names
from fairlead.core.actions import Create, Delete, Drain, Plan
from fairlead.core.agent import Observed, plan_agent, pod_trouble, refusal_of_pod
from fairlead.core.manifests import PodSettings, build_pool_pod
from fairlead.core.pool import Load, bounds, needed

SETTINGS = PodSettings(image="agent:1", pull_policy="IfNotPresent", gateway_url="https://g", gateway_ca="pem")
CONTROLLER = {"apiVersion": names.API_VERSION, "kind": "Agent"}


def make(spec: Mapping[str, Any], uid: str = "Agent-a") -> dict[str, Any]:
    meta = {"name": "a", "namespace": "n", "uid": uid, "generation": 1}
    return {**CONTROLLER, "metadata": meta, "spec": dict(spec)}


AGENT = make({"scale": {"min": 2}})
ELASTIC = make({"scale": {"min": 0, "max": 5}, "concurrency": 2})


def pods_of(agent: dict[str, Any], count: int, *, first: int = 0, **status: Any) -> list[dict[str, Any]]:
    pods = [build_pool_pod(agent, slot, SETTINGS) for slot in range(first, first + count)]
    for pod in pods:
        pod["metadata"]["uid"] = f"uid-{pod['metadata']['name']}"
        pod["status"] = status
    return pods


def look(pods: list[dict[str, Any]], *alive: str, queued: int = 0, **more: Any) -> Observed:
    """Return what is observed; *alive* are names of pods."""
    load = Load(queued, more.pop("held", {}), more.pop("recent", 0))
    seen = Observed(pods, frozenset(f"uid-{name}" for name in alive), load, SETTINGS)
    return replace(seen, **more)


def names_of(plan: Plan, kind: type) -> list[str]:
    found = [action for action in plan.actions if isinstance(action, kind)]
    return [(one.pod if isinstance(one, Drain) else one.obj)["metadata"]["name"] for one in found]


def ready(plan: Plan) -> tuple[str, str]:
    found = {condition.type: condition for condition in plan.conditions}
    return found["Ready"].status, found["Ready"].reason


def reconciling(plan: Plan) -> str:
    return next((one.reason for one in plan.conditions if one.type == "Reconciling"), "")


def test_plan_agent_absent_pods_are_created() -> None:
    plan = plan_agent(AGENT, look([]))
    assert names_of(plan, Create) == ["a-0", "a-1"]
    assert ready(plan) == ("False", "ScalingUp")


def test_plan_agent_second_pass_does_nothing() -> None:
    pods = pods_of(AGENT, 2)
    assert plan_agent(AGENT, look(pods)).actions == ()
    plan = plan_agent(AGENT, look(pods, "a-0", "a-1"))
    assert plan.actions == ()
    assert (ready(plan), reconciling(plan)) == (("True", "Available"), "")
    assert plan.status["pods"] == "2/2"
    assert plan.look_again is None


def test_plan_agent_ended_pods_are_deleted_and_replaced_in_another_slot() -> None:
    pods = pods_of(AGENT, 2)
    pods[0]["status"] = {"phase": "Failed"}
    plan = plan_agent(AGENT, look(pods, "a-1"))
    assert names_of(plan, Delete) == ["a-0"]
    assert names_of(plan, Create) == ["a-2"]


def test_plan_agent_surplus_pods_go_and_those_at_work_drain_first() -> None:
    smaller = make({"scale": {"min": 1}})
    plan = plan_agent(smaller, look(pods_of(smaller, 3), "a-0", "a-1", held={"uid-a-0": 1, "uid-a-1": 0}))
    assert (names_of(plan, Delete), names_of(plan, Drain)) == (["a-2"], ["a-1"])


@pytest.mark.parametrize(
    ("seconds", "tasks", "gone"),
    [
        pytest.param(1, 0, False, id="it-may-not-have-heard-of-it"),
        pytest.param(8, 0, True, id="it-is-empty"),
        pytest.param(8, 1, False, id="it-has-a-task"),
        pytest.param(31, 1, True, id="its-time-is-over"),
    ],
)
def test_plan_agent_a_draining_pod_goes_when_it_is_empty(seconds: float, tasks: int, gone: bool) -> None:
    one = make({"scale": {"min": 1}})
    pods = pods_of(one, 2)
    seen = look(pods, "a-0", "a-1", held={"uid-a-1": tasks}, draining={"uid-a-1": seconds})
    plan = plan_agent(one, seen)
    assert names_of(plan, Delete) == (["a-1"] if gone else [])
    assert reconciling(plan) == ("" if gone else "ScalingDown")
    assert ready(plan) == ("True", "Available")


def test_plan_agent_a_pod_that_a_person_drains_is_replaced_at_once() -> None:
    plan = plan_agent(AGENT, look(pods_of(AGENT, 2), "a-0", "a-1", draining={"uid-a-0": 0}))
    assert names_of(plan, Create) == ["a-2"]
    assert names_of(plan, Delete) == []


def test_plan_agent_changed_pods_are_replaced_one_at_a_time_by_one_more() -> None:
    changed = make({"scale": {"min": 2}, "concurrency": 9})
    old, new = pods_of(AGENT, 2), pods_of(changed, 2, first=2)
    plan = plan_agent(changed, look(old, "a-0", "a-1"))
    assert (names_of(plan, Create), names_of(plan, Drain), names_of(plan, Delete)) == (["a-2"], [], [])
    assert (ready(plan), reconciling(plan)) == (("True", "Available"), "RollingOut")
    assert plan_agent(changed, look([*old, new[0]], "a-0", "a-1")).actions == ()
    plan = plan_agent(changed, look([*old, new[0]], "a-0", "a-1", "a-2", held={"uid-a-0": 3}))
    assert (names_of(plan, Create), names_of(plan, Drain)) == ([], ["a-1"])
    seen = look([*old, new[0]], "a-0", "a-1", "a-2", held={"uid-a-1": 1})
    assert plan_agent(changed, replace(seen, draining={"uid-a-1": 9})).actions == ()
    plan = plan_agent(changed, look([old[0], new[0]], "a-0", "a-2"))
    assert names_of(plan, Create) == ["a-1"]
    plan = plan_agent(changed, look([old[0], *pods_of(changed, 2, first=1)], "a-0", "a-1", "a-2"))
    assert names_of(plan, Drain) == ["a-0"]


def test_plan_agent_changed_pod_that_never_worked_is_replaced_at_once() -> None:
    changed = make({"scale": {"min": 2}, "pod": {"image": "right:1"}})
    plan = plan_agent(changed, look(pods_of(AGENT, 2), "a-1"))
    assert (names_of(plan, Delete), names_of(plan, Create)) == (["a-0"], ["a-2"])


def test_plan_agent_a_change_that_cannot_start_leaves_the_old_pods_at_work() -> None:
    changed = make({"scale": {"min": 2}, "pod": {"image": "wrong:1"}})
    waiting = {"waiting": {"reason": "ErrImageNeverPull", "message": "not here"}}
    broken = pods_of(changed, 1, first=2, containerStatuses=[{"image": "wrong:1", "state": waiting}])
    plan = plan_agent(changed, look([*pods_of(AGENT, 2), *broken], "a-0", "a-1"))
    assert plan.actions == ()
    assert (ready(plan), reconciling(plan)) == (("True", "Available"), "ImagePullFailed")


def test_plan_agent_foreign_pods_are_left_alone() -> None:
    namesake = make({"scale": {"min": 2}}, uid="another")
    plan = plan_agent(namesake, look(pods_of(AGENT, 2)))
    assert names_of(plan, Delete) == []
    assert names_of(plan, Create) == ["a-2", "a-3"]


@pytest.mark.parametrize(
    ("spec", "load", "expected"),
    [
        pytest.param({}, Load(), 0, id="nothing"),
        pytest.param({"concurrency": 4}, Load(1), 1, id="the-first-task"),
        pytest.param({"concurrency": 4}, Load(1, {"p": 3}), 1, id="there-is-room"),
        pytest.param({"concurrency": 4}, Load(1, {"p": 4}), 2, id="there-is-none"),
        pytest.param({"concurrency": 4}, Load(0, {"p": 1, "q": 1, "r": 1}), 3, id="all-are-at-work"),
        pytest.param({"scale": {"targetQueue": 10}}, Load(25, {"p": 1}), 3, id="target"),
    ],
)
def test_needed(spec: dict[str, Any], load: Load, expected: int) -> None:
    assert needed(make(spec), load, {}) == expected


def test_needed_does_not_count_what_draining_pods_finish() -> None:
    assert needed(ELASTIC, Load(0, {"p": 2, "q": 2}), {"p": 1.0}) == 1


def test_plan_agent_scales_from_zero_and_says_so() -> None:
    idle = plan_agent(ELASTIC, look([]))
    assert (idle.actions, ready(idle), idle.look_again) == ((), ("True", "ScaledToZero"), None)
    busy = plan_agent(ELASTIC, look([], queued=3))
    assert names_of(busy, Create) == ["a-0", "a-1"]
    assert ready(busy) == ("False", "ScalingUp")
    assert names_of(plan_agent(ELASTIC, look([], queued=300)), Create) == [f"a-{n}" for n in range(5)]


def test_plan_agent_shrinks_only_by_idle_pods_and_when_less_was_enough_for_a_while() -> None:
    pods, held = pods_of(ELASTIC, 3), {"uid-a-0": 1}
    for recent in (None, 3):
        plan = plan_agent(ELASTIC, look(pods, "a-0", "a-1", "a-2", held=held, recent=recent))
        assert plan.actions == ()
        assert plan.status["pods"] == "3/3"
        assert plan.look_again is not None
    plan = plan_agent(ELASTIC, look(pods, "a-0", "a-1", "a-2", held=held, recent=1))
    assert names_of(plan, Drain) == ["a-1", "a-2"]
    plan = plan_agent(ELASTIC, look(pods, "a-0", "a-1", "a-2", recent=0))
    assert names_of(plan, Drain) == ["a-0", "a-1", "a-2"]


def test_plan_agent_elastic_pool_that_works_while_it_grows_is_ready() -> None:
    plan = plan_agent(ELASTIC, look(pods_of(ELASTIC, 1), "a-0", queued=2, held={"uid-a-0": 2}))
    assert names_of(plan, Create) == ["a-1"]
    assert (ready(plan), reconciling(plan)) == (("True", "Available"), "ScalingUp")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param({"settings": None}, ("False", "GatewayUnavailable"), id="no-gateway"),
        pytest.param({"lacking": (Reason.TOOL_NOT_FOUND, "no")}, ("False", "ToolNotFound"), id="no-tool"),
        pytest.param({"refused": refusal_of_pod("exceeded quota: q")}, ("False", "QuotaExceeded"), id="quota"),
        pytest.param({"refused": refusal_of_pod("no such service account")}, ("False", "Refused"), id="refused"),
    ],
)
def test_plan_agent_waits(more: dict[str, Any], expected: tuple[str, str]) -> None:
    assert ready(plan_agent(AGENT, look([], **more))) == expected


def test_plan_agent_quota_of_a_pool_that_has_enough_is_no_outage() -> None:
    seen = look(pods_of(ELASTIC, 1), "a-0", queued=9, held={"uid-a-0": 2}, refused=refusal_of_pod("exceeded quota: q"))
    plan = plan_agent(ELASTIC, seen)
    assert (ready(plan), reconciling(plan)) == (("True", "Available"), "QuotaExceeded")


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ({"reason": "OOMKilled", "exitCode": 137}, "raise spec.resources.limits.memory"),
        ({"reason": "Error", "exitCode": 78}, "it ended with exit code 78 (Error); see"),
        ({"reason": "Error", "exitCode": 3}, "build it on the agent image of that version"),
        (None, "CrashLoopBackOff: words; see"),
    ],
)
def test_pod_trouble_of_a_crash_says_how_it_ended(ended: dict[str, Any] | None, words: str) -> None:
    status = waiting("CrashLoopBackOff", "words")
    status["containerStatuses"][0]["lastState"] = {"terminated": ended} if ended else {}
    trouble = pod_trouble({"metadata": {"name": "clerk-0"}, "status": status})
    assert trouble is not None
    assert words in trouble[1]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param(waiting("ImagePullBackOff"), "ImagePullFailed", id="image"),
        pytest.param(waiting("ErrImageNeverPull"), "ImagePullFailed", id="image-not-loaded"),
        pytest.param(waiting("CrashLoopBackOff"), "PodFailing", id="crash"),
        pytest.param(waiting("CreateContainerConfigError", 'secret "x" not found'), "SecretNotFound", id="secret"),
        pytest.param(waiting("CreateContainerConfigError", "runs as root"), "PodFailing", id="config"),
        pytest.param(
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            "PodPending",
            id="unschedulable",
        ),
        pytest.param({"phase": "Running"}, "ScalingUp", id="not-registered"),
    ],
)
def test_plan_agent_tells_why_not(status: dict[str, Any], reason: str) -> None:
    assert ready(plan_agent(AGENT, look(pods_of(AGENT, 2, **status)))) == ("False", reason)


def test_plan_agent_names_the_pull_secrets_of_an_image_that_cannot_be_had() -> None:
    agent = make({"pod": {"image": "private:1", "imagePullSecrets": ["registry"]}})
    plan = plan_agent(agent, look(pods_of(agent, 1, **waiting("ErrImagePull", "unauthorized"))))
    assert "registry" in plan.conditions[0].message


@pytest.mark.parametrize(
    "options",
    [
        {"env": [{"name": "FAIRLEAD_TOKEN_FILE", "value": "/etc/passwd"}]},
        {"annotations": {"container.apparmor.security.beta.kubernetes.io/agent": "unconfined"}},
    ],
)
def test_plan_agent_what_is_not_its_to_say_is_refused(options: dict[str, Any]) -> None:
    agent = make({"pod": options})
    plan = plan_agent(agent, look(pods_of(agent, 1)))
    assert ready(plan) == ("False", "InvalidSpec")
    assert names_of(plan, Delete) == ["a-0"]


class Cluster:
    """A pool in motion: carries plans out, and lets pods live as chance has it."""

    def __init__(self, agent: dict[str, Any], chance: random.Random) -> None:
        self.agent = agent
        self.chance = chance
        self.pods: list[dict[str, Any]] = []
        self.alive: set[str] = set()
        self.draining: dict[str, float] = {}
        self.held: dict[str, int] = {}
        self.queued = 0
        self.recent: int | None = None
        self.drained_busy: list[str] = []
        self._made = 0

    def observe(self) -> Observed:
        load = Load(self.queued, dict(self.held))
        if self.recent is not None:
            self.recent = max(self.recent, needed(self.agent, load, self.draining))
        draining = {uid: seconds for uid, seconds in self.draining.items() if uid in self.alive}
        return Observed(tuple(self.pods), frozenset(self.alive), replace(load, recent=self.recent), SETTINGS, draining)

    def carry_out(self, plan: Plan) -> None:
        for action in plan.actions:
            match action:
                case Create(obj):
                    self._made += 1
                    meta = {**obj["metadata"], "uid": f"u{self._made}"}
                    assert meta["name"] not in {pod["metadata"]["name"] for pod in self.pods}
                    self.pods.append({**obj, "metadata": meta})
                case Delete(obj):
                    self._replace(obj, {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "now"}})
                case Drain(pod):
                    assert pod["metadata"]["uid"] in self.alive
                    self.draining[pod["metadata"]["uid"]] = 0.0

    def _replace(self, pod: Mapping[str, Any], by: dict[str, Any]) -> None:
        self.pods = [by if one["metadata"]["uid"] == pod["metadata"]["uid"] else one for one in self.pods]

    def staying(self) -> Iterator[dict[str, Any]]:
        return (
            pod
            for pod in self.pods
            if "deletionTimestamp" not in pod["metadata"]
            and pod["metadata"]["uid"] not in self.draining
            and "phase" not in pod.get("status", {})
        )

    def live(self) -> None:
        """Let something happen."""
        chance = self.chance
        uids = [pod["metadata"]["uid"] for pod in self.pods]
        self.queued = chance.choice((0, 0, 1, 3, 9))
        self.recent = chance.choice((None, 0, 1, 2))
        for pod in list(self.pods):
            uid, fate = pod["metadata"]["uid"], chance.random()
            if "deletionTimestamp" in pod["metadata"] and fate < 0.6:
                self.pods.remove(pod)
            elif fate < 0.5:
                self.alive.add(uid)
            elif fate < 0.53:
                self.alive.discard(uid)
            elif fate < 0.55:
                self._replace(pod, {**pod, "status": {"phase": "Failed"}})
        self.draining = {uid: age + chance.choice((1, 5, 40)) for uid, age in self.draining.items() if uid in uids}
        self.held = {uid: chance.choice((1, 2)) for uid in self.alive if uid in uids and chance.random() < 0.4}


SPECS = st.fixed_dictionaries(
    {
        "scale": st.sampled_from(
            [{"min": 0}, {"min": 1}, {"min": 3}, {"min": 0, "max": 1}, {"min": 1, "max": 4}, {"min": 0, "max": 6}]
        ),
        "concurrency": st.sampled_from([1, 2, 4]),
    }
)


@settings(deadline=None, max_examples=50)
@given(st.lists(SPECS, min_size=1, max_size=4), st.integers(0, 10_000))
def test_plan_agent_again_from_what_it_leads_to_gives_no_actions(specs: list[dict[str, Any]], seed: int) -> None:
    """Whatever happened before: pods that come, go, die, drain, and an Agent that changes."""
    cluster = Cluster(make(specs[0]), random.Random(seed))  # noqa: S311 - a test's chance
    for step in range(24):
        cluster.agent = make(specs[step * len(specs) // 24])
        before = cluster.observe()
        plan = plan_agent(cluster.agent, before)
        cluster.carry_out(plan)
        assert plan_agent(cluster.agent, cluster.observe()).actions == ()
        least, most = bounds(cluster.agent)
        assert least <= len(list(cluster.staying())) <= most + 1
        cluster.live()


@settings(deadline=None, max_examples=30)
@given(SPECS, SPECS, st.integers(0, 10_000))
def test_plan_agent_a_rollout_ends_and_takes_no_pod_that_has_nobody_in_its_place(
    before: dict[str, Any], after: dict[str, Any], seed: int
) -> None:
    old, new = make(before), make({**after, "scale": before["scale"], "drainSeconds": 5})
    cluster = Cluster(old, random.Random(seed))  # noqa: S311 - a test's chance
    cluster.carry_out(plan_agent(old, cluster.observe()))
    cluster.agent, least = new, bounds(new)[0]
    for _ in range(60):
        cluster.alive = {pod["metadata"]["uid"] for pod in cluster.pods}
        cluster.carry_out(plan_agent(new, cluster.observe()))
        cluster.pods = [pod for pod in cluster.pods if "deletionTimestamp" not in pod["metadata"]]
        at_work = [pod for pod in cluster.staying() if pod["metadata"]["uid"] in cluster.alive]
        assert len(at_work) >= least
        cluster.draining = {uid: age + 3 for uid, age in cluster.draining.items()}
    current = build_pool_pod(new, 0, SETTINGS)["metadata"]["annotations"][names.SPEC_DIGEST_ANNOTATION]
    digests = [pod["metadata"]["annotations"][names.SPEC_DIGEST_ANNOTATION] for pod in cluster.pods]
    assert digests == [current] * least
