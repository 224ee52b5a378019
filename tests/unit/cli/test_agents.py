"""What `fairlead agents` makes of Agents, Leases, pods, and of what the gateway says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner

from fairlead.cli.agents import build_external, drain_state
from fairlead.cli.agentviews import (
    WIDE_HEADERS,
    Shown,
    as_document,
    condition_rows,
    describe_lines,
    event_rows,
    leases_of,
    list_row,
    pod_rows,
    pod_state,
    task_rows,
)
from fairlead.cli.main import cli
from fairlead.core import names

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
UNSEEN = "the operator has not looked at it; does it run?"
SPEC: dict[str, Any] = {"model": "default", "skills": [{"name": "mend", "description": "Mends."}], "concurrency": 2}


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def agent(name: str = "clerk", *, ready: str = "True", spec: dict[str, Any] | None = None) -> dict[str, Any]:
    reason = "Available" if ready == "True" else "ImagePullFailed"
    message = "All pods are registered." if ready == "True" else "Pod clerk-0: ErrImagePull; load the image."
    told = {"type": "Ready", "status": ready, "reason": reason, "message": message, "lastTransitionTime": ago(60)}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": "a", "creationTimestamp": ago(3600)},
        "spec": SPEC if spec is None else spec,
        "status": {"pods": "1/2", "queue": 3, "conditions": [told]},
    }


def pod(name: str = "clerk-0", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "uid": f"{name}-uid"}, "status": status}


def lease(name: str = "clerk-0", *, seconds_ago: float = 2, label: str = "clerk", **annotations: str) -> dict[str, Any]:
    given = {
        names.VERSION_ANNOTATION: "0.1.0",
        names.CAPABILITIES_ANNOTATION: "tool,llm",
        names.CAPACITY_ANNOTATION: "2",
        **{f"fairlead.dev/{key}": value for key, value in annotations.items()},
    }
    labels = {names.AGENT_LABEL: label}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": labels, "annotations": given},
        "spec": {"holderIdentity": f"{name}-uid", "leaseDurationSeconds": 15, "renewTime": ago(seconds_ago)},
    }


def registered(name: str = "clerk-0", *runs: str) -> dict[str, Any]:
    tasks = [{"run": run, "runUid": f"{run}-uid", "node": "", "kind": "run", "attempt": 1} for run in runs]
    return {"pod": name, "podUid": f"{name}-uid", "version": "0.1.0", "concurrency": 2, "tasks": tasks}


def shown(**given: Any) -> Shown:
    pool = {"queued": 3, "claimed": 1, "pods": [registered("clerk-0", "run-1")]}
    return Shown(**{"agent": agent(), "leases": [lease()], "pods": [pod(phase="Running")], "pool": pool, **given})


def test_list_row_of_an_agent_that_is_ready_gives_no_reason() -> None:
    row = list_row(agent(), [lease()], wide=False, now=NOW)
    assert row == ["clerk", "True", "1/2", "3", "default", "mend", ""]


def test_list_row_says_why_an_agent_is_not_ready() -> None:
    assert list_row(agent(ready="False"), [], wide=False, now=NOW)[-1].startswith("ImagePullFailed: Pod clerk-0: Err")


def test_list_row_of_an_agent_that_nobody_has_looked_at() -> None:
    fresh = {key: value for key, value in agent(spec={}).items() if key != "status"}
    assert list_row(fresh, [], wide=False, now=NOW) == ["clerk", "Unknown", "-", "-", "-", "-", UNSEEN]


def test_list_row_wide_sums_up_the_pods() -> None:
    leases = [lease("clerk-0"), lease("clerk-1", drain="true", version="0.2.0")]
    assert list_row(agent(), leases, wide=True, now=NOW)[-5:] == ["llm,tool", "0.1.0,0.2.0", "1", "1h0m", ""]


def test_list_row_wide_ends_with_the_reason_which_may_be_long() -> None:
    row = list_row(agent(ready="False"), [], wide=True, now=NOW)
    assert (len(row), WIDE_HEADERS[-1]) == (len(WIDE_HEADERS), "WHY NOT READY")
    assert row[-1].startswith("ImagePullFailed: Pod clerk-0: Err")


def test_list_row_of_an_agent_elsewhere_shows_what_its_card_says() -> None:
    there = agent(spec={"external": {"url": "https://agents.example.com"}})
    assert list_row(there, [lease(capabilities="quote,trade")], wide=False, now=NOW)[5] == "quote,trade"


def test_leases_of_an_agent_are_those_of_its_label_and_namespace() -> None:
    foreign = lease("clerk-7")
    foreign["metadata"]["namespace"] = "other"
    leases = [lease("clerk-1"), lease("clerk-0"), lease("other-0", label="other"), foreign]
    assert [one["metadata"]["name"] for one in leases_of(agent(), leases)] == ["clerk-0", "clerk-1"]


def test_leases_of_an_agent_with_a_name_that_is_too_long_for_a_label() -> None:
    name = "a" * 100
    assert leases_of(agent(name), [lease(label=names.label_value(name))])


@pytest.mark.parametrize(
    ("pod_", "lease_", "state"),
    [
        pytest.param(pod(phase="Running"), lease(), "Registered", id="registered"),
        pytest.param(pod(phase="Running"), lease(drain="true"), "Draining", id="draining"),
        pytest.param(pod(phase="Running"), lease(drain="no"), "Registered", id="any-other-value-is-no-drain"),
        pytest.param(pod(phase="Running"), lease(seconds_ago=16), "Silent", id="silent"),
        pytest.param(pod(phase="Running"), None, "NotRegistered", id="runs-without-a-lease"),
        pytest.param(pod(phase="Pending"), None, "Starting", id="starts"),
        pytest.param(None, lease(), "Registered", id="pods-may-not-be-seen"),
        pytest.param(None, {"metadata": {}, "spec": {}}, "NotRegistered", id="external-and-never-reached"),
        pytest.param(
            pod(
                phase="Pending",
                containerStatuses=[{"image": "x", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}],
            ),
            None,
            "ImagePullFailed",
            id="no-image",
        ),
    ],
)
def test_pod_state(pod_: dict[str, Any] | None, lease_: dict[str, Any] | None, state: str) -> None:
    assert pod_state(pod_, lease_, now=NOW) == state


def test_pod_state_of_a_pod_that_goes_and_of_one_whose_name_had_another() -> None:
    going = pod(phase="Running")
    going["metadata"]["deletionTimestamp"] = ago(1)
    assert pod_state(going, lease(), now=NOW) == "Terminating"
    new = pod(phase="Running")
    new["metadata"]["uid"] = "new"
    assert pod_state(new, lease(), now=NOW) == "NotRegistered"


def test_pod_rows_show_tasks_and_heartbeat() -> None:
    assert pod_rows(shown(), NOW) == [["clerk-0", "Registered", "1/2", "2.0s ago", "0.1.0", "llm,tool"]]


def test_pod_rows_without_a_gateway_do_not_claim_that_nothing_is_at_work() -> None:
    assert pod_rows(shown(pool=None), NOW)[0][2] == "?/2"
    assert as_document(shown(pool=None), NOW)["pods"][0]["tasks"] is None


def test_pod_rows_of_an_agent_elsewhere_claim_no_capacity() -> None:
    there = {"metadata": {"name": "clerk-external"}, "spec": {"holderIdentity": "gateway", "renewTime": ago(1)}}
    ((name, state, tasks, *_),) = pod_rows(shown(leases=[there], pods=[], pool={"pods": []}), NOW)
    assert (name, state, tasks) == ("clerk-external", "Registered", "-")


def test_pod_rows_of_a_pod_without_a_lease() -> None:
    assert pod_rows(shown(leases=[], pods=[pod(phase="Pending")]), NOW) == [
        ["clerk-0", "Starting", "-", "-", "0.1.0", "-"]
    ]


def test_heartbeat_of_a_clock_that_is_ahead_is_not_negative() -> None:
    assert pod_rows(shown(leases=[lease(seconds_ago=-90)]), NOW)[0][3] == "0ms ago"


def test_task_rows_name_the_run() -> None:
    assert task_rows(shown()) == [["clerk-0", "run-1", "-", "run", "1"]]
    assert task_rows(shown(pool=None)) == []


def test_describe_lines_of_a_pool() -> None:
    lines = dict(describe_lines(shown(agent=agent(spec={**SPEC, "scale": {"min": 1, "max": 3}})), NOW))
    assert lines["Pods"] == "1/2 ready; wanted 1 to 3, 2 tasks each, lost after 15 s of silence"
    assert lines["Queue"] == "3 waiting, 1 at work"
    assert "Description" not in lines


def test_describe_lines_of_an_agent_elsewhere_have_its_address() -> None:
    lines = dict(describe_lines(shown(agent=agent(spec={"external": {"url": "https://a.example"}}), pool=None), NOW))
    assert lines["Address"] == "https://a.example"
    assert "Pods" not in lines


def test_condition_rows_keep_the_whole_message() -> None:
    assert condition_rows(agent(ready="False"), NOW) == [
        ["Ready", "False", "ImagePullFailed", "1m0s", "Pod clerk-0: ErrImagePull; load the image."]
    ]


def test_event_rows_are_the_latest_in_order() -> None:
    events = [
        {"involvedObject": {"kind": "Pod", "name": f"p{n}"}, "type": "Normal", "reason": "R", "lastTimestamp": ago(n)}
        for n in (1, 30, 9)
    ]
    assert [row[3] for row in event_rows(events, NOW, limit=2)] == ["pod/p9", "pod/p1"]


def test_as_document_has_what_the_text_has() -> None:
    document = as_document(shown(leases=[lease(drain="true")]), NOW)
    assert document["queue"] == {"queued": 3, "claimed": 1}
    (one,) = document["pods"]
    assert (one["state"], one["draining"], one["capabilities"]) == ("Draining", True, ["llm", "tool"])
    assert [task["run"] for task in one["tasks"]] == ["run-1"]


@pytest.mark.parametrize(
    ("renewed", "pod_", "state"),
    [
        pytest.param(2, registered("clerk-0"), "busy", id="has-not-heard-of-it"),
        pytest.param(1, registered("clerk-0"), "idle", id="has-heard-and-has-nothing"),
        pytest.param(1, registered("clerk-0", "run-1"), "busy", id="has-work"),
        pytest.param(1, None, "gone", id="no-session"),
        pytest.param(1, {**registered("clerk-0"), "podUid": "new"}, "gone", id="another-pod-of-that-name"),
    ],
)
def test_drain_state(renewed: float, pod_: dict[str, Any] | None, state: str) -> None:
    assert drain_state(lease(seconds_ago=2), lease(seconds_ago=renewed), pod_) == state


def test_drain_state_without_a_lease_is_gone() -> None:
    assert drain_state(lease(), None, registered("clerk-0")) == "gone"


def test_build_external_with_a_token() -> None:
    made = build_external("broker", url="https://a.example", token_secret="broker/token", description="Trades.")
    assert made["spec"] == {
        "external": {
            "url": "https://a.example",
            "token": {"valueFrom": {"secretKeyRef": {"name": "broker", "key": "token"}}},
        },
        "description": "Trades.",
    }


@pytest.mark.parametrize("text", ["broker", "broker/", "/token"])
def test_build_external_with_half_a_reference_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError, match="SECRET/KEY"):
        build_external("broker", url="https://a.example", token_secret=text)


@pytest.mark.parametrize("name", ["list", "describe", "drain", "register"])
def test_every_command_of_agents_teaches(name: str) -> None:
    result = CliRunner().invoke(cli, ["agents", name, "--help"], prog_name="fairlead")
    assert result.exit_code == 0
    assert f"fairlead agents {name}" in result.output.partition("Examples:")[2]
