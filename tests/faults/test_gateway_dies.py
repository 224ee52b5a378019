"""The gateway may die before and after every write to storage; the run ends the same, and nothing is paid twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fairlead.testing.stories import EVERYTHING, FAILING, Story, Teller
from fairlead_agent.protocol import Kind

AT_ONCE = 8
"""Calls that are in flight together, at most."""


def assert_nothing_twice(told: Story, calm: Story) -> None:
    ended = Counter((one.node, one.iteration) for one in told.journal if one.kind is Kind.NODE_FINISHED)
    assert set(ended.values()) == {1}, "a node was finished twice"
    repeats = sum(call.repeats for call in told.calls)
    more = {key: count - calm.sent[key] for key, count in told.sent.items() if count > calm.sent[key]}
    assert sum(more.values()) <= repeats, f"sent again without being marked: {more}"
    assert repeats <= told.deaths * AT_ONCE, "more calls were repeated than were in flight"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stride", [pytest.param(9, id="sample"), pytest.param(1, id="all", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param(EVERYTHING, "Succeeded", id="every-construct"),
        pytest.param(FAILING, "NodeFailed", id="failure-with-handlers"),
    ],
)
def test_run_ends_the_same_wherever_the_gateway_dies(
    teller: Teller, spec: dict[str, Any], reason: str, stride: int
) -> None:
    calm = teller.gateways(spec)
    assert (calm.run.reason, calm.deaths) == (reason, 0)
    for boundary in range(calm.boundaries % stride, calm.boundaries, stride):
        told = teller.gateways(spec, lambda life, at=boundary: -1 if life else at)  # type: ignore[misc]
        assert told.deaths == 1, f"boundary {boundary} was not reached"
        assert told.final == calm.final, f"killed at boundary {boundary}"
        assert_nothing_twice(told, calm)


def test_run_ends_the_same_when_gateways_die_again_and_again(teller: Teller) -> None:
    calm = teller.gateways(EVERYTHING)
    told = teller.gateways(EVERYTHING, lambda life: 130 + life % 7)
    assert told.deaths > 1
    assert told.final == calm.final
    assert_nothing_twice(told, calm)
