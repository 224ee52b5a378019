"""How Agents are shown as cards, and what the gateway says of errors to those who speak A2A."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from a2a.client.card_resolver import parse_agent_card
from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import Message, Part, Role, SendMessageRequest, SubscribeToTaskRequest
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InternalError,
    InvalidParamsError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from fairlead.errors import InvalidObject, Unavailable
from fairlead.gateway.a2a.handler import MOST_WAITING, Caller, Handler, to_a2a
from fairlead.gateway.a2a.showing import to_card, to_message
from fairlead.services.messages import Conversation, State


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


class Working:
    """Tasks that never end."""

    def __init__(self) -> None:
        self.followed = 0

    async def send(self, namespace: str, agent: str, message: Any, *, by: str) -> Conversation:
        del message, by
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return Conversation("a2a-1", "u", namespace, agent, "c", "m", "?", State.WORKING, at)

    async def find(self, namespace: str, agent: str, task: str) -> Conversation:
        return await self.send(namespace, agent, task, by="")

    async def follow(self, task: Conversation, **_checks: Any) -> AsyncGenerator[Conversation]:
        self.followed += 1
        yield task
        await asyncio.Event().wait()


def asked_by(namespace: str) -> ServerCallContext:
    async def check() -> None:
        pass

    return ServerCallContext(state={"fairlead": Caller(namespace, "weather", "somebody", check)})


async def test_handler_lets_so_many_wait_in_a_namespace_and_tells_the_others_how_it_is() -> None:
    handler = Handler(Working())  # type: ignore[arg-type] - only what is asked of it
    said = SendMessageRequest(message=Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text="Rain?")]))
    subscribe = SubscribeToTaskRequest(id="a2a-1")
    async with AsyncExitStack() as waiting:
        for _ in range(MOST_WAITING):
            events = await waiting.enter_async_context(aclosing(handler.on_subscribe_to_task(subscribe, asked_by("n"))))
            await anext(events)
            waiting.push_async_callback(cancel, asyncio.ensure_future(anext(events)))
        await asyncio.sleep(0)
        more = handler.on_subscribe_to_task(subscribe, asked_by("n"))
        await anext(more)
        with pytest.raises(InternalError, match="200 requests wait for tasks in namespace n already: ask again later"):
            await anext(more)
        task = await handler.on_message_send(said, asked_by("n"))
        assert task.id == "a2a-1"
        elsewhere = asyncio.ensure_future(handler.on_message_send(said, asked_by("other")))
        waiting.push_async_callback(cancel, elsewhere)
        assert await asyncio.wait([elsewhere], timeout=0) == (set(), {elsewhere})
    room = handler.on_subscribe_to_task(subscribe, asked_by("n"))
    await anext(room)
    again = asyncio.ensure_future(anext(room))
    await asyncio.sleep(0)
    assert not again.done()
    await cancel(again)


async def cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
