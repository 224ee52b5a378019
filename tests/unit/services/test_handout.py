from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead.services.handout import definitions

DOCUMENT: dict[str, Any] = {
    "workflow": {"name": "w", "spec": {"model": "usual", "nodes": []}},
    "models": {"usual": {"model": "openai/a", "apiKey": {"a": 1}, "retries": 2}, "other": {"model": "openai/b"}},
    "agents": {"engineer": {"instructions": "Be brief.", "tools": ["find"], "scale": {"min": 1}}},
    "tools": {"find": {"builtin": {"name": "json_query"}, "requireApproval": False}},
}


def changed(*path: str, value: Any) -> dict[str, str]:
    document = copy.deepcopy(DOCUMENT)
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return definitions(document)


@pytest.mark.parametrize(
    "path",
    [
        ("models", "usual", "apiKey"),
        ("models", "usual", "retries"),
        ("models", "usual", "price"),
        ("models", "usual", "fallbacks"),
        ("agents", "engineer", "scale"),
        ("agents", "engineer", "budget"),
        ("agents", "engineer", "description"),
        ("tools", "find", "requireApproval"),
    ],
)
def test_definitions_of_what_changes_no_answer_stay(path: tuple[str, ...]) -> None:
    assert changed(*path, value={"new": 1}) == definitions(DOCUMENT)


@pytest.mark.parametrize(
    ("path", "value", "differ"),
    [
        (("models", "usual", "model"), "openai/c", {"model:usual", "agent:engineer"}),
        (("models", "usual", "parameters"), {"temperature": 1}, {"model:usual", "agent:engineer"}),
        (("models", "other", "model"), "openai/c", {"model:other"}),
        (("agents", "engineer", "instructions"), "Be long.", {"agent:engineer"}),
        (("agents", "engineer", "model"), "other", {"agent:engineer"}),
        (("tools", "find", "builtin"), {"name": "sql"}, {"tool:find", "agent:engineer"}),
    ],
)
def test_definitions_of_what_changes_the_answer_differ(path: tuple[str, ...], value: Any, differ: set[str]) -> None:
    before, after = definitions(DOCUMENT), changed(*path, value=value)
    assert {name for name in before if before[name] != after[name]} == differ


def test_definitions_of_an_agent_differ_when_a_nested_workflow_asks_another_model() -> None:
    before = changed("workflows", value={"part": {"model": "usual", "nodes": []}})
    after = changed("workflows", value={"part": {"model": "other", "nodes": []}})
    assert {name for name in before if before[name] != after[name]} == {"agent:engineer"}


def test_definitions_of_an_agent_with_a_model_stay_when_a_workflow_asks_another() -> None:
    agents = {"engineer": {"model": "usual"}}
    one, two = ({**DOCUMENT, "agents": agents, "workflow": {"spec": {"model": name}}} for name in ("usual", "other"))
    assert definitions(one) == definitions(two)
