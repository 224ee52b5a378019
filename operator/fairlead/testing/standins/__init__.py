"""Stand-ins for model providers: real HTTP servers that speak OpenAI's, Ollama's, Anthropic's and Gemini's protocol."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fairlead.testing.standins.faults import Connections, Failure, Fault, broken, fail
from fairlead.testing.standins.wire import Answer, ToolCall, wants_stream, wire_of

__all__ = [
    "INPUT_TOKENS",
    "OUTPUT_TOKENS",
    "Answer",
    "Failure",
    "Fault",
    "Seen",
    "StandIn",
    "ToolCall",
    "running_standin",
]

_START_SECONDS = 10.0
INPUT_TOKENS, OUTPUT_TOKENS = Answer().input_tokens, Answer().output_tokens
"""What every answer says that it used, unless the test says otherwise."""
_ASIDE = frozenset({"/api/show", "/api/tags"})


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def model(self) -> str:
        """The model that is asked."""
        return str(self.body.get("model") or self.path.rpartition("/")[2].partition(":")[0])


@dataclass
class StandIn:
    """A provider that says what the test wants."""

    url: str = ""
    text: str = "hello from the provider"
    answers: deque[Answer] = field(default_factory=deque)
    """Given out first, one a request; then *text*."""
    respond: Callable[[Seen], Answer | Failure] | None = None
    """Makes the answer to each request, once *answers* are used up."""
    failures: deque[Failure | Fault] = field(default_factory=deque)
    """Come before all answers, one a request."""
    seen: list[Seen] = field(default_factory=list)
    told: list[tuple[str, Answer]] = field(default_factory=list)
    """The answers that were given in full, each after the name of the model."""

    @property
    def asked(self) -> list[Seen]:
        """The requests for an answer."""
        return [request for request in self.seen if request.path not in _ASIDE]

    def forget(self) -> None:
        """Be as new, for the next test."""
        fresh = StandIn(self.url)
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(fresh, name))

    def base_url(self, model: str) -> str:
        """Return what a Model's `baseURL` has to be, for a LiteLLM model."""
        return self.url + {"openai": "/v1", "gemini": "/v1beta"}.get(model.partition("/")[0], "")

    def answer(self, seen: Seen) -> Answer | Failure:
        """Return the next answer, and remember it."""
        if self.answers:
            answer: Answer | Failure = self.answers.popleft()
        else:
            answer = Answer(self.text) if self.respond is None else self.respond(seen)
        if isinstance(answer, Answer):
            self.told.append((seen.model, answer))
        return answer


@contextlib.contextmanager
def running_standin() -> Iterator[StandIn]:
    """Serve on a free port of this machine, in a thread."""
    standin = StandIn()
    connections = Connections()
    config = uvicorn.Config(
        _app(standin, connections),
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="off",
        ws="none",
        http=connections.protocol(),
        timeout_graceful_shutdown=1,
    )
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


def _app(standin: StandIn, connections: Connections) -> Starlette:
    async def answer(request: Request) -> Response:
        raw = await request.body()
        seen = Seen(request.url.path, dict(request.headers), orjson.loads(raw) if raw else {})
        standin.seen.append(seen)
        if seen.path == "/redirect":
            return Response(status_code=307, headers={"Location": "http://169.254.169.254/latest/meta-data/"})
        if seen.path in _ASIDE:
            return JSONResponse({"template": "", "model_info": {}, "models": [], "capabilities": ["tools"]})
        fault = standin.failures.popleft() if standin.failures else None
        if isinstance(fault, Failure):
            return await fail(fault)
        if fault is not None:
            return broken(fault, request, connections, model=seen.model)
        answer = standin.answer(seen)
        return _reply(seen, answer) if isinstance(answer, Answer) else await fail(answer)

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


def _reply(seen: Seen, answer: Answer) -> Response:
    wire = wire_of(seen.path)
    if not wants_stream(seen.path, seen.body):
        return JSONResponse(wire.whole(answer, seen.model))
    return StreamingResponse(wire.stream(answer, seen.model), media_type=wire.media_type)
