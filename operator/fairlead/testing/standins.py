"""Stand-ins for model providers: real HTTP servers that speak OpenAI's, Ollama's, Anthropic's and Gemini's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_START_SECONDS = 10.0
INPUT_TOKENS, OUTPUT_TOKENS = 11, 7
"""What every answer says that it used."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is answered instead."""

    status: int
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    """How long it takes to say so."""


@dataclass
class StandIn:
    """A provider that says what the test wants."""

    url: str = ""
    text: str = "hello from the provider"
    failures: deque[Failure] = field(default_factory=deque)
    """Given out first, one a request for an answer."""
    seen: list[Seen] = field(default_factory=list)

    @property
    def asked(self) -> list[Seen]:
        """The requests for an answer."""
        return [request for request in self.seen if request.path not in {"/api/show", "/api/tags"}]


@contextlib.contextmanager
def running_standin() -> Iterator[StandIn]:
    """Serve on a free port of this machine, in a thread."""
    standin = StandIn()
    config = uvicorn.Config(_app(standin), host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="stand-in", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    standin.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield standin
    finally:
        server.should_exit = True
        thread.join(_START_SECONDS)


def _app(standin: StandIn) -> Starlette:
    async def answer(request: Request) -> Response:
        raw = await request.body()
        body = orjson.loads(raw) if raw else {}
        standin.seen.append(Seen(request.url.path, dict(request.headers), body))
        if request.url.path == "/redirect":
            return Response(status_code=307, headers={"Location": "http://169.254.169.254/latest/meta-data/"})
        if request.url.path in {"/api/show", "/api/tags"}:
            return JSONResponse({"template": "", "model_info": {}, "models": []})
        if standin.failures:
            return await _fail(standin.failures.popleft())
        return JSONResponse(_reply(request.url.path, standin.text, str(body.get("model", ""))))

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


async def _fail(failure: Failure) -> Response:
    await asyncio.sleep(failure.seconds)
    error = {"error": {"message": failure.message, "type": "error", "code": failure.status}}
    return JSONResponse(error, failure.status, headers=failure.headers)


def _reply(path: str, text: str, model: str) -> dict[str, Any]:
    if path.endswith("/chat/completions"):
        return _openai(text, model)
    if path == "/api/chat":
        return _ollama(text, model)
    if path.endswith("/messages"):
        return _anthropic(text, model)
    return _gemini(text)


def _openai(text: str, model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": 18}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def _ollama(text: str, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "created_at": "2026-01-02T03:04:05Z",
        "message": {"role": "assistant", "content": text},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": INPUT_TOKENS,
        "eval_count": OUTPUT_TOKENS,
    }


def _anthropic(text: str, model: str) -> dict[str, Any]:
    return {
        "id": "m-1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }


def _gemini(text: str) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text}]}
    usage = {"promptTokenCount": INPUT_TOKENS, "candidatesTokenCount": OUTPUT_TOKENS, "totalTokenCount": 18}
    return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "usageMetadata": usage}
