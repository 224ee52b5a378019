"""The operator may die before and after everything that it writes; the run ends the same, there is one of it, and its
object says so.
"""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.testing.stories import EVERYTHING, FAILING, Teller


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stride", [pytest.param(3, id="sample"), pytest.param(1, id="all", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param(EVERYTHING, "Succeeded", id="every-construct"),
        pytest.param(FAILING, "NodeFailed", id="failure-with-handlers"),
    ],
)
def test_run_ends_the_same_wherever_the_operator_dies(
    teller: Teller, spec: dict[str, Any], reason: str, stride: int
) -> None:
    calm = teller.operators(spec)
    assert (calm.run.reason, calm.deaths) == (reason, 0)
    for boundary in range(calm.boundaries % stride, calm.boundaries, stride):
        told = teller.operators(spec, lambda life, at=boundary: -1 if life else at)  # type: ignore[misc]
        assert told.deaths == 1, f"boundary {boundary} was not reached"
        assert told.final == calm.final, f"killed at boundary {boundary}"
        assert told.sent == calm.sent
