"""Commands that change runs, on the objects that they are given."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import pytest

from fairlead.cli.approve import check_annotation, choose, decided_row, pending_row
from fairlead.cli.durations import Duration
from fairlead.cli.exits import NotFound, run_exit_code
from fairlead.cli.rerun import base_name, build_rerun, declared_inputs, types_of, workflow_name
from fairlead.cli.run import typed_inputs
from fairlead.cli.wait import parse_aim
from fairlead.errors import Refused

META = {"name": "triage-x1", "namespace": "default", "uid": "u1", "generateName": "triage-"}


def approval(node: str, item: str = "", **more: Any) -> dict[str, Any]:
    asked = {"node": node, "item": item, "key": f"{node}/{item}", "state": "Pending", "runName": "triage-x1"}
    times = {"requestedAt": "2026-11-21T12:00:00Z", "deadline": "2026-11-22T12:00:00Z"}
    return {**asked, **times, "message": "Send this?", "approvers": [], **more}


@pytest.mark.parametrize(
    ("start", "meant"), [("failed", "Failed"), ("start", "Start"), ("Failed", "Failed"), ("draft", "draft")]
)
def test_build_rerun_says_from_where(start: str, meant: str) -> None:
    made = build_rerun({"metadata": META}, start=start, name="")
    assert made["spec"] == {"rerunOf": {"name": "triage-x1", "uid": "u1", "from": meant}}
    assert made["metadata"] == {"generateName": "triage-"}


def test_build_rerun_with_a_name() -> None:
    assert build_rerun({"metadata": META}, start="failed", name="again")["metadata"] == {"name": "again"}


def test_build_rerun_of_a_run_that_never_began_does_what_that_was_to_do() -> None:
    refused = [{"type": "Finished", "status": "True", "reason": "PendingTimeout"}]
    spec = {
        "workflowRef": {"name": "triage"},
        "inputs": {"tone": "kind"},
        "priority": 5,
        "suspend": False,
        "stop": False,
    }
    made = build_rerun({"metadata": META, "spec": spec, "status": {"conditions": refused}}, start="failed", name="")
    assert made["spec"] == {"workflowRef": {"name": "triage"}, "inputs": {"tone": "kind"}, "priority": 5}


NOW = [{"name": "count", "type": "string"}]
WORKFLOW = {"spec": {"inputs": NOW}, "status": {"revision": "r2"}}
REFUSED = {"conditions": [{"type": "Finished", "status": "True", "reason": "PendingTimeout"}]}


@pytest.mark.parametrize(
    ("workflow", "status", "latest", "declared"),
    [
        pytest.param(WORKFLOW, {"revision": "r2"}, False, NOW, id="unchanged"),
        pytest.param(WORKFLOW, {"revision": "r1"}, False, None, id="changed"),
        pytest.param(WORKFLOW, {"revision": "r1"}, True, NOW, id="changed-and-latest"),
        pytest.param(WORKFLOW, REFUSED, False, NOW, id="never-began"),
        pytest.param(None, {"revision": "r1"}, False, None, id="gone"),
    ],
)
def test_declared_inputs_are_those_of_the_workflow_that_is_run(
    workflow: dict[str, Any] | None, status: dict[str, Any], latest: bool, declared: Any
) -> None:
    earlier = {"metadata": META, "spec": {"workflowRef": {"name": "triage"}}, "status": status}
    assert declared_inputs(earlier, workflow, latest=latest) == declared


def test_declared_inputs_of_a_workflow_in_the_run_are_its_own() -> None:
    earlier = {"metadata": META, "spec": {"workflow": {"inputs": NOW}}, "status": {"revision": "r1"}}
    assert declared_inputs(earlier, None, latest=False) == NOW


def test_types_of_the_values_of_an_earlier_run() -> None:
    values = {"text": "5", "count": 5, "ratio": 0.5, "deep": False, "tags": [], "extra": {}, "nothing": None}
    declared = [{"name": "count", "type": "string"}, {"name": "nothing", "type": "array"}, {"name": "new"}]
    given = ["text=7", "count=7", "ratio=1", "deep=true", "tags=[1]", 'extra={"a": 1}', "nothing=[2]", "new=3"]
    assert typed_inputs(types_of(values, declared), given) == {
        "text": "7",
        "count": 7,
        "ratio": 1,
        "deep": True,
        "tags": [1],
        "extra": {"a": 1},
        "nothing": [2],
        "new": "3",
    }


def test_base_name_of_runs_that_people_named() -> None:
    assert base_name({"name": "nightly"}) == "nightly"
    assert base_name({"name": "nightly", "generateName": "triage-"}) == "nightly"


@pytest.mark.parametrize(
    ("spec", "status", "name"),
    [
        ({"workflowRef": {"name": "triage"}}, {}, "triage"),
        ({"rerunOf": {"name": "x"}}, {"workflow": "triage"}, "triage"),
        ({"rerunOf": {"name": "x"}, "workflow": {"nodes": []}}, {"workflow": "triage"}, ""),
        ({"rerunOf": {"name": "x"}}, {}, ""),
    ],
)
def test_workflow_name_of_runs_and_reruns(spec: dict[str, Any], status: dict[str, Any], name: str) -> None:
    assert workflow_name({"spec": spec, "status": status}) == name


@pytest.mark.parametrize(
    ("text", "aim"),
    [
        ("finished", ("Finished", "True")),
        ("approval", ("WaitingForApproval", "True")),
        ("condition=Succeeded", ("Succeeded", "True")),
        ("condition=Reconciling=False", ("Reconciling", "False")),
    ],
)
def test_parse_aim_of_what_can_be_waited_for(text: str, aim: tuple[str, str]) -> None:
    assert parse_aim(text) == aim


@pytest.mark.parametrize("text", ["done", "condition", "condition=", "state=Finished"])
def test_parse_aim_of_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError, match="finished, approval or condition="):
        parse_aim(text)


def test_duration_of_a_timeout() -> None:
    assert Duration().convert("1h30m", None, None) == 5400


def test_choose_the_only_thing_that_waits() -> None:
    only = approval("ship")
    assert choose([only], run="r", node="", item=None, everything=False) == [only]


def test_choose_among_several_needs_a_name() -> None:
    waiting = [approval("ship", "0"), approval("ship", "1"), approval("bill")]
    with pytest.raises(Refused, match=r"ship\[0\], ship\[1\], bill"):
        choose(waiting, run="r", node="", item=None, everything=False)
    assert choose(waiting, run="r", node="bill", item=None, everything=False) == waiting[2:]
    assert choose(waiting, run="r", node="ship", item="1", everything=False) == waiting[1:2]
    assert choose(waiting, run="r", node="ship[1]", item=None, everything=False) == waiting[1:2]
    assert choose(waiting, run="r", node="ship", item=None, everything=True) == waiting[:2]


def test_choose_what_does_not_wait_says_what_does() -> None:
    with pytest.raises(NotFound, match="r does not wait for a decision of ship; it waits for bill"):
        choose([approval("bill")], run="r", node="ship", item=None, everything=False)
    with pytest.raises(NotFound, match=r"r does not wait for a decision$"):
        choose([], run="r", node="", item=None, everything=False)


def test_choose_what_was_decided_leaves_it_to_the_gateway_to_say_by_whom() -> None:
    first = approval("ship", state="Rejected", requestedAt="2026-11-21T11:00:00Z")
    second = approval("ship", state="Approved")
    asked = [first, second, approval("bill")]
    assert choose(asked, run="r", node="ship", item=None, everything=False) == [second]
    again = approval("ship")
    assert choose([*asked, again], run="r", node="ship", item=None, everything=False) == [again]


def test_choose_the_item_with_the_empty_name() -> None:
    waiting = [approval("ship", '""'), approval("ship", "a")]
    assert choose(waiting, run="r", node="ship", item="", everything=False) == waiting[:1]


def test_check_annotation_of_what_it_cannot_decide_is_refused() -> None:
    with pytest.raises(Refused, match="ship may be decided by ann, ops only"):
        check_annotation([approval("ship", approvers=["ann", "ops"])])
    with pytest.raises(Refused, match="ship waits for no decision: it is Approved"):
        check_annotation([approval("ship", state="Approved")])


def test_check_annotation_of_several_things_is_refused() -> None:
    check_annotation([approval("ship")])
    with pytest.raises(Refused, match="one of ship, bill"):
        check_annotation([approval("ship"), approval("bill")])


def test_pending_row_says_since_when_and_until_when() -> None:
    now = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    row = pending_row(approval("ship", "3", approvers=["ops", "ann"]), now)
    assert row == ["triage-x1", "ship[3]", "Pending", "30m0s ago", "23h30m", "ops,ann", "Send this?"]


def test_decided_row_says_who_and_whether_that_was_proven() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    proven = approval("ship", state="Approved", decidedBy="ann", comment="fine", verified=True, via="api")
    claimed = approval("ship", state="Rejected", decidedBy="", verified=False, via="annotation")
    late = approval("ship", state="Rejected", decidedBy="", via="timeout")
    assert decided_row(proven, now)[2:5] == ["Approved", "ann", "fine"]
    assert decided_row(claimed, now)[2:4] == ["Rejected", "annotation (not verified)"]
    assert decided_row(late, now)[2:4] == ["Rejected", "timeout"]


@pytest.mark.parametrize(
    ("reason", "code"),
    [("NodeFailed", 1), ("Timeout", 1), ("Stopped", 5), ("BudgetExceeded", 5), ("ApprovalRejected", 5)],
)
def test_run_exit_code_tells_a_failure_from_a_decision(reason: str, code: int) -> None:
    assert run_exit_code(reason, succeeded=False) == code
