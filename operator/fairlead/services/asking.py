"""Asks the Models of a run's frozen revision: finds the key, the script, the price."""

from __future__ import annotations

import base64
import binascii
from collections import Counter, OrderedDict
from typing import Final, TypeVar

from pydantic import ValidationError

from fairlead.api.v1alpha1.model import ModelSpec
from fairlead.clock import Clock
from fairlead.core import names
from fairlead.errors import FairleadError, InvalidObject, RetryableError, TerminalError
from fairlead.kube import KubeClient, Ref
from fairlead.llm.base import ChatMessage, ChatModel, ChatRequest, Completion
from fairlead.llm.prices import FREE, TokenPrice, cost, listed_price, price_per_million
from fairlead.llm.providers import ProviderModel, Providers, Target
from fairlead.llm.retrying import Retrying
from fairlead.llm.scripted import Script, ScriptedModel
from fairlead.services.outcomes import Outcome, dollars
from fairlead.services.tasks import TaskContext
from fairlead.tracing.attributes import attributes
from fairlead_agent.protocol import CallReply, LlmRequest, Usage

_KEPT: Final = 256
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Models:
    """Asks providers and scripts."""

    def __init__(self, kube: KubeClient, clock: Clock, providers: Providers) -> None:
        self._kube = kube
        self._clock = clock
        self._providers = providers
        self._scripts: OrderedDict[str, Script] = OrderedDict()
        self._used: OrderedDict[tuple[str, str], Counter[int]] = OrderedDict()

    async def ask(self, context: TaskContext, request: LlmRequest, *, timeout_seconds: float) -> Outcome:
        """Return the answer of a Model."""
        spec = _spec(context, request.model)
        model = Retrying(await self._model(context, request.model, spec), self._clock, retries=spec.retries)
        chat = ChatRequest(
            messages=tuple(ChatMessage(m.role, m.content) for m in request.messages),
            output=request.output,
            parameters=request.parameters,
            timeout_seconds=min(spec.timeout_seconds, timeout_seconds),
        )
        try:
            completion = await model.complete(chat)
        except FairleadError as error:
            raise error.within(_who(request.model, spec)) from error
        return _outcome(spec, completion)

    async def _model(self, context: TaskContext, name: str, spec: ModelSpec) -> ChatModel:
        if spec.scripted is not None:
            return ScriptedModel(self._script(spec), self._clock, self._counter(context.run_uid, name))
        key = "" if spec.api_key is None else await self._key(context.namespace, name, spec)
        target = Target(spec.model or "", spec.base_url or "", key, spec.parameters or {})
        return ProviderModel(self._providers, target)

    def _script(self, spec: ModelSpec) -> Script:
        if spec.scripted is None:
            raise TerminalError("no script")
        key = names.digest(spec.scripted.model_dump(mode="json"))
        script = self._scripts.get(key) or Script(spec.scripted)
        return _remember(self._scripts, key, script)

    def _counter(self, run_uid: str, model: str) -> Counter[int]:
        """`times` counts within a run."""
        key = (run_uid, model)
        return _remember(self._used, key, self._used.get(key) or Counter())

    async def _key(self, namespace: str, model: str, spec: ModelSpec) -> str:
        if spec.api_key is None:
            return ""
        ref = spec.api_key.value_from.secret_key_ref
        where = f"key {ref.key} of Secret {namespace}/{ref.name}, which Model {model} names"
        secret = await self._kube.get(Ref("v1", "Secret", ref.name, namespace))
        encoded = ((secret or {}).get("data") or {}).get(ref.key)
        if not encoded:
            raise RetryableError(f"there is no {where}: create it", reason="SecretNotFound")
        try:
            return base64.b64decode(encoded, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            raise TerminalError(f"the {where} is no text", reason="InvalidSecret") from None


def _remember(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
    return value


def _who(name: str, spec: ModelSpec) -> str:
    address = f" at {spec.base_url}" if spec.base_url else ""
    return f"Model {name} ({spec.model or 'scripted'}{address})"


def _spec(context: TaskContext, name: str) -> ModelSpec:
    raw = (context.document.get("models") or {}).get(name)
    if raw is None:
        raise TerminalError(f"the run's revision has no Model {name}", reason="ModelNotFound")
    try:
        return ModelSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidObject(f"Model {name}: {place}: {first['msg']}", field=place) from None


def _price(spec: ModelSpec, completion: Completion) -> TokenPrice | None:
    if spec.price is not None:
        return price_per_million(
            input_tokens=spec.price.input_per_million_tokens, output_tokens=spec.price.output_per_million_tokens
        )
    return FREE if completion.scripted else listed_price(spec.model or "", completion.usage)


def _outcome(spec: ModelSpec, completion: Completion) -> Outcome:
    price = _price(spec, completion)
    amount = None if price is None else cost(price, completion.usage)
    usage = completion.usage
    return Outcome(
        reply=CallReply(
            result=completion.text,
            usage=Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens),
            cost=dollars(amount),
            scripted=completion.scripted,
        ),
        cost=amount,
        priced=True,
        attributes=attributes(
            gen_ai__operation__name="chat",
            gen_ai__request__model=spec.model or completion.model,
            gen_ai__response__model=completion.model,
            gen_ai__response__finish_reasons=completion.finish_reason,
            gen_ai__usage__input_tokens=usage.input_tokens,
            gen_ai__usage__output_tokens=usage.output_tokens,
            fairlead__usage__estimated=usage.estimated or None,
        ),
    )
