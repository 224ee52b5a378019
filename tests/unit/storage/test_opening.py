from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.errors import TerminalError
from fairlead.storage import open_storage

CANARY = "canary-password-5d1c"


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param(f"{CANARY} is not a URL", id="no-url"),
        pytest.param(f"mysql://root:{CANARY}@host/db", id="unknown-kind"),
        pytest.param("sqlite://", id="memory"),
        pytest.param("sqlite:///:memory:", id="memory-by-name"),
        pytest.param("sqlite://home/fairlead.db", id="two-slashes"),
    ],
)
def test_open_storage_refuses_what_it_does_not_know(url: str) -> None:
    with pytest.raises(TerminalError, match="give sqlite:///path") as caught:
        open_storage(url)

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
async def test_open_storage_touches_nothing_before_it_is_used(tmp_path: Path, scheme: str) -> None:
    storage = open_storage(f"{scheme}:///{tmp_path / 'fairlead.db'}")
    await storage.aclose()

    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a test


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_open_storage_knows_postgres_by_its_names(scheme: str) -> None:
    storage = open_storage(f"{scheme}://user:{CANARY}@host/db?sslmode=require")

    await storage.aclose()


def test_open_storage_of_a_file_does_not_import_what_it_does_not_need() -> None:
    script = (
        "import sys; from fairlead.storage import open_storage; open_storage('sqlite:///x.db'); print(*sys.modules)"
    )

    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()

    assert "sqlalchemy" in loaded
    assert not {"alembic", "asyncpg"} & set(loaded)
