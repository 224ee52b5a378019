from __future__ import annotations

import random
from typing import Any

import pytest

from fairlead.tools.base import ToolContext, ToolFailed
from fairlead.tools.checks import check_declared
from fairlead.tools.child import Children

MANY = {"type": "object", "properties": {"a": {"items": {"allOf": [{"type": "integer"}] * 500}}}}
"""Takes half a minute for a million values."""
STATES = {"type": "object", "properties": {"a": {"pattern": "^[ab]*a[ab]{9000}c"}}}
"""Looks at each of its thousands of states for each character."""


async def check(schema: Any, value: Any, *, seconds: float = 30) -> None:
    async def read(name: str, key: str) -> bytes:
        raise AssertionError(name, key)

    context = ToolContext(read, seconds, "ns")
    await check_declared("t", schema, {"a": value}, children=Children(), context=context)


async def test_check_declared_what_takes_long_is_checked_in_a_child() -> None:
    await check(MANY, [1] * 20_000)
    with pytest.raises(ToolFailed, match=r"^arguments\.a\.20000 of the tool t: the value is not of type") as failed:
        await check(MANY, [*[1] * 20_000, "canary"])
    assert failed.value.reason == "InvalidArguments"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param(MANY, [1] * 2_000_000, id="many-values"),
        pytest.param(STATES, "".join(random.Random(1).choices("ab", k=500_000)), id="many-states"),  # noqa: S311
    ],
)
async def test_check_declared_what_takes_too_long_is_ended(schema: Any, value: Any) -> None:
    with pytest.raises(ToolFailed) as failed:
        await check(schema, value, seconds=1)
    assert failed.value.reason in {"ToolTimeout", "LimitExceeded"}
