"""Agents that someone else runs: their cards, and calls to them. What they say is not trusted."""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import ValidationError

from fairlead.api.v1alpha1.agent import External
from fairlead.clock import Clock
from fairlead.core import names
from fairlead.egress import Policy
from fairlead.errors import FairleadError, InvalidObject, RetryableError, TerminalError
from fairlead.kube import KubeClient
from fairlead.services.budgets import external_lines
from fairlead.services.outcomes import PICODOLLARS, Outcome, dollars, to_error_info
from fairlead.services.secrets import read_secret
from fairlead.services.tasks import TaskContext
from fairlead.storage.base import CallIntent, Reservation
from fairlead.tracing.attributes import attributes, bounded
from fairlead_agent.graph import MAX_OUTPUT, output_size
from fairlead_agent.protocol import AgentRequest, CallReply

if TYPE_CHECKING:
    from fairlead.a2a.answers import Answer
    from fairlead.a2a.cards import Card
    from fairlead.a2a.remote import Address, Question, Remotes

_CARD_SECONDS: Final = 60.0
"""How long a card is used for calls before it is read again."""
_KEPT: Final = 256
_MARGIN: Final = 0.98
"""Of the time of a call; the rest is for saying what came of it."""
_MESSAGES: Final = uuid.UUID("6f1d1f0c-6a53-5a0e-9d2e-3b1f6c1b7a52")
"""The name space of message ids."""
_SCHEMA: Final = "Answer with JSON only, which matches this JSON Schema: "


@dataclass(frozen=True, slots=True)
class _Known:
    """A card that was read."""

    card: Card
    until: float
    """By the monotonic clock."""


class ExternalAgents:
    """Asks external agents.

    Args:
        policy: which addresses they may have.
    """

    def __init__(self, kube: KubeClient, clock: Clock, policy: Policy) -> None:
        self._kube = kube
        self._clock = clock
        self._policy = policy
        self._opened: Remotes | None = None
        self._opening = asyncio.Lock()
        self._cards: OrderedDict[tuple[str, str, str], _Known] = OrderedDict()

    async def aclose(self) -> None:
        """Close every connection."""
        if self._opened is not None:
            await self._opened.aclose()

    async def read_card(self, namespace: str, name: str, spec: External) -> Card:
        """Return an agent's card as it is now.

        Raises:
            FairleadError: it cannot be had, or is of no use.
        """
        remotes, address = await self._remotes(), await self._address(namespace, name, spec)
        card = await remotes.card(address)
        self._cards[_key(namespace, name, spec)] = _Known(card, self._clock.monotonic() + _CARD_SECONDS)
        while len(self._cards) > _KEPT:
            self._cards.popitem(last=False)
        return card

    def reserve(self, context: TaskContext, request: AgentRequest) -> Reservation | None:
        """Return what a call costs and the budgets that it counts against; None: neither is there.

        Raises:
            TerminalError: with reason ``PriceUnknown``: money is limited, and nobody knows what the call costs.
        """
        lines = external_lines(context, request.name, at=self._clock.now())
        price = _price(external_spec(context, request.name))
        limited = next((line for line in lines if line.max_cost is not None), None)
        if limited is not None and price is None:
            raise TerminalError(
                f"{limited.name} limits what may be spent, but what a call of Agent {request.name} costs is not known: "
                f'set spec.external.costPerCallUSD of Agent {request.name} ("0" where it is free)',
                reason="PriceUnknown",
            )
        if not lines and price is None:
            return None
        return Reservation(
            lines,
            input_tokens=0,
            input_cost=price or 0,
            output_tokens=0,
            least_output_tokens=0,
            priced=price is not None,
        )

    async def ask(
        self, context: TaskContext, request: AgentRequest, *, intent: CallIntent, timeout_seconds: float
    ) -> Outcome:
        """Return what an external agent answers. What it was sent costs, whatever comes of it."""
        from fairlead.a2a.remote import NotSent

        spec = external_spec(context, request.name)
        seconds = min(timeout_seconds * _MARGIN, _patience(context, request.name) or timeout_seconds)
        who = f"Agent {request.name} ({spec.url})"
        deadline = self._clock.monotonic() + seconds
        sent = False
        try:
            remotes, address = await self._remotes(), await self._address(context.namespace, request.name, spec)
            card = await self._card(context.namespace, request.name, spec)
            left = max(deadline - self._clock.monotonic(), 0.001)
            sent = True
            answer = await remotes.ask(address, card, _question(request, intent), seconds=left)
        except FairleadError as error:
            return _failed(request, error.within(who), price=_price(spec), sent=sent and not isinstance(error, NotSent))
        return _outcome(request, answer, price=_price(spec))

    async def _card(self, namespace: str, name: str, spec: External) -> Card:
        known = self._cards.get(_key(namespace, name, spec))
        if known is None or known.until < self._clock.monotonic():
            return await self.read_card(namespace, name, spec)
        return known.card

    async def _remotes(self) -> Remotes:
        """Return what speaks A2A; the SDK is imported when it is first needed, and beside the event loop."""
        async with self._opening:
            if self._opened is None:
                remote: Any = await asyncio.to_thread(importlib.import_module, "fairlead.a2a.remote")
                self._opened = remote.Remotes(self._policy, self._clock)
        return self._opened

    async def _address(self, namespace: str, name: str, spec: External) -> Address:
        from fairlead.a2a.remote import Address

        token = ""
        if spec.token is not None:
            ref = spec.token.value_from.secret_key_ref
            token = await read_secret(self._kube, namespace, ref, whose=f"Agent {name}")
        return Address(spec.url, token, spec.ca_certificate or "")


def external_spec(context: TaskContext, name: str) -> External:
    """Return how a frozen Agent is reached."""
    frozen: Mapping[str, Any] = (context.document.get("agents") or {}).get(name) or {}
    return parse_external(name, frozen.get("external") or {})


def parse_external(name: str, raw: Mapping[str, Any]) -> External:
    """Return ``spec.external`` of an Agent.

    Raises:
        InvalidObject: it is not what the schema says.
    """
    try:
        return External.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidObject(f"Agent {name}: external.{place}: {first['msg']}", field=place) from None


def _key(namespace: str, name: str, spec: External) -> tuple[str, str, str]:
    return namespace, name, names.digest(spec.model_dump(mode="json"))


def _price(spec: External) -> int | None:
    return None if spec.cost_per_call_usd is None else _picodollars(Decimal(spec.cost_per_call_usd))


def _picodollars(amount: Decimal) -> int:
    return int((amount * PICODOLLARS).to_integral_value(ROUND_CEILING))


def _patience(context: TaskContext, name: str) -> float | None:
    found: Mapping[str, Any] = (context.document.get("agents") or {}).get(name) or {}
    return found.get("turnTimeoutSeconds")


def _message_id(intent: CallIntent) -> str:
    """Return the id of a call's message: the same however often, and by whichever gateway, it is sent."""
    return str(uuid.uuid5(_MESSAGES, f"{intent.task_id}\n{intent.key}"))


def _question(request: AgentRequest, intent: CallIntent) -> Question:
    from fairlead.a2a.remote import Question

    texts: tuple[str, ...] = (request.prompt,)
    if request.output is not None:
        texts = (*texts, _SCHEMA + orjson.dumps(request.output).decode())
    return Question(_message_id(intent), texts, wants_value=request.output is not None)


def _failed(request: AgentRequest, error: FairleadError, *, price: int | None, sent: bool) -> Outcome:
    """Return the outcome of a call without an answer: the agent may have worked for what it was sent."""
    if not sent:
        return Outcome(CallReply(error=to_error_info(error)), cost=0, attributes=_shown(request))
    reply = CallReply(error=to_error_info(error), cost=dollars(price))
    return Outcome(reply, cost=price, priced=True, attributes=_shown(request))


def _outcome(request: AgentRequest, answer: Answer, *, price: int | None) -> Outcome:
    from fairlead.a2a.answers import to_output

    said = None if answer.cost is None else _picodollars(answer.cost)
    cost = said if price is None else price
    try:
        reply = CallReply(result=_checked(to_output(_succeeded(answer).parts, wants_value=request.output is not None)))
    except FairleadError as error:
        reply = CallReply(error=to_error_info(error.within(f"Agent {request.name}")))
    reply = reply.model_copy(update={"cost": dollars(cost)})
    shown = attributes(**_shown(request), fairlead__remote_task=bounded(answer.task_id, 256) or None)
    return Outcome(reply, cost=cost, priced=True, attributes=shown)


def _succeeded(answer: Answer) -> Answer:
    words = f": {bounded(answer.text, 1024)}" if answer.text else ""
    match answer.state:
        case "completed":
            return answer
        case "failed":
            raise RetryableError(f"it failed{words}", reason="AgentFailed")
        case "input-required":
            raise TerminalError(f"it asks something back, which no node can answer{words}", reason="AgentNeedsInput")
        case "auth-required":
            raise TerminalError(f"it wants further credentials{words}", reason="AgentNeedsInput")
        case state:
            raise TerminalError(f"it {state} the task{words}", reason="AgentFailed")


def _checked(result: Any) -> Any:
    size = output_size(result)
    if size > MAX_OUTPUT:
        raise TerminalError(f"its answer takes {size} bytes, at most {MAX_OUTPUT} are kept", reason="OutputTooLarge")
    return result


def _shown(request: AgentRequest) -> dict[str, Any]:
    return dict(attributes(gen_ai__operation__name="invoke_agent", gen_ai__agent__name=request.name))
