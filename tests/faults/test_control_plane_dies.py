"""A gateway or an operator may die before and after everything that it writes.

The run ends the same, there is one of it, its object says so, and nothing is paid twice.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fairlead.testing.stories import EVERYTHING, FAILING, Story, Teller
from fairlead_agent.protocol import Kind

AT_ONCE = {"gateways": 8, "operators": 0}
"""Calls that are in flight together at most, by who dies with them."""
SAMPLE = {"gateways": 17, "operators": 5}
"""Of so many places `make test` takes one."""


def assert_nothing_twice(told: Story, calm: Story, victims: str) -> None:
    ended = Counter((one.node, one.iteration) for one in told.journal if one.kind is Kind.NODE_FINISHED)
    assert set(ended.values()) == {1}, "a node was finished twice"
    repeats = sum(call.repeats for call in told.calls)
    more = {key: count - calm.sent[key] for key, count in told.sent.items() if count > calm.sent[key]}
    assert sum(more.values()) <= repeats, f"sent again without being marked: {more}"
    assert repeats <= told.deaths * AT_ONCE[victims], "more calls were repeated than were in flight"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["sample", "all"])
@pytest.mark.parametrize("victims", SAMPLE)
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param(EVERYTHING, "Succeeded", id="every-construct"),
        pytest.param(FAILING, "NodeFailed", id="failure-with-handlers"),
    ],
)
def test_run_ends_the_same_wherever_one_dies(
    teller: Teller, spec: dict[str, Any], reason: str, victims: str, *, everywhere: bool
) -> None:
    tell, stride = getattr(teller, victims), 1 if everywhere else SAMPLE[victims]
    calm = tell(spec)
    assert (calm.run.reason, calm.deaths) == (reason, 0)
    for boundary in range(calm.boundaries % stride, calm.boundaries, stride):
        told = tell(spec, lambda life, at=boundary: -1 if life else at)
        assert told.deaths == 1, f"boundary {boundary} was not reached"
        assert told.final == calm.final, f"killed at boundary {boundary}"
        assert_nothing_twice(told, calm, victims)


def test_run_ends_the_same_when_gateways_die_again_and_again(teller: Teller) -> None:
    calm = teller.gateways(EVERYTHING)
    told = teller.gateways(EVERYTHING, lambda life: 130 + life % 7)
    assert told.deaths > 1
    assert told.final == calm.final
    assert_nothing_twice(told, calm, "gateways")
