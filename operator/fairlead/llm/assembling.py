"""Puts the pieces of a streamed answer together again, as the provider would have sent it in one piece. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import httpx
import orjson

from fairlead.llm.base import TokenUsage, estimate_tokens

Json = dict[str, Any]


class Assembler(Protocol):
    """One answer of one protocol."""

    @property
    def media_types(self) -> tuple[str, ...]:
        """What a stream of this protocol says it is."""

    complete: bool
    """Whether the provider has said that it is done."""

    def ask(self, url: httpx.URL, body: Json) -> tuple[httpx.URL, Json]:
        """Return the request that has the answer streamed."""

    def feed(self, event: Json) -> str:
        """Take the next piece; return the text in it."""

    def whole(self) -> Json:
        """Return the answer in one piece."""

    def used(self, text: str) -> TokenUsage | None:
        """Return what was used up to *text*, if the provider has said at least a part of it."""


class OpenAi:
    """``/chat/completions`` of OpenAI, and of the many servers that speak like it."""

    media_types = ("text/event-stream",)
    _TEXTS: Final = ("content", "reasoning_content", "refusal")

    def __init__(self) -> None:
        self.complete = False
        self._head: Json = {}
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, Json] = {}
        self._reason: str | None = None

    def ask(self, url: httpx.URL, body: Json) -> tuple[httpx.URL, Json]:
        """Return the request that has the answer streamed."""
        return url, {**body, "stream": True, "stream_options": {"include_usage": True}}

    def feed(self, event: Json) -> str:
        """Take the next piece; return the text in it."""
        self._head.update({key: value for key, value in event.items() if key != "choices" and value is not None})
        choice: Json = next(iter(event.get("choices") or ()), {})
        if choice.get("finish_reason"):
            self._reason = choice["finish_reason"]
            self.complete = True
        delta = choice.get("delta") or {}
        for name in self._TEXTS:
            if delta.get(name):
                self._texts.setdefault(name, []).append(delta[name])
        written = [self._call(call) for call in delta.get("tool_calls") or ()]
        return "".join([delta.get("content") or "", delta.get("reasoning_content") or "", *written])

    def _call(self, piece: Json) -> str:
        index = piece.get("index")
        if index is None:  # some servers do not count: each has an id then, and comes whole
            index = len(self._calls)
        call = self._calls.setdefault(index, {"type": "function", "id": "", "name": "", "arguments": []})
        function = piece.get("function") or {}
        call["id"] = piece.get("id") or call["id"]
        call["name"] = function.get("name") or call["name"]
        written = str(function.get("arguments") or "")
        call["arguments"].append(written)
        return written

    def whole(self) -> Json:
        """Return the answer in one piece."""
        message: Json = {"role": "assistant", "content": None}
        message |= {name: "".join(parts) for name, parts in self._texts.items()}
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": c["id"],
                    "type": c["type"],
                    "function": {"name": c["name"], "arguments": "".join(c["arguments"])},
                }
                for _, c in sorted(self._calls.items())
            ]
        choice = {"index": 0, "message": message, "finish_reason": self._reason or "stop"}
        return {**self._head, "object": "chat.completion", "choices": [choice]}

    def used(self, text: str) -> TokenUsage | None:
        """Return what was used; this protocol says so at the end only."""
        del text
        return None


class Ollama:
    """``/api/chat`` of Ollama."""

    media_types = ("application/x-ndjson", "application/ndjson")
    _TEXTS: Final = ("content", "thinking")

    def __init__(self) -> None:
        self.complete = False
        self._head: Json = {}
        self._texts: dict[str, list[str]] = {"content": []}
        self._calls: list[Json] = []

    def ask(self, url: httpx.URL, body: Json) -> tuple[httpx.URL, Json]:
        """Return the request that has the answer streamed."""
        return url, {**body, "stream": True}

    def feed(self, event: Json) -> str:
        """Take the next piece; return the text in it."""
        self._head.update(event)
        self.complete = bool(event.get("done"))
        message = event.get("message") or {}
        for name in self._TEXTS:
            if message.get(name):
                self._texts.setdefault(name, []).append(message[name])
        calls = message.get("tool_calls") or []
        self._calls += calls
        shown = orjson.dumps(calls).decode() if calls else ""
        return "".join([*(message.get(name) or "" for name in self._TEXTS), shown])

    def whole(self) -> Json:
        """Return the answer in one piece."""
        message: Json = {"role": "assistant", **{name: "".join(parts) for name, parts in self._texts.items()}}
        if self._calls:
            message["tool_calls"] = self._calls
        untold = {"prompt_eval_count": 0, "eval_count": 0}  # LiteLLM would guess, and not say so
        return {**untold, **self._head, "message": message}

    def used(self, text: str) -> TokenUsage | None:
        """Return what was used; this protocol says so at the end only."""
        del text
        return None


class Anthropic:
    """``/v1/messages`` of Anthropic."""

    media_types = ("text/event-stream",)
    _TEXTS: Final = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}

    def __init__(self) -> None:
        self.complete = False
        self._message: Json = {}
        self._blocks: dict[int, Json] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}

    def ask(self, url: httpx.URL, body: Json) -> tuple[httpx.URL, Json]:
        """Return the request that has the answer streamed."""
        return url, {**body, "stream": True}

    def feed(self, event: Json) -> str:
        """Take the next piece; return the text in it."""
        match event.get("type"):
            case "message_start":
                self._message = dict(event.get("message") or {})
            case "content_block_start":
                self._blocks[event["index"]] = dict(event.get("content_block") or {})
            case "content_block_delta":
                return self._delta(event["index"], event.get("delta") or {})
            case "message_delta":
                self._message.update(event.get("delta") or {})
                self._message["usage"] = {**(self._message.get("usage") or {}), **(event.get("usage") or {})}
            case "message_stop":
                self.complete = True
            case _:
                pass
        return ""

    def _delta(self, index: int, delta: Json) -> str:
        kind = delta.get("type")
        name = "input" if kind == "input_json_delta" else self._TEXTS.get(str(kind))
        if name is None:
            return ""
        text = str(delta.get("partial_json" if name == "input" else name) or "")
        self._texts.setdefault((index, name), []).append(text)
        return text

    def whole(self) -> Json:
        """Return the answer in one piece."""
        for (index, name), parts in self._texts.items():
            text = "".join(parts)
            block = self._blocks.setdefault(index, {"type": "text"})
            block[name] = _loaded(text) if name == "input" else str(block.get(name) or "") + text
        return {**self._message, "content": [block for _, block in sorted(self._blocks.items())]}

    def used(self, text: str) -> TokenUsage | None:
        """Return what was used: this protocol says at the start how long the input was."""
        usage = self._message.get("usage") or {}
        given = sum(int(count or 0) for name, count in usage.items() if name.endswith("input_tokens"))
        return TokenUsage(given, estimate_tokens(text), estimated=True) if given else None


def _loaded(text: str) -> Any:
    """Return what a model wrote as arguments; a text where it is no JSON."""
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text


class Gemini:
    """``:generateContent`` of Gemini."""

    media_types = ("text/event-stream",)

    def __init__(self) -> None:
        self.complete = False
        self._head: Json = {}
        self._candidate: Json = {}
        self._parts: list[Json] = []

    def ask(self, url: httpx.URL, body: Json) -> tuple[httpx.URL, Json]:
        """Return the request that has the answer streamed."""
        path = url.path.removesuffix(":generateContent") + ":streamGenerateContent"
        return url.copy_with(path=path).copy_merge_params({"alt": "sse"}), body

    def feed(self, event: Json) -> str:
        """Take the next piece; return the text in it."""
        self._head.update({key: value for key, value in event.items() if key != "candidates"})
        self.complete = self.complete or "promptFeedback" in event
        candidate: Json = next(iter(event.get("candidates") or ()), {})
        self._candidate.update({key: value for key, value in candidate.items() if key != "content"})
        self.complete = self.complete or bool(candidate.get("finishReason"))
        parts = (candidate.get("content") or {}).get("parts") or []
        for part in parts:
            self._add(part)
        return "".join(str(part.get("text") or part.get("functionCall") or "") for part in parts)

    def _add(self, part: Json) -> None:
        last = self._parts[-1] if self._parts else {}
        if set(part) <= {"text", "thought"} and set(last) == set(part):
            last["text"] += part.get("text") or ""
        else:
            self._parts.append(dict(part))

    def whole(self) -> Json:
        """Return the answer in one piece."""
        if not self._candidate and not self._parts:
            return self._head
        content = {"role": "model", "parts": self._parts}
        return {"usageMetadata": {}, **self._head, "candidates": [{**self._candidate, "content": content}]}

    def used(self, text: str) -> TokenUsage | None:
        """Return what was used so far, which this protocol says now and then."""
        given = int((self._head.get("usageMetadata") or {}).get("promptTokenCount") or 0)
        return TokenUsage(given, estimate_tokens(text), estimated=True) if given else None


_BY_END: Final[Mapping[str, Callable[[], Assembler]]] = {
    "/chat/completions": OpenAi,
    "/api/chat": Ollama,
    "/v1/messages": Anthropic,
    ":generateContent": Gemini,
}


def assembler_for(request: httpx.Request) -> Assembler | None:
    """Return what can put the answer to *request* together, or None where its protocol is another one."""
    if request.method != "POST":
        return None
    return next((make() for end, make in _BY_END.items() if request.url.path.endswith(end)), None)
