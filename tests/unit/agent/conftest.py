from __future__ import annotations

import pytest

from fairlead.testing.simulation import Simulation


@pytest.fixture
def simulation() -> Simulation:
    """Provide simulated time and a gateway in memory."""
    return Simulation()
