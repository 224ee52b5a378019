from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from fairlead.cli.durations import Duration
from fairlead.cli.run import checked_inputs, run_of, run_of_file, typed_inputs
from fairlead.errors import InvalidObject

DECLARED = [
    {"name": "message", "type": "string", "required": True},
    {"name": "count", "type": "integer"},
    {"name": "ratio", "type": "number"},
    {"name": "deep", "type": "boolean"},
    {"name": "tags", "type": "array"},
    {"name": "extra", "type": "object"},
]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("message=42", "42"),
        ("message=a=b", "a=b"),
        ("message=", ""),
        ("count=42", 42),
        ("ratio=0.5", 0.5),
        ("deep=true", True),
        ('tags=["a", "b"]', ["a", "b"]),
        ('extra={"k": 1}', {"k": 1}),
        ("undeclared=42", "42"),
    ],
)
def test_typed_inputs_reads_each_as_its_declared_type(given: str, value: Any) -> None:
    assert typed_inputs(DECLARED, [given]) == {given.partition("=")[0]: value}


def test_typed_inputs_of_a_wrong_type_names_input_and_type() -> None:
    with pytest.raises(InvalidObject, match=r'input "count" must be of type integer.*not "many"'):
        typed_inputs(DECLARED, ["count=many"])


def test_typed_inputs_without_equals_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="name=value"):
        typed_inputs(DECLARED, ["count"])


def test_checked_inputs_lists_everything_that_is_wrong() -> None:
    with pytest.raises(InvalidObject) as caught:
        checked_inputs(DECLARED, {"cuont": 1, "deep": "yes"})
    text = str(caught.value)
    assert 'unknown input "cuont"' in text
    assert "count" in text
    assert '"message" is required' in text
    assert '"deep" must be of type boolean' in text


def test_run_of_names_the_workflow_or_holds_it() -> None:
    workflow = {"metadata": {"name": "triage"}, "spec": {"nodes": []}}
    assert run_of(workflow, inline=False)["spec"] == {"workflowRef": {"name": "triage"}}
    inline = run_of(workflow, inline=True)
    assert inline["spec"] == {"workflow": {"nodes": []}}
    assert inline["metadata"] == {"generateName": "triage-"}


def test_run_of_file_takes_one_workflow(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    head = "apiVersion: fairlead.dev/v1alpha1\nkind: Workflow\nmetadata: {name: w}\n"
    file.write_text(head + "spec: {inputs: [{name: a, type: string}], nodes: [{name: one, tool: {name: sql}}]}\n")
    wanted, declared = run_of_file(str(file))
    assert [node["name"] for node in wanted["spec"]["workflow"]["nodes"]] == ["one"]
    assert declared == [{"name": "a", "type": "string"}]
    file.write_text(file.read_text() + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
    with pytest.raises(InvalidObject, match=r"holds Workflow, ConfigMap; .* apply -f"):
        run_of_file(str(file))


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200)])
def test_duration_reads_what_people_write(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "1m1h"])
def test_duration_of_nonsense_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError, match="90s, 10m or 1h30m"):
        Duration().convert(text, None, None)
