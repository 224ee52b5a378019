"""Providers, through LiteLLM's SDK. It is imported when a provider is asked for the first time, and not before."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx

from fairlead.egress import EgressTransport, forget_cookies
from fairlead.errors import FairleadError, RetryableError
from fairlead.llm.answers import estimated_usage, to_completion
from fairlead.llm.base import AnswerLost, ChatRequest, Completion, TokenUsage
from fairlead.llm.failures import to_error
from fairlead.llm.requests import BASE_URL_PROVIDERS, STREAM, Target, build_arguments, check_target
from fairlead.llm.streaming import IDLE_SECONDS, Progress, StreamingTransport, following


class Providers:
    """Owns LiteLLM and the connections to providers.

    Args:
        transport: where every request to an address that a Model gives goes through.
        idle_seconds: how long a provider may say nothing once its answer has begun.
    """

    def __init__(self, transport: EgressTransport, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self.idle_seconds = idle_seconds
        self._transport = StreamingTransport(transport)
        self._loading: asyncio.Task[Library] | None = None

    async def library(self) -> Library:
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

    async def _load(self) -> Library:
        litellm, handler, internal = await asyncio.to_thread(_import)
        client = httpx.AsyncClient(transport=self._transport, trust_env=False, timeout=600)
        litellm.aclient_session = client  # what LiteLLM gives to the OpenAI SDK
        asking = handler(timeout=600, transport=self._transport, follow_redirects=False)
        for kept in (client, asking.client):
            forget_cookies(kept)
        return Library(litellm, client, asking, internal)


@dataclass(frozen=True, slots=True)
class Library:
    """LiteLLM, and the clients that it asks by."""

    litellm: Any
    client: httpx.AsyncClient
    handler: Any
    internal: ContextVar[bool]

    async def ask(self, arguments: Mapping[str, Any]) -> Any:
        """Return the answer. LiteLLM keeps no log of it for callbacks that nobody has: a seventh of its work."""
        token = self.internal.set(True)
        try:
            return await self.litellm.acompletion(**arguments)
        finally:
            self.internal.reset(token)

    async def aclose(self) -> None:
        """Close the connections."""
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
        check_target(self._target)
        library = await self._providers.library()
        arguments = self._arguments(library, request)
        whole = {**self._target.parameters, **request.parameters}.get(STREAM) is False
        with following(stream=not whole, idle_seconds=self._providers.idle_seconds) as progress:
            try:
                async with asyncio.timeout(request.timeout_seconds):
                    response = await library.ask(arguments)
            except asyncio.CancelledError:
                raise
            except TimeoutError:
                late = RetryableError(
                    f"no answer within {request.timeout_seconds:g} s", reason="Timeout", retry_after=0
                )
                raise _lost(late, request, progress, unseen=True) from None
            except Exception as error:  # noqa: BLE001 - it raises whatever a provider's handler raises
                found = to_error(error, secret=self._target.api_key)
                raise _lost(found, request, progress, unseen=progress.unheard) from None  # the chain may show the key
        return to_completion(response, request)

    def _arguments(self, library: Library, request: ChatRequest) -> dict[str, Any]:
        def knows_schemas(model: str) -> bool:
            return bool(library.litellm.supports_response_schema(model=model))

        arguments = build_arguments(self._target, request, knows_schemas=knows_schemas)
        if self._target.provider in BASE_URL_PROVIDERS:
            arguments["client"] = library.handler
        return arguments


def _lost(error: FairleadError, request: ChatRequest, progress: Progress, *, unseen: bool) -> Exception:
    """Return the error, with what was used where an answer had begun.

    An answer that nobody saw, *unseen*, counts under a budget at its worst case.
    """
    if progress.begun:
        return AnswerLost(error, progress.usage or estimated_usage(request, progress.text))
    if unseen and request.granted_output_tokens is not None:
        return AnswerLost(
            error, TokenUsage(request.granted_input_tokens, request.granted_output_tokens, estimated=True)
        )
    return error


def _import() -> tuple[Any, Any, Any]:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or its import asks the network for prices
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")  # or the first call asks it for headers
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # or it reads a .env file
    os.environ.setdefault("EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER", "True")  # as the others: a third less to do
    litellm: Any = importlib.import_module("litellm")
    http: Any = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = True
    litellm.drop_params = False
    litellm.num_retries = 0
    for name in ("LiteLLM", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)
    context: Any = importlib.import_module("litellm._internal_context")
    return litellm, http.AsyncHTTPHandler, context.is_internal_call
