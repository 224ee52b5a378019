"""What the enumerations of crash points share."""

from __future__ import annotations

import pytest

from fairlead.testing.stories import Teller


@pytest.fixture(scope="session")
def teller() -> Teller:
    """Return what runs workflows while something dies."""
    return Teller()
