"""What all kinds share: the model base, metadata, conditions, references and bounded text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

type_of_any: Final[dict[str, Any]] = {"x-kubernetes-preserve-unknown-fields": True, "nullable": True}
"""Any JSON value. Without `nullable` a null passes, and then no rule can compare the object that it is in."""


class KubeModel(BaseModel):
    """A part of an object: camelCase on the wire; attribute docstrings become descriptions in the CRD.

    Reading ignores unknown fields, so that a newer writer does not break an older reader. A person's file is read
    strictly instead, by `fairlead.core.validation`.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )


def rules(*entries: Mapping[str, str], **schema: Any) -> dict[str, Any]:
    """Return the `json_schema_extra` that carries CEL rules, and whatever else the schema needs."""
    return {"x-kubernetes-validations": [dict(entry) for entry in entries], **schema}


def rule(cel: str, message: str, *, expression: str = "", field: str = "", reason: str = "") -> dict[str, str]:
    """Return one CEL rule.

    Args:
        cel: the rule, with the value as `self`.
        message: what a person does to mend it.
        expression: CEL that makes the message from the value; *message* then stands in when it cannot.
        field: where the mistake is, relative to the value (``.scale.max``).
        reason: ``FieldValueRequired``, ``FieldValueForbidden`` …; empty: ``FieldValueInvalid``.
    """
    found = {"rule": cel, "message": message}
    extra = {"messageExpression": expression, "fieldPath": field, "reason": reason}
    return found | {key: value for key, value in extra.items() if value}


LIST_MAP_BY_NAME: Final = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
LIST_SET: Final = {"x-kubernetes-list-type": "set"}

DNS_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

HostName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_NAME)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_NAME)]
"""The name of an object in the same namespace."""
NodeName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9_]{0,62}$")]
InputName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
ToolName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$")]
Reason = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
Expression = Annotated[str, Field(min_length=1, max_length=4096)]
"""CEL."""
Text = Annotated[str, Field(max_length=65_536)]
"""Text for people or models; `{{ }}` in it holds CEL."""
Line = Annotated[str, Field(max_length=1024)]
Url = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^https?://[^\s]+$")]
Money = Annotated[str, Field(max_length=26, pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]
"""An amount as a decimal string: never a float."""
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]
JsonObject = Annotated[dict[str, Any], Field(max_length=256)]
"""A free-form object."""
AnyJson = Annotated[Any, WithJsonSchema(type_of_any)]
"""Any JSON value: a text, a number, a list, an object."""
Quantity = Annotated[
    int | str,
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}),
]
"""A Kubernetes quantity: ``500m``, ``256Mi``, ``1``."""


class ObjectMeta(KubeModel):
    """The part of `metadata` that Fairlead reads."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[dict[str, Any], ...] = ()


class Condition(KubeModel):
    """One aspect of an object's state, as Kubernetes writes it (`metav1.Condition`)."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """The aspect, in PascalCase."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """One word for machines: why it has this status."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """A sentence for people: what happened and what to do next."""
    last_transition_time: datetime
    """When `status` last changed."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The `metadata.generation` that this condition was made from."""


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class StatusBase(KubeModel):
    """What the status of every kind has."""

    observed_generation: int = -1
    """The `metadata.generation` that the operator has last looked at; -1: none yet."""
    conditions: Conditions = ()
    """The state of the object, one entry per aspect."""


class SecretKeyRef(KubeModel):
    """One key of a Secret in the same namespace."""

    name: ObjectName
    """The Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """The key in its data."""


class ValueFrom(KubeModel):
    """Where a secret value is kept."""

    secret_key_ref: SecretKeyRef
    """The key of a Secret that holds the value."""


class SecretValue(KubeModel):
    """A secret value: always a reference, never the value."""

    value_from: ValueFrom
    """Where the value is kept; the gateway reads it when it needs it."""


class RunBudget(KubeModel):
    """A limit on what one run may spend; at least one of the two."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.maxCostUSD) || has(self.maxTokens)",
                "a budget has a limit: set maxCostUSD or maxTokens",
                reason="FieldValueRequired",
            )
        )
    )

    max_cost_usd: Annotated[Money | None, Field(alias="maxCostUSD")] = None
    """US dollars, as a decimal string: `"0.50"`."""
    max_tokens: Annotated[int | None, Field(ge=1, le=1_000_000_000_000)] = None
    """Input and output tokens together."""


class Budget(RunBudget):
    """A limit on what may be spent, by each run or by all in a period; at least one of the two amounts."""

    period: Literal["Run", "Day", "Month"] = "Run"
    """What the limit holds for: each run, or a calendar day or month (UTC)."""


class Usage(KubeModel):
    """Tokens, as the providers counted them."""

    input_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that were sent."""
    output_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that were received."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`. *wide* ones are shown with ``-o wide``."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of the API, with what the CRD says besides the schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    model: type[KubeModel]
    columns: tuple[Column, ...]

    @property
    def singular(self) -> str:
        """The lower-case name of one object."""
        return self.kind.lower()


AGE: Final = Column("Age", ".metadata.creationTimestamp", "When the object was made.", type="date")


def condition_column(name: str, condition: str, field: str, description: str, *, wide: bool = False) -> Column:
    """Return a column that shows *field* of a condition."""
    return Column(name, f'.status.conditions[?(@.type=="{condition}")].{field}', description, wide=wide)
