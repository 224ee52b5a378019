"""A chain of steps on DBOS with SQLite: each step's result is durable before the next."""

from __future__ import annotations

import sys
from pathlib import Path

from dbos import DBOS

LENGTH = 40


@DBOS.step()
def step() -> str:
    """Do nothing but answer."""
    return "a short answer " * 20


@DBOS.workflow()
def chain() -> None:
    """Run the steps one after the other."""
    for _ in range(LENGTH):
        step()


def main(folder: str) -> None:
    """Run chains as asked for."""
    url = f"sqlite:///{Path(folder) / 'dbos.db'}"
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})
    DBOS.launch()
    for line in sys.stdin:
        for _ in range(int(line) // LENGTH):
            chain()
        print("done", flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
