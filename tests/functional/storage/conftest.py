from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead.storage import Storage, open_storage


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fairlead.db'}"
    server = request.getfixturevalue("postgres")
    return server.url(await server.create_database())


@pytest.fixture
async def storage(storage_url: str) -> AsyncIterator[Storage]:
    opened = open_storage(storage_url)
    await opened.migrate()
    yield opened
    await opened.aclose()


@pytest.fixture
async def other(storage: Storage, storage_url: str) -> AsyncIterator[Storage]:
    """The same database, opened a second time, as another process has it."""
    del storage
    opened = open_storage(storage_url)
    yield opened
    await opened.aclose()
