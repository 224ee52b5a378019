from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import pytest

from fairlead.cli.follow import exit_code, summary, title_of
from fairlead.cli.progress import NodeLine, node_lines, plan_depths
from fairlead.cli.views import Lines, Tree, cut, fitted
from fairlead.testing.clock import FakeClock

SPEC = {
    "nodes": [
        {"name": "join", "needs": ["a", "b"]},
        {"name": "load"},
        {"name": "a", "needs": ["load"]},
        {"name": "b", "needs": ["load"]},
    ]
}


def record(node: str, state: str, **more: Any) -> dict[str, Any]:
    return {"node": node, "item": "", "state": state, "tries": 1, "startedAt": None, "finishedAt": None, **more}


def test_plan_depths_are_the_longest_paths() -> None:
    assert plan_depths(SPEC) == {"join": 2, "load": 0, "a": 1, "b": 1}


def test_plan_depths_of_a_cycle_end() -> None:
    assert set(plan_depths({"nodes": [{"name": "a", "needs": ["b"]}, {"name": "b", "needs": ["a"]}]})) == {"a", "b"}


def test_node_lines_show_the_whole_plan_and_count_items() -> None:
    records = [
        record("load", "Succeeded", startedAt="2026-11-21T12:00:00Z", finishedAt="2026-11-21T12:00:03.4Z"),
        record("a", "Running"),
        record("a", "Succeeded", item="0"),
        record("a", "Failed", item="1"),
        record("a", "Running", item="2"),
        record("b", "Skipped", reason="WhenFalse"),
    ]
    lines = node_lines(plan_depths(SPEC), records)
    assert [(line.state, line.text()) for line in lines] == [
        ("Succeeded", "load  3.4s"),
        ("Running", "a 2 done, 1 at work"),
        ("Skipped", "b  WhenFalse"),
        ("Pending", "join"),
    ]


def test_node_lines_say_why_a_node_failed() -> None:
    failed = record("load", "Failed", tries=3, reason="OutputInvalid", message="no JSON\nin the answer")
    (line, *_) = node_lines(plan_depths(SPEC), [failed])
    assert line.text() == "load  3 tries  OutputInvalid: no JSON in the answer"


def test_lines_prints_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = Lines(FakeClock())
    running, done = NodeLine("a", 0, "Running"), NodeLine("a", 0, "Succeeded", "1.0s")
    for line in (NodeLine("a", 0, "Pending"), running, running, done, done):
        view.show("run", [line])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [text.split(maxsplit=1)[1] for text in printed.err.splitlines()] == ["Running    a", "Succeeded  a  1.0s"]


def test_plan_depths_hold_the_nodes_of_inner_workflows_below_theirs() -> None:
    outer = {"nodes": [{"name": "a"}, {"name": "sub", "needs": ["a"], "workflow": {"name": "inner"}}]}
    inner = {"nodes": [{"name": "y", "needs": ["x"]}, {"name": "x"}]}
    assert list(plan_depths(outer, {"inner": inner}).items()) == [("a", 0), ("sub", 1), ("sub/x", 2), ("sub/y", 3)]


def test_node_lines_sum_up_the_inner_workflows_of_a_for_each() -> None:
    plan = {"sub": 0, "sub/x": 1}
    records = [
        record("sub", "Running"),
        record("sub", "Running", item="0"),
        record("sub", "Running", item="1"),
        record("sub[0]/x", "Succeeded"),
        record("sub[1]/x", "Running"),
    ]
    assert [(line.state, line.text()) for line in node_lines(plan, records)] == [
        ("Running", "sub 0 done, 2 at work"),
        ("Running", "x 1 done, 1 at work"),
    ]


def test_node_lines_show_handlers_behind_the_nodes_of_their_workflow() -> None:
    plan = {"a": 0, "a/b": 1, "a/b/x": 2, "ab": 0}
    paths = ["@finally", "a/@onFailure", "a[1]/@finally", "a/b/@finally", "a/@finally/y"]
    lines = node_lines(plan, [record(path, "Succeeded") for path in paths])
    assert [(line.key, line.depth) for line in lines] == [
        ("a", 0),
        ("a/b", 1),
        ("a/b/x", 2),
        ("a/b/@finally", 2),
        ("a/@onFailure", 1),
        ("a/@finally", 1),
        ("a/@finally/y", 2),
        ("ab", 0),
        ("@finally", 0),
    ]


def test_node_lines_show_the_latest_round() -> None:
    first = record("draft", "Succeeded", iteration=1, startedAt="2026-11-21T12:00:00Z")
    second = record("draft", "Running", iteration=2, startedAt="2026-11-21T12:00:03Z")
    inner = [record("draft/x", "Succeeded"), record("draft#2.1/x", "Running", startedAt="2026-11-21T12:00:04Z")]
    now = datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC)
    lines = node_lines({"draft": 0}, [first, second, *inner], now=now)
    assert [(line.state, line.text(), line.depth) for line in lines] == [
        ("Running", "draft  2.0s  round 2", 0),
        ("Running", "x  1.0s", 1),
    ]


def test_node_lines_say_what_a_person_is_asked() -> None:
    asked = {"node": "ship", "message": "Send\nthis? \x1b[2J", "key": "k"}
    tool = {"node": "ask", "message": "", "tool": {"name": "http_request"}}
    lines = node_lines({}, [record("ship", "Running"), record("ask", "Running")], approvals=[asked, tool])
    assert [(line.state, line.text()) for line in lines] == [
        ("Waiting", "ship  approval: Send this? \\x1b[2J"),
        ("Waiting", "ask  approval: may http_request be used?"),
    ]


def test_node_lines_say_what_a_node_waits_for() -> None:
    waiting = [record("a", "Waiting", reason="Turn"), record("b", "Waiting", reason="Time")]
    assert [line.text() for line in node_lines({}, waiting)] == ["a  for its agent", "b  for its time"]


def test_node_lines_show_cost_and_what_was_reused() -> None:
    paid = record("a", "Succeeded", cost={"total": "0.0041"})
    unknown = record("b", "Succeeded", cost={"total": None})
    free = record("c", "Succeeded", cost={"total": "0"}, reused="uid")
    assert [line.text() for line in node_lines({}, [paid, unknown, free])] == ["a  $0.0041", "b  n/a", "c  reused"]


def test_lines_give_a_sign_of_life_while_something_runs(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    view = Lines(clock)
    for done in (0, 40, 80):
        view.show(
            "run  1/3",
            [NodeLine("all", 0, "Running", items=done + 8, items_done=done), NodeLine("all/x", 1, "Pending")],
        )
        clock.advance(5)
    printed = [text.split(maxsplit=1)[1] for text in capsys.readouterr().err.splitlines()]
    assert printed == [
        "Running    all 0 done, 8 at work",
        "…          all 40 done, 8 at work    run  1/3",
        "…          all 80 done, 8 at work    run  1/3",
    ]


def test_lines_are_quiet_while_a_person_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    view = Lines(clock)
    for _ in range(13):
        view.show("run", [NodeLine("ship", 0, "Waiting", "approval: Send?")])
        clock.advance(5)
    printed = [text.split(maxsplit=1)[1] for text in capsys.readouterr().err.splitlines()]
    assert printed == ["Waiting    ship  approval: Send?", "…          ship  approval: Send?    run"]


def test_lines_say_nothing_twice_in_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    view = Lines(clock)
    for _ in range(14):
        view.show('triage-1  ModelNotFound  Model "m" does not exist', [])
        clock.advance(5)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_tree_draws_over_what_it_drew_also_when_it_shrinks(capsys: pytest.CaptureFixture[str]) -> None:
    view = Tree()
    with click.Context(click.Command("fairlead")) as context:
        context.color = True  # what a terminal gets
        view.show("run", [NodeLine("a", 0, "Running"), NodeLine("b", 1, "Pending")])
        view.show("run", [NodeLine("a", 0, "Succeeded")])
        view.show("run", [NodeLine("a", 0, "Succeeded")])
    printed = capsys.readouterr().err
    assert printed.count("\x1b[3A") == 2
    assert click.unstyle(printed).splitlines()[-3:] == ["run", "  ✓ a", ""]


def test_fitted_keeps_what_goes_on_and_counts_the_rest() -> None:
    lines = [NodeLine(f"n{index}", 0, "Running" if index == 7 else "Pending") for index in range(10)]
    shown = fitted(lines, 4)
    assert [line.name for line in shown] == ["n0", "n1", "n7", "… and 7 more nodes"]
    assert fitted(lines, 10) == lines


def test_cut_never_breaks_a_colour() -> None:
    text = click.style("x" * 50, fg="red")
    assert cut(text, 100) == text
    assert cut(text, 20) == "x" * 19


def ended(status: str, reason: str, message: str = "") -> dict[str, Any]:
    condition = {"type": "Succeeded", "status": status, "reason": reason, "message": message}
    shown = {"conditions": [condition], "progress": "3/4", "duration": "12s", "cost": {"total": "0.0134"}}
    return {"metadata": {"name": "triage-1"}, "status": shown}


def test_summary_and_exit_code_of_runs_that_ended() -> None:
    good, bad = ended("True", "Succeeded"), ended("False", "NodeFailed", 'node "draft" failed: 401')
    assert summary(good) == "triage-1  Succeeded  3/4  12s  $0.0134"
    assert summary(bad).splitlines()[1] == '  node "draft" failed: 401'
    assert (exit_code(good), exit_code(bad), exit_code(ended("False", "Cancelled"))) == (0, 1, 5)


def test_summary_of_an_unknown_price_is_not_zero() -> None:
    run = ended("True", "Succeeded")
    run["status"]["cost"]["total"] = "n/a"
    assert "n/a" in summary(run)
    assert "$0" not in summary(run)


def test_summary_of_a_run_that_never_began_has_no_cost() -> None:
    run = ended("False", "PendingTimeout", 'Model "m" does not exist')
    run["status"] = {"conditions": run["status"]["conditions"]}
    assert summary(run) == 'triage-1  PendingTimeout\n  Model "m" does not exist'


def test_title_of_a_run_that_waits_says_for_what() -> None:
    run = {
        "metadata": {"name": "r"},
        "status": {
            "conditions": [
                {
                    "type": "Succeeded",
                    "status": "Unknown",
                    "reason": "Pending",
                    "message": 'Model "default" is not there yet',
                }
            ]
        },
    }
    assert title_of(run, {}) == 'r  Pending  Model "default" is not there yet'
