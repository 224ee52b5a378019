"""Asks the Models of a run's frozen revision: finds the key, the script, the price; falls back where one fails."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from fairlead.api.v1alpha1.model import ModelSpec, Scripted
from fairlead.clock import Clock
from fairlead.errors import FairleadError, InvalidObject, RetryableError, TerminalError
from fairlead.kube import KubeClient
from fairlead.llm.base import (
    AnswerLost,
    ChatMessage,
    ChatModel,
    ChatRequest,
    Completion,
    ToolCall,
    ToolDefinition,
)
from fairlead.llm.breaker import Breaker
from fairlead.llm.limits import Rate, RateLimiter
from fairlead.llm.providers import ProviderModel, Providers
from fairlead.llm.requests import Target
from fairlead.llm.retrying import PATIENCE_SECONDS, Care, Retrying, may_go_on
from fairlead.llm.scripted import Script, ScriptedModel
from fairlead.services.answering import Paid, build_failure, build_outcome
from fairlead.services.budgets import (
    Candidate,
    budget_lines,
    build_reservation,
    cut_off,
    input_bound,
    longest_answer,
)
from fairlead.services.outcomes import Outcome, to_error_info
from fairlead.services.secrets import read_secret
from fairlead.services.tasks import TaskContext
from fairlead.storage.base import Reservation
from fairlead_agent.protocol import LlmRequest, Message, ToolInfo
from fairlead_agent.schema_sizes import SchemaRefused, weigh

FindTool = Callable[[TaskContext, str], ToolInfo | None]
"""Returns what a model is told of a tool."""
Report = Callable[[str, str, str], Awaitable[None]]
"""Is told the namespace and the name of a Model, and why a request to it failed, or nothing."""
_KEPT: Final = 256
_SHORT_PATIENCE: Final = 5.0
"""What is waited for between two tries where another Model can be asked instead."""
_MARGIN: Final = 0.98
"""Of the time of a call; the rest is for saying what came of it."""
_OTHERS_MAY: Final = frozenset({"AuthenticationFailed", "ContextTooLong", "InvalidSecret", "ModelNotFound"})
"""Reasons for which the same request will fail again, but not with another Model."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(slots=True)
class _Known:
    """A Model of a frozen document, read once."""

    document: Mapping[str, Any]
    """Kept, so that no other can have its identity."""
    candidate: Candidate
    compiled: Script | None = None

    def script(self, scripted: Scripted) -> Script:
        """Return the compiled script."""
        if self.compiled is None:
            self.compiled = Script(scripted)
        return self.compiled


class Models:
    """Asks providers and scripts.

    Args:
        find_tool: knows the tools that models are offered.
        report: is told what came of asking a Model.
        jitter: gives numbers from 0 to 1.
    """

    def __init__(
        self,
        kube: KubeClient,
        clock: Clock,
        providers: Providers,
        *,
        find_tool: FindTool,
        report: Report | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._providers = providers
        self._find_tool = find_tool
        self._report = report
        self._jitter = jitter
        self._known: OrderedDict[tuple[int, str], _Known] = OrderedDict()
        self._used: OrderedDict[tuple[str, str], Counter[int]] = OrderedDict()
        self._breakers: OrderedDict[tuple[str, ...], Breaker] = OrderedDict()
        self._limiters: OrderedDict[tuple[str, str], RateLimiter] = OrderedDict()

    def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation | None:
        """Return what a call may cost at worst, and the budgets that it counts against; None: there are none.

        Raises:
            TerminalError: with reason ``PriceUnknown``, or the Model or a tool is wrong.
        """
        candidates = self._candidates(context, request.model)
        lines = budget_lines(context, candidates, at=self._clock.now())
        return build_reservation(lines, candidates, request, self._tools(context, request) if lines else ())

    async def ask(
        self, context: TaskContext, request: LlmRequest, *, timeout_seconds: float, max_output_tokens: int | None = None
    ) -> Outcome:
        """Return the answer of a Model, or of one of its fallbacks.

        *max_output_tokens* is what the budgets granted, if any count.
        """
        deadline = self._clock.monotonic() + timeout_seconds * _MARGIN
        candidates = self._candidates(context, request.model)
        chat = self._chat(context, request)
        if max_output_tokens is not None:
            chat = replace(chat, granted_input_tokens=input_bound(request, chat.tools))
        paid: list[Paid] = []
        failures: list[FairleadError] = []
        for candidate in candidates:
            asked = _for(candidate, chat, max_output_tokens)
            last = candidate is candidates[-1]
            try:
                done = await self._ask(context, candidate, asked, deadline=deadline, last=last)
            except (AnswerLost, FairleadError) as failure:
                error = failure.error if isinstance(failure, AnswerLost) else failure
                lost = failure.lost if isinstance(failure, AnswerLost) else ()
                paid += [Paid(candidate, usage) for usage in lost]
                failures.append(error.within(_who(candidate)))
                await self._tell(context, candidate, error.reason)
                if last or not _another_may(error) or not may_go_on(asked, [each.usage for each in paid]):
                    break
            else:
                paid += [Paid(candidate, usage) for usage in done.lost]
                await self._tell(context, candidate, "")
                return _checked(candidate, asked, build_outcome(candidate, done, paid, failures), done)
        if not paid:
            raise _all_failed(failures)
        return build_failure(candidates[0], _all_failed(failures), paid)

    async def _tell(self, context: TaskContext, candidate: Candidate, reason: str) -> None:
        if self._report is not None:
            await self._report(context.namespace, candidate.name, reason)

    async def _ask(
        self, context: TaskContext, candidate: Candidate, chat: ChatRequest, *, deadline: float, last: bool
    ) -> Completion:
        spec = candidate.spec
        place = (context.namespace, candidate.name)
        breaker = (*place, spec.model or "", spec.base_url or "")
        rate = spec.rate_limit
        care = Care(
            breaker=_kept(self._breakers, breaker, lambda: Breaker(self._clock)),
            limiter=_kept(self._limiters, place, lambda: RateLimiter(self._clock)),
            jitter=self._jitter,
            rate=None if rate is None else Rate(rate.requests_per_minute, rate.tokens_per_minute),
            retries=spec.retries,
            patience=PATIENCE_SECONDS if last else _SHORT_PATIENCE,
        )
        model = await self._model(context, candidate)
        return await Retrying(model, self._clock, care).complete(chat, deadline=deadline)

    async def _model(self, context: TaskContext, candidate: Candidate) -> ChatModel:
        spec = candidate.spec
        if spec.scripted is not None:
            script = self._find(context, candidate.name).script(spec.scripted)
            used = _kept(self._used, (context.run_uid, candidate.name), Counter)  # `times` counts within a run
            return ScriptedModel(script, self._clock, used)
        key = ""
        if spec.api_key is not None:
            ref = spec.api_key.value_from.secret_key_ref
            key = await read_secret(self._kube, context.namespace, ref, whose=f"Model {candidate.name}")
        target = Target(spec.model or "", spec.base_url or "", key, spec.parameters or {})
        return ProviderModel(self._providers, target)

    def _candidates(self, context: TaskContext, name: str) -> tuple[Candidate, ...]:
        """Return the Model that is asked and its fallbacks, in order."""
        first = self._find(context, name).candidate
        others = [other for other in first.spec.fallbacks or () if other != name]
        return (first, *(self._find(context, other).candidate for other in others))

    def _find(self, context: TaskContext, name: str) -> _Known:
        document = context.document
        return _kept(self._known, (id(document), name), lambda: _Known(document, _candidate(context, name)))

    def _chat(self, context: TaskContext, request: LlmRequest) -> ChatRequest:
        tools = self._tools(context, request)
        _check_schema("output", request.output or {})
        for tool in tools:
            _check_schema(f"the parameters of the tool {tool.name}", tool.parameters)
        return ChatRequest(
            messages=tuple(_message(message) for message in request.messages),
            output=request.output,
            parameters=request.parameters,
            tools=tools,
        )

    def _tools(self, context: TaskContext, request: LlmRequest) -> tuple[ToolDefinition, ...]:
        found = [(name, self._find_tool(context, name)) for name in request.tools]
        missing = next((name for name, info in found if info is None), None)
        if missing is not None:
            raise TerminalError(f"there is no tool {missing}", reason="ToolNotFound")
        return tuple(ToolDefinition(i.name, i.description, i.parameters) for _, i in found if i is not None)


def _kept(kept: OrderedDict[_Key, _Value], key: _Key, make: Callable[[], _Value]) -> _Value:
    """Return what is kept under *key*, made now if it is not there; the one not used for longest is forgotten."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
    return kept[key]


def _check_schema(what: str, schema: Mapping[str, Any]) -> None:
    """Refuse a schema that would grow without end where a provider's references are unfolded."""
    try:
        weigh(dict(schema))
    except SchemaRefused as error:
        raise TerminalError(f"{what} is no usable JSON Schema: {error}", reason="InvalidSpec") from None


def _message(message: Message) -> ChatMessage:
    calls = tuple(ToolCall(call.id, call.name, call.arguments, call.raw) for call in message.tool_calls)
    return ChatMessage(message.role, message.content, calls, message.tool_call_id)


def _for(candidate: Candidate, chat: ChatRequest, granted: int | None) -> ChatRequest:
    """Return the request with the candidate's own time, and no more output than it and the budgets allow."""
    most = None if granted is None else min(granted, longest_answer(candidate.spec, chat.parameters))
    return replace(chat, timeout_seconds=float(candidate.spec.timeout_seconds), granted_output_tokens=most)


def _checked(candidate: Candidate, asked: ChatRequest, outcome: Outcome, done: Completion) -> Outcome:
    """Return the outcome; an answer that the budget cut off is none."""
    granted = asked.granted_output_tokens
    if granted is None or done.finish_reason != "length" or granted >= longest_answer(candidate.spec, asked.parameters):
        return outcome
    error = to_error_info(cut_off(granted))
    return replace(outcome, reply=outcome.reply.model_copy(update={"error": error, "result": None}))


def _another_may(error: FairleadError) -> bool:
    return isinstance(error, RetryableError) or error.reason in _OTHERS_MAY


def _all_failed(failures: Sequence[FairleadError]) -> FairleadError:
    """Return one error for those of all Models that were asked; it is the last one's, with the others named."""
    error = copy(failures[-1])
    error.args = ("; then ".join(str(failure) for failure in failures),)
    return error


def _who(candidate: Candidate) -> str:
    spec = candidate.spec
    address = f" at {spec.base_url}" if spec.base_url else ""
    return f"Model {candidate.name} ({spec.model or 'scripted'}{address})"


def _candidate(context: TaskContext, name: str) -> Candidate:
    models: Mapping[str, Any] = context.document.get("models") or {}
    if name not in models:
        raise TerminalError(f"the run's revision has no Model {name}", reason="ModelNotFound")
    try:
        return Candidate(name, ModelSpec.model_validate(models[name]))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidObject(f"Model {name}: {place}: {first['msg']}", field=place) from None
