from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import RetryableError, TerminalError
from fairlead.llm.assembling import assembler_for
from fairlead.llm.streaming import MAX_TEXT, StreamingTransport, following
from fairlead.testing.standins.wire import ANTHROPIC, GEMINI, OLLAMA, OPENAI, Answer, ToolCall, Wire

PATHS = {
    OPENAI: "/v1/chat/completions",
    OLLAMA: "/api/chat",
    ANTHROPIC: "/v1/messages",
    GEMINI: "/v1beta/models/gemini-2.5-flash:generateContent",
}
WIRES = [pytest.param(wire, id=wire.name) for wire in PATHS]
CALL = ToolCall("sql", {"query": "select 1"})


class Server(httpx.AsyncBaseTransport):
    """Streams what it is given, in chunks that have nothing to do with its lines."""

    def __init__(self, wire: Wire, body: bytes, *, size: int = 7, media_type: str = "") -> None:
        self.wire = wire
        self.body = body
        self.size = size
        self.media_type = media_type or wire.media_type
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        chunks = [self.body[at : at + self.size] for at in range(0, len(self.body), self.size)]

        async def stream() -> Any:
            for chunk in chunks:
                yield chunk

        return httpx.Response(200, headers={"content-type": f"{self.media_type}; charset=utf-8"}, content=stream())


async def ask(server: Server) -> dict[str, Any]:
    client = httpx.AsyncClient(transport=StreamingTransport(server))
    response = await client.post(f"https://provider{PATHS[server.wire]}", json={"model": "m", "messages": []})
    found: dict[str, Any] = orjson.loads(response.content)
    return found


ANSWERS = st.builds(
    Answer,
    text=st.text(max_size=200),
    tool_calls=st.lists(
        st.builds(
            ToolCall,
            st.just("sql"),
            st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63) | st.text(max_size=9)),
        ),
        max_size=3,
    ).map(tuple),
    input_tokens=st.integers(1, 1000),
    output_tokens=st.integers(1, 1000),
    pieces=st.integers(1, 9),
)


@pytest.mark.parametrize("wire", WIRES)
@settings(deadline=None, max_examples=50)
@given(answer=ANSWERS)
def test_whole_is_what_the_provider_sends_in_one_piece(wire: Wire, answer: Answer) -> None:
    assembler = assembler_for(httpx.Request("POST", f"https://provider{PATHS[wire]}"))
    assert assembler is not None
    for line in b"".join(wire.stream(answer, "m")).splitlines():
        payload = line.removeprefix(b"data: ")
        if payload.startswith(b"{"):
            assembler.feed(orjson.loads(payload))
    assert assembler.complete
    whole = wire.whole(answer, "m")
    if wire is OPENAI and not answer.text:
        whole["choices"][0]["message"]["content"] = None
    assert assembler.whole() == whole


@pytest.mark.parametrize("wire", WIRES)
async def test_request_asks_for_a_stream(wire: Wire) -> None:
    server = Server(wire, b"".join(wire.stream(Answer("hi", (CALL,)), "m")))
    with following(stream=True, idle_seconds=60) as progress:
        found = await ask(server)
    assert found == wire.whole(Answer("hi", (CALL,)), "m")
    (asked,) = server.asked
    if wire is GEMINI:
        assert str(asked.url).endswith(":streamGenerateContent?alt=sse")
    else:
        assert orjson.loads(asked.content)["stream"] is True
    assert asked.headers["content-length"] == str(len(asked.content))
    assert progress.text.startswith("hi")


@pytest.mark.parametrize("wire", WIRES)
async def test_request_of_one_that_wants_no_stream_is_left_alone(wire: Wire) -> None:
    server = Server(wire, orjson.dumps(wire.whole(Answer("hi"), "m")), media_type="application/json")
    with following(stream=False, idle_seconds=60):
        assert await ask(server) == wire.whole(Answer("hi"), "m")
    assert b"stream" not in server.asked[0].content


async def test_request_server_that_does_not_stream_is_understood() -> None:
    server = Server(OPENAI, orjson.dumps(OPENAI.whole(Answer("hi"), "m")), media_type="application/json")
    with following(stream=True, idle_seconds=60):
        assert await ask(server) == OPENAI.whole(Answer("hi"), "m")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("body", "reason", "text"),
    [
        pytest.param(b"", "ModelUnavailable", "empty", id="empty"),
        pytest.param(b"data: {]\n\n", "ModelUnavailable", "no JSON", id="invalid"),
        pytest.param(b"data: [1]\n\n", "ModelUnavailable", "protocol", id="other-json"),
        pytest.param(b'data: {"choices": [1], "candidates": [1], "message": [1], "type": "content_block_delta"}\n\n',
                     "ModelUnavailable", "protocol", id="other-shape"),
        pytest.param(b'data: {"error": {"type": "overloaded_error", "message": "busy"}}\n\n',
                     "ModelUnavailable", "busy", id="overloaded"),
        pytest.param(b'data: {"error": {"code": 429, "message": "slow"}}\n\n', "RateLimited", "slow", id="limited"),
        pytest.param(b'data: {"error": "it broke"}\n\n', "ModelUnavailable", "it broke", id="text"),
    ],
)  # fmt: skip
async def test_stream_that_is_none_is_an_error(wire: Wire, body: bytes, reason: str, text: str) -> None:
    with following(stream=True, idle_seconds=60) as progress, pytest.raises(RetryableError, match=text) as failed:
        await ask(Server(wire, body))
    assert failed.value.reason == reason
    assert not progress.begun


@pytest.mark.parametrize("wire", WIRES)
async def test_stream_cut_off_tells_what_came(wire: Wire) -> None:
    lines = list(wire.stream(Answer("it begins", pieces=1), "m"))
    begin = {ANTHROPIC: lines[:3], GEMINI: [GEMINI.piece("it begins", "m")]}.get(wire, lines[:2])
    if wire is OLLAMA:
        begin = lines[:1]
    with (
        following(stream=True, idle_seconds=60) as progress,
        pytest.raises(RetryableError, match="before it was complete"),
    ):
        await ask(Server(wire, b"".join(begin)))
    assert progress.text == "it begins"
    if wire is ANTHROPIC:
        assert progress.usage is not None
        assert (progress.usage.input_tokens, progress.usage.estimated) == (Answer().input_tokens, True)


@pytest.mark.parametrize("wire", WIRES)
async def test_stream_that_never_ends_is_ended(wire: Wire) -> None:
    piece = wire.piece("x" * (1 << 20), "m")
    with following(stream=True, idle_seconds=60), pytest.raises(TerminalError, match=str(MAX_TEXT)) as failed:
        await ask(Server(wire, piece * 6, size=1 << 16))
    assert failed.value.reason == "TooLarge"
