"""How Agents are shown as cards, and what the gateway says of errors to those who speak A2A."""

from __future__ import annotations

from typing import Any

import pytest
from a2a.client.card_resolver import parse_agent_card
from a2a.types.a2a_pb2 import Message, Part, Role
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InternalError,
    InvalidParamsError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from fairlead.errors import InvalidObject, Unavailable
from fairlead.gateway.a2a.handler import to_a2a
from fairlead.gateway.a2a.showing import to_card, to_message


def agent(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "weather", "namespace": "n", "generation": 4}, "spec": spec}


def test_to_card_is_what_the_sdk_reads() -> None:
    skill = {"name": "forecast", "description": "Tells.", "examples": ["Rain?"]}
    card = parse_agent_card(to_card(agent(description="Sky.", skills=[skill]), base="https://g"))
    assert (card.name, card.description, card.version) == ("weather", "Sky.", "4")
    assert [(one.url, one.protocol_version) for one in card.supported_interfaces] == [
        ("https://g/a2a/v1/n/weather", "1.0"),
        ("https://g/a2a/v1/n/weather", "0.3"),
    ]
    assert [(one.id, list(one.examples)) for one in card.skills] == [("forecast", ["Rain?"])]


def test_to_card_of_an_agent_that_names_no_skills_has_one() -> None:
    assert parse_agent_card(to_card(agent(), base="https://g")).skills[0].id == "ask"


def test_to_message_joins_texts_and_data() -> None:
    part = Part()
    part.data.string_value = "x"
    said = Message(message_id="m", context_id="c", role=Role.ROLE_USER, parts=[Part(text="a"), part])
    assert (to_message(said).prompt, to_message(said).context) == ('a\n"x"', "c")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (Message(role=Role.ROLE_USER, parts=[Part(url="https://x")]), ContentTypeNotSupportedError),
        (Message(role=Role.ROLE_AGENT, parts=[Part(text="a")]), InvalidParamsError),
        (Message(role=Role.ROLE_USER, task_id="t", parts=[Part(text="a")]), UnsupportedOperationError),
    ],
)
def test_to_message_refuses_what_is_not_taken(said: Message, error: type[A2AError]) -> None:
    with pytest.raises(error):
        to_message(said)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (TaskNotFoundError(), TaskNotFoundError, "Task not found"),
        (InvalidObject("too long", field="x"), InvalidParamsError, "too long"),
        (Unavailable("no answer", retry_after=1), InternalError, "Unavailable: no answer"),
        (KeyError("password"), InternalError, "the gateway failed; its log says more"),
    ],
)
def test_to_a2a_tells_strangers_nothing_of_a_bug(error: Exception, kind: type[A2AError], words: str) -> None:
    told = to_a2a(error)
    assert (type(told), told.message) == (kind, words)
