from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.localcluster.supervisor.home import Home
from fairlead.testing.laptop import Laptop


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A home that is up, for all tests of a module; each brings it up again if it takes it down."""
    made = Laptop(Home(tmp_path_factory.mktemp("laptop") / "home"), {"FAIRLEAD_ALLOW_LOOPBACK_TOOLS": "true"})
    made.up()
    yield made
    made.run("down", code=None)


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[Laptop]:
    """A home that is not up."""
    made = Laptop(Home(tmp_path / "home"))
    yield made
    made.run("down", code=None)
