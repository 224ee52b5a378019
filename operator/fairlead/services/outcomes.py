"""What came of a call, and how it is recorded. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel

from fairlead.errors import FairleadError, RetryableError, TerminalError
from fairlead.nesting import MAX_NESTING, is_too_deep
from fairlead.redaction import REDACTED, names_secret
from fairlead.services.tasks import TaskContext
from fairlead.storage.base import CallAnswer, CallIntent, Payment, Reservation, Span
from fairlead.tracing.attributes import attributes, bounded, failure
from fairlead.tracing.ids import call_span_id, node_span_id, turn_span_id
from fairlead_agent.protocol import Call, CallReply, ErrorInfo, Usage

PICODOLLARS: Final = 10**12
_OPERATIONS: Final = {"llm": "chat", "agent": "invoke_agent"}
"""OpenTelemetry's names of what is done."""
_OF_PROGRAM: Final = ("language", "source", "network")
_MAX_REQUEST_TEXT: Final = 4096
_MAX_ITEMS: Final = 64
_MAX_DEPTH: Final = 6
_SAY_WHEN: Final = frozenset({"CircuitOpen", "RateLimited"})
"""Reasons that come with the time at which it is worth trying again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer or a failure, with what it cost."""

    reply: CallReply
    cost: int | None = None
    """Picodollars; None: unknown."""
    priced: bool = False
    """Whether the call has a price at all."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Of its span."""
    model: str = ""
    """The Model that answered."""
    paid: tuple[Payment, ...] = ()
    """What each Model took; empty: the one that answered took it all."""

    @classmethod
    def failed(cls, error: ErrorInfo) -> Outcome:
        """Return the outcome of a call that came to nothing, and cost nothing."""
        return cls(CallReply(error=error), cost=0)

    @classmethod
    def lost(cls, error: ErrorInfo, reservation: Reservation | None, granted: int | None) -> Outcome:
        """Return the outcome of a call whose answer nobody saw: under a budget it counts at its worst case."""
        if reservation is None:
            return cls.failed(error)
        output = granted or 0
        usage = Usage(input_tokens=reservation.input_tokens, output_tokens=output)
        cost = reservation.worst(output)[0] if reservation.priced else None
        return cls(CallReply(error=error, usage=usage), cost=cost, priced=True)


def to_error_info(error: FairleadError) -> ErrorInfo:
    """Return what the agent is told of an error."""
    retryable = isinstance(error, RetryableError)
    after = error.retry_after or None if isinstance(error, RetryableError) and error.reason in _SAY_WHEN else None
    return ErrorInfo(
        reason=error.reason, message=bounded(str(error), 2048), retryable=retryable, retry_after_seconds=after
    )


def dollars(picodollars: int | None) -> str | None:
    """Return an amount as a decimal string without an exponent."""
    if picodollars is None:
        return None
    text = f"{Decimal(picodollars) / PICODOLLARS:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def build_answer(outcome: Outcome, *, at: datetime) -> CallAnswer:
    """Return the record of an answer.

    Raises:
        TerminalError: it cannot be kept.
    """
    reply = outcome.reply
    if is_too_deep(reply.result):
        raise TerminalError(f"the answer is nested over {MAX_NESTING} levels deep", reason="TooLarge")
    return CallAnswer(
        reply=reply.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        finished_at=at,
        input_tokens=reply.usage.input_tokens,
        output_tokens=reply.usage.output_tokens,
        cost=outcome.cost,
        priced=outcome.priced,
        model=outcome.model,
        paid=outcome.paid,
    )


def build_span(
    context: TaskContext,
    intent: CallIntent,
    request: Call,
    *,
    outcome: Outcome,
    finished_at: datetime,
    repeats: int,
) -> Span:
    """Return the span of a call, below that of its node or item."""
    error = outcome.reply.error
    known = attributes(
        fairlead__action=intent.action,
        fairlead__call__key=intent.key,
        fairlead__agent=intent.agent,
        fairlead__repeats=repeats or None,
        fairlead__cost__usd=dollars(outcome.cost) if outcome.priced else None,
        fairlead__scripted=outcome.reply.scripted or None,
    )
    return Span(
        run_uid=context.run_uid,
        span_id=call_span_id(context.run_uid, intent.key, "" if context.turn is None else context.task_id),
        parent_id=_around(context, request),
        name=f"{_OPERATIONS.get(intent.action, 'execute_tool')} {intent.target}",
        kind="call",
        started_at=intent.started_at,
        finished_at=finished_at,
        status="ok" if error is None else "error",
        attributes={
            **known,
            **outcome.attributes,
            **({} if error is None else failure(error.reason, error.message)),
        },
    )


def _around(context: TaskContext, request: Call) -> str:
    """Return the span that a call lies in: its turn's, its item's, or its node's."""
    if context.turn is not None:
        return turn_span_id(context.run_uid, context.task_id)
    iteration = int(request.key.rsplit("/", 3)[1])
    return node_span_id(context.run_uid, request.node, request.item, iteration)


def describe_request(request: Call, program: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a request for people to read later: bounded, and without what looks like a credential.

    *program* is the frozen ``code`` of the node, where it runs one.
    """
    asked = request.llm or request.tool or request.code or request.agent
    shown = {} if asked is None else _fields(asked)
    shown |= {name: program[name] for name in _OF_PROGRAM if name in program} if program else {}
    return {key: _shown(value, 0) for key, value in shown.items()}


def _fields(model: BaseModel) -> dict[str, Any]:
    """Return what is set, as on the wire: what is inside is not looked at, it may be large."""
    fields = type(model).model_fields.items()
    found = ((field.alias or name, getattr(model, name), field) for name, field in fields)
    return {alias: value for alias, value, field in found if value != field.get_default(call_default_factory=True)}


def _shown(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return bounded(value, _MAX_REQUEST_TEXT)
    if isinstance(value, BaseModel):
        value = _fields(value)
    if depth >= _MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        return "…"
    if isinstance(value, dict):
        few = list(value.items())[:_MAX_ITEMS]
        return {
            key: REDACTED if isinstance(item, str) and names_secret(key) else _shown(item, depth + 1)
            for key, item in few
        }
    if isinstance(value, (list, tuple)):
        cut = ["…"] if len(value) > _MAX_ITEMS else []
        return [_shown(item, depth + 1) for item in value[:_MAX_ITEMS]] + cut
    return value
