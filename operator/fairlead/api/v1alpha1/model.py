"""Model: where answers come from, what they cost, and how the key is found."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from fairlead.api.meta import (
    AGE,
    LIST_SET,
    Budget,
    Column,
    JsonObject,
    KubeModel,
    Money,
    ObjectMeta,
    ObjectName,
    Resource,
    SecretValue,
    StatusBase,
    Text,
    Url,
    Usage,
    condition_column,
    rule,
    rules,
)


class RateLimit(KubeModel):
    """The most that each gateway process sends in a minute; at least one of the two."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    requests_per_minute: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    """Requests."""
    tokens_per_minute: Annotated[int | None, Field(ge=1, le=10_000_000_000)] = None
    """Tokens, input and output together."""


class ModelBudget(Budget):
    """A limit on what may be spent with this model, in a period or by each run; at least one of the two amounts."""

    period: Literal["Run", "Day", "Month"] = "Month"
    """What the limit holds for: each run, or a calendar day or month (UTC)."""


class Price(KubeModel):
    """What tokens cost, in US dollars as decimal strings."""

    input_per_million_tokens: Money
    """A million tokens sent."""
    output_per_million_tokens: Money
    """A million tokens received."""


class ScriptedToolCall(KubeModel):
    """A tool call that the scripted model asks for."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The tool."""
    arguments: JsonObject = Field(default_factory=dict)
    """Its arguments."""


class ScriptedError(KubeModel):
    """A failure that the scripted model plays, as a provider would."""

    status: Annotated[int, Field(ge=400, le=599)]
    """The HTTP status."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What the provider says."""
    retry_after_seconds: Annotated[int | None, Field(ge=0, le=3600)] = None
    """What its Retry-After header says."""


class ScriptedResponse(KubeModel):
    """One answer. The first entry whose `match` is found in the last text of the user or a tool is used."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.reply) || has(self.toolCalls) || has(self.error)",
                "set reply (a text), toolCalls or error",
                reason="FieldValueRequired",
            ),
            rule(
                "!has(self.error) || !(has(self.reply) || has(self.toolCalls))",
                "error stands alone: remove reply and toolCalls, or remove error",
                reason="FieldValueForbidden",
            ),
        )
    )

    match: Annotated[str | None, Field(min_length=1, max_length=2048)] = None
    """A regular expression, searched in the last text of the user or a tool; absent: it fits everything."""
    reply: Text | None = None
    """The text of the answer."""
    tool_calls: Annotated[tuple[ScriptedToolCall, ...] | None, Field(min_length=1, max_length=32)] = None
    """Tools that the model asks for."""
    latency_ms: Annotated[int | None, Field(ge=0, le=600_000)] = None
    """How long the answer takes, in milliseconds; absent: no time."""
    error: ScriptedError | None = None
    """A failure instead of an answer."""
    times: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """How often this entry answers before the next one that matches does; absent: always."""


class Scripted(KubeModel):
    """Answers that are written here: for tests and offline demonstrations. They are labelled as scripted everywhere."""

    responses: Annotated[tuple[ScriptedResponse, ...], Field(min_length=1, max_length=500)]
    """The answers, tried from first to last."""
    usage: Usage | None = None
    """The tokens that every answer reports; absent: estimated from the lengths of the texts."""


class ModelSpec(KubeModel):
    """Where answers come from: a provider (`model`) or a script (`scripted`)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.model) != has(self.scripted)",
                "set exactly one of model (a LiteLLM model such as ollama_chat/llama3.2) and scripted",
                reason="FieldValueRequired",
            ),
            rule(
                "!has(self.scripted) || !(has(self.baseURL) || has(self.apiKey))",
                "a scripted model calls nobody: remove baseURL and apiKey, or replace scripted by model",
                reason="FieldValueForbidden",
            ),
        )
    )

    model: Annotated[str | None, Field(min_length=1, max_length=256, pattern=r"^[^\s]+$")] = None
    """Any LiteLLM model: `ollama_chat/llama3.2`, `openai/gpt-4.1-mini`, `anthropic/claude-sonnet-4-5`,
    `gemini/gemini-2.5-flash` …"""
    base_url: Annotated[Url | None, Field(alias="baseURL")] = None
    """The provider's address, where it is not the usual one."""
    api_key: SecretValue | None = None
    """The key, in a Secret of this namespace."""
    parameters: JsonObject | None = None
    """Sampling parameters of every call: `temperature`, `max_tokens` …; `stream: false`: no streaming."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """The longest that the provider may take for one answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """How often a call is sent again after a rate limit, a server error or a lost connection."""
    fallbacks: Annotated[
        tuple[ObjectName, ...] | None, Field(min_length=1, max_length=8, json_schema_extra=LIST_SET)
    ] = None
    """Models that are asked instead, in this order, when this one does not answer."""
    rate_limit: RateLimit | None = None
    """The most that is sent in a minute."""
    budget: ModelBudget | None = None
    """What may be spent with this model."""
    price: Price | None = None
    """What tokens cost; absent: LiteLLM's list. A price that neither knows is `n/a`, never 0."""
    scripted: Scripted | None = None
    """Answers that are written here, instead of a provider."""


class ModelStatus(StatusBase):
    """What the operator found."""

    model: Annotated[str, Field(max_length=256)] = ""
    """The LiteLLM model, or `scripted`."""


class Model(KubeModel):
    """A model of a provider: its name, parameters, key reference, limits and price."""

    api_version: str = ""
    kind: Literal["Model"] = "Model"
    metadata: ObjectMeta = ObjectMeta()
    spec: ModelSpec
    """Where answers come from."""
    status: ModelStatus = ModelStatus()
    """What the operator found."""


RESOURCE: Final = Resource(
    kind="Model",
    plural="models",
    short_names=("llm",),
    model=Model,
    columns=(
        condition_column("Ready", "Ready", "status", "Whether it can be asked."),
        Column("Model", ".status.model", "The LiteLLM model, or scripted."),
        AGE,
        condition_column("Reason", "Ready", "reason", "Why it is ready or not.", wide=True),
        condition_column("Message", "Ready", "message", "What to do next.", wide=True),
    ),
)
