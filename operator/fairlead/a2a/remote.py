"""Asks agents that somebody else runs."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx
from a2a.client.client import Client, ClientCallContext, ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
)
from a2a.utils.errors import A2AError, InternalError
from google.protobuf.json_format import ParseError

from fairlead import egress
from fairlead.a2a.answers import Answer, Gathering
from fairlead.a2a.bounds import BoundedTransport
from fairlead.a2a.cards import BINDINGS, WELL_KNOWN, Card, InvalidCard, read_card
from fairlead.clock import Clock
from fairlead.errors import FairleadError, RetryableError, TerminalError
from fairlead.logs import get_logger

_log = get_logger(__name__)
MAX_CARD_BYTES: Final = 256 << 10
MAX_ANSWER_BYTES: Final = 2 << 20
CARD_SECONDS: Final = 10.0
_POLL_SECONDS: Final = (0.5, 5.0)
_CANCEL_SECONDS: Final = 3.0
_FREE_SECONDS: Final = 10.0
"""How long a call waits for one of the connections."""
_CLIENTS: Final = 64
_MAX_WORDS: Final = 500
_BROKEN: Final = (ParseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What the SDK raises about answers that are not what they should be."""
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an agent is, and who we are to it."""

    url: str
    token: str = field(default="", repr=False)
    authority: str = ""
    """PEM; empty: the public ones."""

    @property
    def headers(self) -> dict[str, str]:
        """What shows who we are."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@dataclass(frozen=True, slots=True)
class Question:
    """A message to an agent."""

    message_id: str
    """The same for the same question: an agent that honours it starts one task, however often it is asked."""
    texts: tuple[str, ...]
    wants_value: bool = False


class NotSent(RetryableError):
    """No connection was made: the agent has not heard of the question."""


@dataclass(slots=True)
class _Shared:
    """A client, and how many use it now."""

    client: httpx.AsyncClient
    users: int = 0


class Remotes:
    """Speaks to agents through the egress-checked client.

    Args:
        policy: which addresses agents may have.
        clock: gives the time for waiting between two looks at a task.
    """

    def __init__(self, policy: egress.Policy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._lookups = egress.Lookups()
        self._clients: OrderedDict[tuple[str, str], _Shared] = OrderedDict()
        """By authority and purpose: calls that take long must not keep cards from being read."""
        self._cancelling: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Close every connection."""
        await asyncio.gather(*self._cancelling)
        while self._clients:
            await self._clients.popitem()[1].client.aclose()

    async def card(self, address: Address) -> Card:
        """Return an agent's card.

        Raises:
            FairleadError: nobody answers, or what is there is no card.
        """
        url = address.url.rstrip("/") + WELL_KNOWN
        asked = egress.Fetch(
            "GET",
            url,
            {"Accept": "application/json", **address.headers},
            timeout_seconds=CARD_SECONDS,
            max_bytes=MAX_CARD_BYTES,
        )
        async with self._client(address, "card") as client:
            got = await egress.fetch(client, asked)
        if got.status != httpx.codes.OK:
            raise _of_status(got.status, f"{url} answers with HTTP {got.status}")
        return read_card(got.body, asked=address.url, has_token=bool(address.token))

    async def ask(self, address: Address, card: Card, question: Question, *, seconds: float) -> Answer:
        """Send a message and return what comes of it, when the agent's task has ended or asks something back.

        Raises:
            RetryableError: no answer, or not in time; the task that it began is then cancelled.
            TerminalError: the agent refuses, or does not speak A2A.
        """
        async with self._client(address, "call") as shared:
            return await self._ask(address, self._sdk(shared, card), question, seconds=seconds)

    async def _ask(self, address: Address, client: Client, question: Question, *, seconds: float) -> Answer:
        gathered = Gathering()
        context = ClientCallContext(service_parameters=dict(address.headers))
        try:
            async with asyncio.timeout(seconds), _translated(address):
                await self._converse(client, context, question, gathered=gathered)
        except TimeoutError:
            await self._cancel(client, context, gathered.task_id)
            raise RetryableError(f"no end within {seconds:g} s", reason="Timeout") from None
        except asyncio.CancelledError:
            cancelling = asyncio.create_task(self._cancel(client, context, gathered.task_id))
            self._cancelling.add(cancelling)
            cancelling.add_done_callback(self._cancelling.discard)
            await asyncio.shield(cancelling)
            raise
        if gathered.asks:  # nobody will answer
            await self._cancel(client, context, gathered.task_id)
        return gathered.answer()

    async def _converse(
        self, client: Client, context: ClientCallContext, question: Question, *, gathered: Gathering
    ) -> None:
        try:
            async for event in client.send_message(_request(question), context=context):
                gathered.add(event)
                if gathered.settled:
                    return
        except (A2AClientError, httpx.HTTPError) as error:
            if not gathered.task_id:
                raise
            _log.info("agent_stream_lost", task=gathered.task_id, error=type(error).__name__)
        await self._follow(client, context, gathered)

    async def _follow(self, client: Client, context: ClientCallContext, gathered: Gathering) -> None:
        """Look at a task until it is settled: there is no stream, or it broke."""
        if not gathered.task_id:
            raise TerminalError("it answered with nothing", reason="ProtocolError")
        pause, longest = _POLL_SECONDS
        while not gathered.settled:
            await self._clock.sleep(pause)
            pause = min(pause * 1.5, longest)
            try:
                gathered.task(await client.get_task(GetTaskRequest(id=gathered.task_id), context=context))
            except (A2AClientError, httpx.HTTPError) as error:
                if isinstance(error.__cause__, httpx.HTTPStatusError):
                    raise
                _log.info("agent_not_reached", task=gathered.task_id, error=type(error).__name__)

    async def _cancel(self, client: Client, context: ClientCallContext, task_id: str) -> None:
        """Tell an agent that nobody waits for its task any more; that it does not hear is its own loss."""
        if not task_id:
            return
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await client.cancel_task(CancelTaskRequest(id=task_id), context=context)
        except (TimeoutError, FairleadError, A2AError, httpx.HTTPError, *_BROKEN) as error:
            _log.info("agent_task_not_cancelled", task=task_id, error=type(error).__name__)

    def _sdk(self, client: httpx.AsyncClient, card: Card) -> Client:
        config = ClientConfig(
            streaming=card.streaming,
            polling=not card.streaming,
            httpx_client=client,
            supported_protocol_bindings=list(BINDINGS),
        )
        try:
            return ClientFactory(config).create(card.raw)
        except ValueError as error:
            raise InvalidCard(str(error)) from None

    @asynccontextmanager
    async def _client(self, address: Address, purpose: str) -> AsyncIterator[httpx.AsyncClient]:
        """Lend the client for those that trust the same authority."""
        key = address.authority, purpose
        shared = self._clients.get(key)
        if shared is None:
            shared = self._clients[key] = _Shared(self._open(address.authority))
        self._clients.move_to_end(key)
        shared.users += 1
        try:
            await self._close_unused()
            yield shared.client
        finally:
            shared.users -= 1

    def _open(self, authority: str) -> httpx.AsyncClient:
        try:
            transport = BoundedTransport(
                self._policy, resolver=self._lookups, max_answer_bytes=MAX_ANSWER_BYTES, authority=authority
            )
        except (ValueError, OSError):  # ssl.SSLError is an OSError
            raise TerminalError("caCertificate is no certificate in PEM", reason="InvalidCard") from None
        client = egress.build_client(transport)
        # whoever asks says how long an answer may take
        client.timeout = httpx.Timeout(None, connect=CARD_SECONDS, pool=_FREE_SECONDS)
        return client

    async def _close_unused(self) -> None:
        """Close what is too much, longest unused first; never what is in use."""
        unused = [key for key, shared in self._clients.items() if not shared.users]
        for key in unused[: max(len(self._clients) - _CLIENTS, 0)]:
            await self._clients.pop(key).client.aclose()


def _request(question: Question) -> SendMessageRequest:
    return SendMessageRequest(
        message=Message(
            message_id=question.message_id,
            role=Role.ROLE_USER,
            parts=[Part(text=text) for text in question.texts],
        ),
        configuration=SendMessageConfiguration(
            accepted_output_modes=["application/json", "text/plain"] if question.wants_value else []
        ),
    )


@asynccontextmanager
async def _translated(address: Address) -> AsyncIterator[None]:
    """Make our errors of the SDK's; no word of them has the token."""
    try:
        yield
    except (FairleadError, TimeoutError):
        raise
    except (A2AError, httpx.HTTPError) as error:
        raise _of_sdk(error, address.token) from None
    except _BROKEN as error:
        raise TerminalError(
            f"its answer is not what A2A says: {_words(error, address.token)}", reason="ProtocolError"
        ) from None


def _of_sdk(error: Exception, token: str) -> FairleadError:
    cause = error.__cause__
    words = _words(error, token)
    if isinstance(cause, httpx.HTTPStatusError):
        return _of_status(cause.response.status_code, f"it answers with HTTP {cause.response.status_code}")
    for failed in (error, cause):
        if isinstance(failed, httpx.HTTPError):
            return _of_connection(failed, words)
    if isinstance(error, InternalError):
        return RetryableError(f"it failed: {words}", reason="AgentFailed")
    if isinstance(error, A2AClientError):
        return TerminalError(f"its answer is not what A2A says: {words}", reason="ProtocolError")
    return TerminalError(f"it refused: {words}", reason="AgentFailed")


def _of_connection(error: httpx.HTTPError, words: str) -> FairleadError:
    if isinstance(error, _UNSENT):
        return NotSent(f"the connection failed: {words}", reason="Unreachable")
    if isinstance(error, httpx.TimeoutException):
        return RetryableError("it did not answer in time", reason="Timeout")
    return RetryableError(f"the connection failed: {words}", reason="Unreachable")


def _of_status(status: int, text: str) -> FairleadError:
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return TerminalError(f"{text}: correct spec.external.token", reason="AuthenticationFailed")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return RetryableError(text, reason="RateLimited")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return RetryableError(text, reason="Unreachable")
    return TerminalError(text, reason="ProtocolError")


def _words(error: Exception, token: str) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return (said.replace(token, "…") if token else said)[:_MAX_WORDS]
