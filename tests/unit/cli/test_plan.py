from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from fairlead.cli.main import run
from fairlead.cli.planning import choose
from fairlead.errors import InvalidObject

FLOW = """
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {name: triage}
spec:
  model: fast
  inputs: [{name: rows, type: array}]
  nodes:
    - {name: each, forEach: inputs.rows, llm: {prompt: "{{ item }}", parameters: {max_tokens: 10}}}
"""
MODEL = """
---
apiVersion: fairlead.dev/v1alpha1
kind: Model
metadata: {name: fast}
spec:
  model: openai/gpt-4.1-mini
  apiKey: {valueFrom: {secretKeyRef: {name: keys, key: openai}}}
  price: {inputPerMillionTokens: "1", outputPerMillionTokens: "2"}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "flow.yaml"
    path.write_text(FLOW + MODEL)
    return str(path)


def test_plan_of_a_file_without_a_cluster(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", file, "--offline", "-i", 'rows=["a","b"]', "-o", "json"]) == 0
    shown = orjson.loads(capsys.readouterr().out)
    assert shown["estimate"]["modelCalls"] == {"least": 2, "most": 2}
    assert shown["estimate"]["cost"]["most"] == "0.000042"
    assert {one["kind"]: one["there"] for one in shown["needs"]} == {"Model": True, "Secret": None}


def test_plan_says_that_no_cluster_was_found(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", file, "--home", str(tmp_path), "--kubeconfig", str(tmp_path / "none")]) == 0
    said = capsys.readouterr()
    assert "nothing was looked up in a cluster" in said.err
    assert "not looked up" in said.out


def test_plan_as_mermaid(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", file, "--offline", "-o", "mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD\n")


def test_plan_of_a_file_with_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(FLOW.replace("inputs.rows", "inputs.row"))
    assert run(["plan", str(path), "--offline"]) == 3
    assert "row" in capsys.readouterr().err


def test_plan_with_an_input_of_the_wrong_type(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", file, "--offline", "-i", "rows=3"]) == 3
    assert "InvalidInputs" in capsys.readouterr().out


def test_plan_of_a_workflow_that_is_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "nosuch", "--home", str(tmp_path), "--kubeconfig", str(tmp_path / "none")]) == 3
    assert 'no Workflow "nosuch"' in capsys.readouterr().err


def flow(name: str, runs: str = "") -> dict[str, Any]:
    nodes = [{"name": "a", "workflow": {"name": runs}}] if runs else [{"name": "a"}]
    return {"kind": "Workflow", "metadata": {"name": name}, "spec": {"nodes": nodes}}


def test_choose_takes_the_workflow_that_no_other_runs() -> None:
    assert choose([flow("inner"), flow("outer", "inner")], "").name == "outer"
    assert choose([flow("inner"), flow("outer", "inner")], "inner").name == "inner"


def test_choose_takes_the_run_with_its_inputs() -> None:
    made = {"kind": "WorkflowRun", "metadata": {}, "spec": {"workflowRef": {"name": "a"}, "inputs": {"x": 1}}}
    found = choose([flow("a"), flow("b"), made], "")
    assert (found.name, found.inputs, found.spec) == ("a", {"x": 1}, flow("a")["spec"])
    inline = {"kind": "WorkflowRun", "metadata": {}, "spec": {"workflow": {"nodes": []}}}
    assert choose([inline], "").spec == {"nodes": []}


def test_choose_asks_which_of_several() -> None:
    with pytest.raises(InvalidObject, match="choose one with --workflow"):
        choose([flow("a"), flow("b")], "")
    with pytest.raises(InvalidObject, match="no Workflow"):
        choose([], "")
