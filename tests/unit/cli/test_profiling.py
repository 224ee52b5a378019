from __future__ import annotations

from typing import Any

from fairlead.cli.profiling import run_lines, workflow_lines


def segment(node: str, spent: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {"node": node, "item": "", "iteration": 1, "spent": spent, "seconds": seconds, **more}


def test_run_lines_show_shares_path_and_the_slowest_node() -> None:
    node = {"executions": 1, "tries": 2, "calls": 3, "tokens": 1234, "cost": "0.5", "reused": False}
    shown = {
        "run": "triage-x1",
        "state": "Succeeded",
        "seconds": 10.0,
        "shares": {"model": {"share": 0.75}, "queue": {"share": 0.25}, "people": {"share": 0.0}},
        "criticalPath": [
            segment("", "queue", 2.5),
            segment("draft", "model", 5.0),
            segment("draft", "overhead", 1.0),
            segment("draft", "model", 1.5, iteration=2),
        ],
        "nodes": [
            {"node": "fast", "seconds": 1.0, "onPathSeconds": 0.0, **node, "cost": None},
            {"node": "draft", "seconds": 7.5, "onPathSeconds": 7.5, **node},
        ],
        "slowestNode": "draft",
    }
    lines = list(run_lines(shown))
    assert lines[0] == "triage-x1: 10.0s, Succeeded"
    assert any(line.startswith("  models") and "75%" in line for line in lines)
    assert not any("people" in line for line in lines)
    assert "     6.0s  draft: models 5.0s, Fairlead itself 1.0s" in lines
    assert "     1.5s  draft #2: models 1.5s" in lines
    assert [line.split()[0] for line in lines if "1,234" in line] == ["draft", "fast"]
    assert any("n/a" in line for line in lines)
    assert lines[-1] == "the run waited longest for draft"


def test_run_lines_fold_long_paths() -> None:
    path = [segment(f"n{number}", "model", 1.0) for number in range(100)]
    shown = {"run": "r", "state": "Failed", "seconds": 100.0, "shares": {}, "criticalPath": path, "nodes": []}
    lines = list(run_lines({**shown, "slowestNode": ""}))
    assert "     1m0s  in 60 more steps; all of them with -o json" in lines


def test_run_lines_show_items_as_one_step_and_no_blinks() -> None:
    path = [
        segment("a", "model", 1.0, item="0"),
        segment("a", "overhead", 0.0001),
        segment("a", "model", 2.0, item="7"),
        segment("", "overhead", 0.0002),
        segment("b[3]/c", "tool", 3.0),
    ]
    shown = {"run": "r", "state": "Failed", "seconds": 6.0, "shares": {}, "criticalPath": path, "nodes": []}
    lines = list(run_lines({**shown, "slowestNode": ""}))
    assert "     3.0s  a (2 items one after the other): models 3.0s" in lines
    assert "     3.0s  b/c: tools 3.0s" in lines
    assert any(line.endswith("in 1 more steps; all of them with -o json") for line in lines)


def test_workflow_lines_show_spreads_and_failures() -> None:
    spread = {"p50": 1.0, "p95": 2.0}
    node = {"node": "draft", "runs": 4, "seconds": spread, "share": 0.5, "failures": 1, "tokens": spread}
    shown = {
        "workflow": "triage",
        "runs": 4,
        "failures": {"Timeout": 1, "NodeFailed": 2},
        "seconds": spread,
        "shares": {"model": 1.0},
        "cost": {"p50": None, "p95": None},
        "nodes": [{**node, "cost": {"p50": "0.1", "p95": "0.2"}}],
        "slowestNode": "draft",
    }
    text = "\n".join(workflow_lines(shown))
    assert "triage: 4 runs, p50 1.0s, p95 2.0s" in text
    assert "failed: 2 NodeFailed, 1 Timeout" in text
    assert "cost of a run: p50 n/a, p95 n/a" in text
    assert "$0.1" in text
    assert text.endswith("runs wait longest for draft")
