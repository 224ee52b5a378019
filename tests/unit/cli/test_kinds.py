from __future__ import annotations

from typing import Any

import pytest

from fairlead.cli.exits import NotFound
from fairlead.cli.kinds import choose, parse_kinds
from fairlead.errors import Refused


def run(name: str, created: str, succeeded: str = "Unknown") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "status": {"conditions": [{"type": "Succeeded", "status": succeeded}]},
    }


RUNS = [
    run("triage-b", "2026-11-21T12:00:02Z", "False"),
    run("triage-a", "2026-11-21T12:00:03Z", "True"),
    run("report-1", "2026-11-21T12:00:01Z", "False"),
]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("@latest", "triage-a", id="latest"),
        pytest.param("@latest-failed", "triage-b", id="latest-failed"),
        pytest.param("report-1", "report-1", id="whole-name"),
        pytest.param("rep", "report-1", id="unique-beginning"),
        pytest.param("workflowrun.fairlead.dev/triage-b", "triage-b", id="as-kubectl-prints-it"),
    ],
)
def test_choose_finds_what_is_meant(text: str, name: str) -> None:
    assert choose(RUNS, text, what="run", where="default")["metadata"]["name"] == name


def test_choose_prefers_a_whole_name_to_a_beginning() -> None:
    runs = [*RUNS, run("rep", "2026-11-21T12:00:00Z")]
    assert choose(runs, "rep", what="run", where="default")["metadata"]["name"] == "rep"


def test_choose_of_several_lists_them() -> None:
    with pytest.raises(Refused, match='"triage" could be triage-b, triage-a'):
        choose(RUNS, "triage", what="run", where="default")


def test_choose_of_none_suggests_one() -> None:
    with pytest.raises(NotFound, match='there is no run "reprt-1" in namespace default; did you mean "report-1"'):
        choose(RUNS, "reprt-1", what="run", where="default")
    with pytest.raises(NotFound, match="no run in namespace default"):
        choose([], "@latest", what="run", where="default")


@pytest.mark.parametrize("text", ["", "workflowrun/"])
def test_choose_of_an_empty_name_is_none_even_where_there_is_only_one(text: str) -> None:
    with pytest.raises(NotFound, match="names no run: write its name, the beginning of it, or @latest"):
        choose(RUNS[:1], text, what="run", where="default")


def test_parse_kinds_knows_every_word_for_a_kind() -> None:
    resources = [
        {
            "name": "workflowruns",
            "singularName": "workflowrun",
            "kind": "WorkflowRun",
            "namespaced": True,
            "shortNames": ["run"],
        },
        {"name": "workflowruns/status", "kind": "WorkflowRun", "namespaced": True},
    ]
    (kind,) = parse_kinds("fairlead.dev/v1alpha1", {"resources": resources})
    assert {"run", "runs", "workflowrun", "workflowruns", "workflowruns.fairlead.dev"} <= kind.words
    assert kind.path("default", "a") == "/apis/fairlead.dev/v1alpha1/namespaces/default/workflowruns/a"
    assert kind.title("a") == "workflowrun.fairlead.dev/a"
