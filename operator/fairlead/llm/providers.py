"""Providers, through LiteLLM's SDK. It is imported when a provider is asked for the first time, and not before."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import orjson

from fairlead.egress import EgressTransport, check_url, forget_cookies
from fairlead.errors import FairleadError, NotSupported, RetryableError, TerminalError
from fairlead.llm.base import ChatRequest, Completion, TokenUsage, to_model_error
from fairlead.logs import REDACTED, redact

PARAMETERS: Final = frozenset(
    {
        "frequency_penalty",
        "keep_alive",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "num_ctx",
        "presence_penalty",
        "reasoning_effort",
        "seed",
        "stop",
        "temperature",
        "thinking",
        "top_k",
        "top_p",
        "verbosity",
    }
)
"""What may be a parameter. LiteLLM takes addresses, credentials and file names by the same way: not from here."""
BASE_URL_PROVIDERS: Final = frozenset({"anthropic", "gemini", "ollama", "ollama_chat", "openai"})
"""Providers whose every request is known to go through the checked client, so that their address may be given."""
_OPENAI_SDK: Final = frozenset({"openai"})
_NATIVE_SCHEMA: Final = frozenset({"ollama", "ollama_chat"})
_BY_NAME: Final[Mapping[str, tuple[type[FairleadError], str]]] = {
    "APIConnectionError": (RetryableError, "ModelUnavailable"),
    "APITimeoutError": (RetryableError, "Timeout"),
    "ContentPolicyViolationError": (TerminalError, "ModelRefused"),
    "ContextWindowExceededError": (TerminalError, "ContextTooLong"),
    "Timeout": (RetryableError, "Timeout"),
}
_NO_KEY: Final = "none"
_MAX_MESSAGE: Final = 1000
_MAX_TOKENS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask."""

    model: str
    """As LiteLLM names it: ``provider/name``."""
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Providers:
    """Owns LiteLLM and the connections to providers.

    Args:
        transport: where every request to an address that a Model gives goes through.
    """

    def __init__(self, transport: EgressTransport) -> None:
        self._transport = transport
        self._loading: asyncio.Task[_Library] | None = None

    async def library(self) -> _Library:
        """Return LiteLLM, imported once, beside the event loop: it takes seconds."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        return await asyncio.shield(self._loading)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._loading is not None:
            library = await self._loading
            await library.aclose()
        await self._transport.aclose()

    async def _load(self) -> _Library:
        litellm, handler = await asyncio.to_thread(_import)
        client = httpx.AsyncClient(transport=self._transport, trust_env=False, timeout=600)
        litellm.aclient_session = client  # what LiteLLM gives to the OpenAI SDK
        asking = handler(timeout=600, transport=self._transport, follow_redirects=False)
        for kept in (client, asking.client):
            forget_cookies(kept)
        return _Library(litellm, client, asking)


@dataclass(frozen=True, slots=True)
class _Library:
    litellm: Any
    client: httpx.AsyncClient
    handler: Any

    async def aclose(self) -> None:
        self.litellm.aclient_session = None
        await self.handler.close()
        await self.client.aclose()


class ProviderModel:
    """One model of a provider."""

    def __init__(self, providers: Providers, target: Target) -> None:
        self._providers = providers
        self._target = target

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask the provider, once."""
        _check_target(self._target)
        library = await self._providers.library()
        arguments = self._arguments(library.litellm, request)
        provider = arguments["model"].partition("/")[0]
        if provider not in _OPENAI_SDK and provider in BASE_URL_PROVIDERS:
            arguments["client"] = library.handler
        try:
            response = await library.litellm.acompletion(**arguments)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it raises whatever a provider's handler raises
            raise _to_error(error, secret=self._target.api_key) from None  # the chain may show the key
        return _parse(response)

    def _arguments(self, litellm: Any, request: ChatRequest) -> dict[str, Any]:
        target = self._target
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        arguments: dict[str, Any] = {
            **_checked_parameters({**target.parameters, **request.parameters}),
            "model": target.model,
            "messages": messages,
            "timeout": request.timeout_seconds,
            "num_retries": 0,
            "max_retries": 0,
        }
        if target.base_url:
            arguments["api_base"] = target.base_url
        if target.api_key or target.base_url:  # never a key of this process to an address that a Model gives
            arguments["api_key"] = target.api_key or _NO_KEY
        if request.output is not None:
            _ask_for_schema(litellm, arguments, request.output)
        return arguments


def _import() -> tuple[Any, Any]:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or its import asks the network for prices
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")  # or the first call asks it for headers
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # or it reads a .env file
    litellm: Any = importlib.import_module("litellm")
    http: Any = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = True
    litellm.drop_params = False
    litellm.num_retries = 0
    for name in ("LiteLLM", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return litellm, http.AsyncHTTPHandler


def _check_target(target: Target) -> None:
    provider, _, name = target.model.partition("/")
    if "://" in target.model or not name:
        raise TerminalError(
            f"{target.model!r} is no model: write provider/name, such as ollama_chat/llama3.2", reason="InvalidModel"
        )
    if target.base_url:
        check_url(target.base_url)
        if provider not in BASE_URL_PROVIDERS:
            raise NotSupported(
                f"baseURL works with {', '.join(sorted(BASE_URL_PROVIDERS))}; for another server that speaks OpenAI's "
                f"protocol write openai/{name}"
            )


def _checked_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(parameters) - PARAMETERS)
    if unknown:
        raise TerminalError(
            f"the parameter {unknown[0]!r} is not known; there are: {', '.join(sorted(PARAMETERS))}",
            reason="InvalidParameters",
        )
    return dict(parameters)


def _ask_for_schema(litellm: Any, arguments: dict[str, Any], schema: Mapping[str, Any]) -> None:
    model = arguments["model"]
    if model.partition("/")[0] in _NATIVE_SCHEMA or litellm.supports_response_schema(model=model):
        wanted = {"name": "output", "schema": dict(schema)}
        arguments["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return
    text = f"Answer only with JSON that follows this JSON Schema: {orjson.dumps(schema).decode()}"
    arguments["messages"].insert(0, {"role": "system", "content": text})


def _parse(response: Any) -> Completion:
    choice = response.choices[0]
    if choice.finish_reason == "content_filter":
        raise TerminalError("the provider's content filter stopped the answer", reason="ModelRefused")
    usage = getattr(response, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    return Completion(
        text=choice.message.content or "",
        usage=TokenUsage(
            input_tokens=_count(getattr(usage, "prompt_tokens", 0)),
            output_tokens=_count(getattr(usage, "completion_tokens", 0)),
            cached_tokens=_count(getattr(details, "cached_tokens", 0)),
        ),
        model=str(response.model or ""),
        finish_reason=str(choice.finish_reason or ""),
    )


def _count(number: Any) -> int:
    """Return a number of tokens that a server claims: never negative (it would pay back), never beyond all bounds."""
    return min(max(int(number or 0), 0), _MAX_TOKENS)


def _to_error(error: Exception, *, secret: str) -> FairleadError:
    own = _own_error(error)
    if own is not None:
        return own
    name = type(error).__name__
    message = str(getattr(error, "message", "") or error).removeprefix(f"litellm.{name}: ")
    text = redact(_readable(message.replace(secret, REDACTED) if secret else message))[:_MAX_MESSAGE]
    known = _BY_NAME.get(name)
    if known is not None:
        kind, reason = known
        return kind(text, reason=reason)
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return TerminalError(f"{name}: {text}", reason="ModelFailed")
    return to_model_error(status, text, retry_after=_retry_after(error))


def _readable(message: str) -> str:
    """Return what a provider says, out of the JSON it says it in."""
    start, end = message.find("{"), message.rfind("}")
    try:
        said = orjson.loads(message[start : end + 1])["error"]["message"] if 0 <= start < end else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return message
    return f"{message[:start].removesuffix(' - ')}: {said}" if isinstance(said, str) else message


def _own_error(error: BaseException | None) -> FairleadError | None:
    """LiteLLM wraps whatever it meets, the refusal of an address included."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, FairleadError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _retry_after(error: Exception) -> float | None:
    response = getattr(error, "response", None)
    for headers in (getattr(error, "litellm_response_headers", None), getattr(response, "headers", None)):
        try:
            return float((headers or {}).get("retry-after", ""))
        except ValueError:
            continue
    return None
