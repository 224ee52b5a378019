"""What four providers' answers look like on the wire, whole and in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

Json = dict[str, Any]
_SSE: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the provider's model asks for. *arguments* as a text is sent as it is, broken or not."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The arguments as JSON."""
        return self.arguments if isinstance(self.arguments, str) else orjson.dumps(self.arguments).decode()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider's model says."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    input_tokens: int = 11
    output_tokens: int = 7
    usage: bool = True
    """Whether the provider tells the tokens."""
    pieces: int = 3
    """In how many parts a stream brings the text."""
    reason: str = ""
    """Why it ended, in the provider's own word; empty: because it was done."""

    def parts(self) -> list[str]:
        """Return the text in pieces."""
        size = max(-(-len(self.text) // self.pieces), 1)
        return [self.text[at : at + size] for at in range(0, len(self.text), size)]


@dataclass(frozen=True, slots=True)
class Wire:
    """One provider's protocol."""

    name: str
    media_type: str
    whole: Callable[[Answer, str], Json]
    """The answer in one piece."""
    stream: Callable[[Answer, str], Iterator[bytes]]
    """The answer as a provider streams it."""
    piece: Callable[[str, str], bytes]
    """One part of a text, for streams that never come to an end."""


def wire_of(path: str) -> Wire:
    """Return the protocol that is spoken at *path*."""
    if path.endswith("/chat/completions"):
        return OPENAI
    if path == "/api/chat":
        return OLLAMA
    return ANTHROPIC if path.endswith("/messages") else GEMINI


def wants_stream(path: str, body: Mapping[str, Any]) -> bool:
    """Whether the answer is asked for in pieces."""
    return bool(body.get("stream")) or ":streamGenerateContent" in path


def _event(data: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: ".encode() + orjson.dumps(data) + b"\n\n"


# -- OpenAI -----------------------------------------------------------------------------------------------------------
def _openai_usage(answer: Answer) -> Json:
    total = answer.input_tokens + answer.output_tokens
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": total,
    }


def _openai_calls(answer: Answer) -> list[Json]:
    return [
        {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": c.name, "arguments": c.text}}
        for index, c in enumerate(answer.tool_calls)
    ]


def _openai_reason(answer: Answer) -> str:
    return answer.reason or ("tool_calls" if answer.tool_calls else "stop")


def _openai(answer: Answer, model: str) -> Json:
    message: Json = {"role": "assistant", "content": answer.text or None}
    if answer.tool_calls:
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in _openai_calls(answer)]
    choice = {"index": 0, "message": message, "finish_reason": _openai_reason(answer)}
    usage = {"usage": _openai_usage(answer)} if answer.usage else {}
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], **usage}


def _openai_chunk(model: str, delta: Json, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    return _event({**head, "choices": [choice], **more})


def _openai_stream(answer: Answer, model: str) -> Iterator[bytes]:
    yield _openai_chunk(model, {"role": "assistant", "content": ""})
    for part in answer.parts():
        yield _openai_chunk(model, {"content": part})
    for call in _openai_calls(answer):
        name = {**call["function"], "arguments": ""}
        yield _openai_chunk(model, {"tool_calls": [{**call, "function": name}]})
        for half in _halves(call["function"]["arguments"]):
            yield _openai_chunk(model, {"tool_calls": [{"index": call["index"], "function": {"arguments": half}}]})
    yield _openai_chunk(model, {}, _openai_reason(answer))
    if answer.usage:
        head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model}
        yield _event({**head, "choices": [], "usage": _openai_usage(answer)})
    yield b"data: [DONE]\n\n"


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


OPENAI: Final = Wire(
    "openai", _SSE, _openai, _openai_stream, lambda text, model: _openai_chunk(model, {"content": text})
)


# -- Ollama -----------------------------------------------------------------------------------------------------------
_WHEN: Final = "2026-01-02T03:04:05Z"


def _ollama_message(answer: Answer, text: str) -> Json:
    calls = [{"function": {"name": c.name, "arguments": _object(c)}} for c in answer.tool_calls]
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}


def _object(call: ToolCall) -> Any:
    """Return the arguments as providers give them that parse what their model wrote."""
    return call.arguments if isinstance(call.arguments, str) else dict(call.arguments)


def _ollama_end(answer: Answer) -> Json:
    counts = {"prompt_eval_count": answer.input_tokens, "eval_count": answer.output_tokens} if answer.usage else {}
    return {"done": True, "done_reason": answer.reason or "stop", **counts}


def _ollama(answer: Answer, model: str) -> Json:
    message = _ollama_message(answer, answer.text)
    return {"model": model, "created_at": _WHEN, "message": message, **_ollama_end(answer)}


def _ollama_line(model: str, message: Json, end: Json | None = None) -> bytes:
    head = {"model": model, "created_at": _WHEN, "message": message}
    return orjson.dumps({**head, **(end or {"done": False})}) + b"\n"


def _ollama_stream(answer: Answer, model: str) -> Iterator[bytes]:
    for part in answer.parts():
        yield _ollama_line(model, {"role": "assistant", "content": part})
    if answer.tool_calls:
        yield _ollama_line(model, _ollama_message(answer, ""))
    yield _ollama_line(model, {"role": "assistant", "content": ""}, _ollama_end(answer))


OLLAMA: Final = Wire(
    "ollama",
    "application/x-ndjson",
    _ollama,
    _ollama_stream,
    lambda text, model: _ollama_line(model, {"role": "assistant", "content": text}),
)


# -- Anthropic --------------------------------------------------------------------------------------------------------
def _anthropic_reason(answer: Answer) -> str:
    return answer.reason or ("tool_use" if answer.tool_calls else "end_turn")


def _anthropic(answer: Answer, model: str) -> Json:
    blocks: list[Json] = [{"type": "text", "text": answer.text}] if answer.text else []
    blocks += [
        {"type": "tool_use", "id": f"toolu_{index}", "name": call.name, "input": _object(call)}
        for index, call in enumerate(answer.tool_calls)
    ]
    usage = {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens} if answer.usage else {}
    return {
        "id": "m-1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": _anthropic_reason(answer),
        "stop_sequence": None,
        "usage": usage,
    }


def _anthropic_event(kind: str, **data: Any) -> bytes:
    return _event({"type": kind, **data}, kind)


def _anthropic_block(index: int, start: Json, deltas: list[Json]) -> Iterator[bytes]:
    yield _anthropic_event("content_block_start", index=index, content_block=start)
    for delta in deltas:
        yield _anthropic_event("content_block_delta", index=index, delta=delta)
    yield _anthropic_event("content_block_stop", index=index)


def _anthropic_stream(answer: Answer, model: str) -> Iterator[bytes]:
    usage = {"input_tokens": answer.input_tokens, "output_tokens": 1} if answer.usage else {}
    message = {**_anthropic(Answer(), model), "stop_reason": None, "usage": usage}
    yield _anthropic_event("message_start", message=message)
    texts = [{"type": "text_delta", "text": part} for part in answer.parts()]
    if texts:
        yield from _anthropic_block(0, {"type": "text", "text": ""}, texts)
    for index, call in enumerate(answer.tool_calls):
        start = {"type": "tool_use", "id": f"toolu_{index}", "name": call.name, "input": {}}
        parts = [{"type": "input_json_delta", "partial_json": half} for half in _halves(call.text)]
        yield from _anthropic_block(index + bool(texts), start, parts)
    spent = {"output_tokens": answer.output_tokens} if answer.usage else {}
    end = {"stop_reason": _anthropic_reason(answer), "stop_sequence": None}
    yield _anthropic_event("message_delta", delta=end, usage=spent)
    yield _anthropic_event("message_stop")


ANTHROPIC: Final = Wire(
    "anthropic",
    _SSE,
    _anthropic,
    _anthropic_stream,
    lambda text, _model: _anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
)


# -- Gemini -----------------------------------------------------------------------------------------------------------
def _gemini_chunk(parts: list[Json], answer: Answer | None = None) -> Json:
    candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
    if answer is None:
        return {"candidates": [candidate]}
    candidate["finishReason"] = answer.reason or "STOP"
    usage = {
        "promptTokenCount": answer.input_tokens,
        "candidatesTokenCount": answer.output_tokens,
        "totalTokenCount": answer.input_tokens + answer.output_tokens,
    }
    return {"candidates": [candidate], "usageMetadata": usage if answer.usage else {}}


def _gemini_calls(answer: Answer) -> list[Json]:
    return [{"functionCall": {"name": call.name, "args": _object(call)}} for call in answer.tool_calls]


def _gemini(answer: Answer, model: str) -> Json:
    del model
    return _gemini_chunk([*([{"text": answer.text}] if answer.text else []), *_gemini_calls(answer)], answer)


def _gemini_stream(answer: Answer, model: str) -> Iterator[bytes]:
    del model
    for part in answer.parts()[:-1]:
        yield _event(_gemini_chunk([{"text": part}]))
    last = [{"text": part} for part in answer.parts()[-1:]]
    yield _event(_gemini_chunk([*last, *_gemini_calls(answer)], answer))


GEMINI: Final = Wire(
    "gemini", _SSE, _gemini, _gemini_stream, lambda text, _model: _event(_gemini_chunk([{"text": text}]))
)
