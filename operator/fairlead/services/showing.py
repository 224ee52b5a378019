"""How records are shown as JSON: camelCase, as everything on a wire. Pure."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import Any

from pydantic.alias_generators import to_camel

from fairlead.services.outcomes import dollars


def camel(record: Any, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the fields of a record under their names on the wire."""
    return {
        to_camel(field.name): _plain(getattr(record, field.name))
        for field in fields(record)
        if field.name not in without
    }


def money(record: Any) -> dict[str, Any]:
    """Return what a run or node used and cost. The total is null while the price of a call is unknown."""
    known = dollars(record.cost)
    return {
        "usage": {"inputTokens": record.input_tokens, "outputTokens": record.output_tokens},
        "cost": {
            "total": None if record.unpriced_calls else known,
            "known": known,
            "unpricedCalls": record.unpriced_calls,
            "currency": "USD",
        },
    }


MONEY = frozenset({"cost", "input_tokens", "output_tokens", "unpriced_calls"})
"""The fields that `money` shows."""


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
