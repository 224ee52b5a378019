"""An agent that someone else runs, for tests: a real A2A server of the SDK, with faults on demand.

Its address is ``<url>/<mode>``: ``ok``, ``polled`` (no streaming), ``old`` (protocol 0.3), or a way in which it is
broken. What it answers is decided by the first word of what it is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn
from a2a.helpers.proto_helpers import new_data_part, new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fairlead.a2a.answers import COST_KEY

TOKEN: Final = "canary-remote-agent-token"  # noqa: S105 - what tests look for where it must not be
_CARD: Final = "/.well-known/agent-card.json"
_START_SECONDS: Final = 30.0


@dataclass
class RemoteAgent:
    """What the server saw, and how it behaves."""

    url: str
    broken: bool = False
    """While set, every card is answered with 503."""
    token: str = ""
    """While set, whoever does not show it gets a 401."""
    messages: list[str] = field(default_factory=list)
    """The ids of the messages that it got."""
    prompts: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    """The tasks that it was told to cancel."""
    cards: int = 0
    """How often its card was read."""
    tokens: set[str] = field(default_factory=set)
    """The ``Authorization`` headers that it was shown."""


class _Player(AgentExecutor):
    def __init__(self, agent: RemoteAgent) -> None:
        self._agent = agent

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None  # noqa: S101 - the SDK gives one
        prompt = context.get_user_input()
        self._agent.messages.append(context.message.message_id)
        self._agent.prompts.append(prompt)
        word = prompt.split(maxsplit=1)[0] if prompt.strip() else ""
        if word == "say":
            await event_queue.enqueue_event(new_text_message(prompt.removeprefix("say ")))
            return
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        await self._play(word, prompt, TaskUpdater(event_queue, task.id, task.context_id))

    async def _play(self, word: str, prompt: str, task: TaskUpdater) -> None:
        await task.start_work()
        match word:
            case "fail":
                await task.failed(task.new_agent_message([new_text_part("the disk is full")]))
            case "reject":
                await task.reject(task.new_agent_message([new_text_part("not my job")]))
            case "ask":
                await task.requires_input(task.new_agent_message([new_text_part("which city?")]))
            case "wait":
                await asyncio.sleep(60)
            case "flood":
                for number in range(100):
                    await task.add_artifact([new_text_part("x" * (1 << 20))], artifact_id=f"a{number}")
            case "data":
                await task.add_artifact([new_data_part({"kind": "bug", "count": 3})])
                await task.complete()
            case "pay":
                await task.add_artifact([new_text_part("done")], metadata={COST_KEY: "0.25"})
                await task.complete()
            case "pieces":
                await task.add_artifact([new_text_part("one ")], artifact_id="a")
                await task.add_artifact([new_text_part("two")], artifact_id="a", append=True, last_chunk=True)
                await task.complete()
            case _:
                await task.add_artifact([new_text_part(f"heard: {prompt}")])
                await task.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self._agent.cancelled.append(str(context.task_id))
        await TaskUpdater(event_queue, str(context.task_id), str(context.context_id)).cancel()


def _card(url: str, mode: str) -> AgentCard:
    elsewhere = "http://127.0.0.1:9/elsewhere" if mode == "elsewhere" else f"{url}/{mode}"
    return AgentCard(
        name="Weather",
        description="Knows the weather.",
        version="1.2",
        supported_interfaces=[
            AgentInterface(
                url=elsewhere,
                protocol_binding="GRPC" if mode == "grpc" else "JSONRPC",
                protocol_version="0.3" if mode == "old" else "1.0",
            )
        ],
        capabilities=AgentCapabilities(streaming=mode != "polled"),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="forecast", name="forecast", description="Forecasts.", tags=["weather"])],
    )


class _Modes:
    """Sends each request to the application of its mode, and breaks what is to be broken."""

    def __init__(self, agent: RemoteAgent) -> None:
        self._agent = agent
        self._apps: dict[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        _, mode, rest = f"{scope['path']}/".split("/", 2)
        await self._answer(mode, f"/{rest.rstrip('/')}", scope)(scope, receive, send)

    def _answer(self, mode: str, path: str, scope: Scope) -> ASGIApp:
        shown = dict(scope["headers"]).get(b"authorization", b"").decode()
        self._agent.tokens.add(shown)
        is_card = path == _CARD
        self._agent.cards += is_card
        if self._agent.token and shown != f"Bearer {self._agent.token}":
            return PlainTextResponse("who are you?", 401)
        if is_card and (self._agent.broken or mode in _BAD_CARDS):
            return PlainTextResponse("busy", 503) if self._agent.broken else _BAD_CARDS[mode]
        if not is_card and mode in _BAD_CALLS:
            return _BAD_CALLS[mode]
        return self._app(mode)

    def _app(self, mode: str) -> ASGIApp:
        if mode not in self._apps:
            card = _card(self._agent.url, mode)
            handler = DefaultRequestHandler(_Player(self._agent), InMemoryTaskStore(), card)
            routes = [
                *create_agent_card_routes(card, card_url=f"/{mode}{_CARD}"),
                *create_jsonrpc_routes(handler, f"/{mode}", enable_v0_3_compat=True),
            ]
            self._apps[mode] = Starlette(routes=routes)
        return self._apps[mode]


class _Endless(Response):
    """An answer that has no end: `text` again and again."""

    def __init__(self, media_type: str, text: bytes) -> None:
        super().__init__(media_type=media_type)
        self._text = text

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        head = [(b"content-type", str(self.media_type).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "http.response.body", "body": self._text, "more_body": True})
                await asyncio.sleep(0)


class _Silent:
    """No answer at all, or the connection ends in the middle of one."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(self._seconds)
        head = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        raise ConnectionResetError


_BAD_CARDS: Final[dict[str, ASGIApp]] = {
    "missing": PlainTextResponse("not here", 404),
    "html": Response("<html>Welcome</html>", media_type="text/html"),
    "list": Response("[1]", media_type="application/json"),
    "nameless": Response("{}", media_type="application/json"),
    "deep": Response('{"name":' + "[" * 5000, media_type="application/json"),
    "huge": _Endless("application/json", b" " * 65_536),
    "reset": _Silent(seconds=0),
    "mute": _Silent(seconds=60),
}
_BAD_CALLS: Final[dict[str, ASGIApp]] = {
    "error500": PlainTextResponse("oops", 500),
    "error403": PlainTextResponse("no", 403),
    "babble": Response("<html>", media_type="text/html"),
    "wrong": Response('{"jsonrpc":"2.0","id":1,"result":[1]}', media_type="application/json"),
    "cut": _Silent(seconds=0),
    "endless": _Endless("text/event-stream", b": %s\n\n" % (b"still here " * 5000)),
    "moved": Response(status_code=307, headers={"location": "http://127.0.0.1:9/"}),
}


@contextlib.contextmanager
def running_remote_agent() -> Iterator[RemoteAgent]:
    """Serve on a free port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    agent = RemoteAgent(f"http://127.0.0.1:{listener.getsockname()[1]}")
    config = uvicorn.Config(_Modes(agent), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="remote agent", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield agent
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(_START_SECONDS)
        listener.close()


def describe(agent: RemoteAgent, mode: str = "ok", **external: Any) -> dict[str, Any]:
    """Return ``spec.external`` for the agent."""
    return {"url": f"{agent.url}/{mode}", **external}
