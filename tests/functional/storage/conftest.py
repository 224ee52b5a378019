from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead.storage import Storage, open_storage
from fairlead.testing.postgres import PostgresServer
from fairlead.testing.storage import migrated_file


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    """The PostgreSQL database that is up to date, once there is one: migrations take far longer than most tests."""
    return {}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn; one that is up to date for who asks for `storage`, too."""
    empty = "storage" not in request.fixturenames
    if request.param == "postgres":
        return await postgres_url(request, empty=empty)
    path = tmp_path / "fairlead.db"
    if not empty:
        path.write_bytes(migrated_file())
    return f"sqlite:///{path}"


async def postgres_url(request: pytest.FixtureRequest, *, empty: bool) -> str:
    server: PostgresServer = request.getfixturevalue("postgres")
    if empty:
        return server.url(await server.create_database())
    templates: dict[str, str] = request.getfixturevalue("templates")
    if "migrated" not in templates:
        templates["migrated"] = await server.create_database()
        opened = open_storage(server.url(templates["migrated"]))
        await opened.migrate()
        await opened.aclose()
    return server.url(await server.create_database(templates["migrated"]))


@pytest.fixture
async def storage(storage_url: str) -> AsyncIterator[Storage]:
    opened = open_storage(storage_url)
    yield opened
    await opened.aclose()


@pytest.fixture
async def other(storage: Storage, storage_url: str) -> AsyncIterator[Storage]:
    """The same database, opened a second time, as another process has it."""
    del storage
    opened = open_storage(storage_url)
    yield opened
    await opened.aclose()
