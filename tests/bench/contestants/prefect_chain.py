"""A chain of tasks on Prefect with the server and the SQLite that it starts itself."""

from __future__ import annotations

import os
import sys

os.environ |= {
    "PREFECT_HOME": sys.argv[1],
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

from prefect import flow, task

LENGTH = 40


@task(persist_result=True)
def step(_previous: str) -> str:
    """Do nothing but answer."""
    return "a short answer " * 20


@flow(persist_result=True)
def chain() -> str:
    """Run the tasks one after the other."""
    answer = ""
    for _ in range(LENGTH):
        answer = step(answer)
    return answer


def main() -> None:
    """Run chains as asked for."""
    for line in sys.stdin:
        for _ in range(int(line) // LENGTH):
            chain()
        print("done", flush=True)


if __name__ == "__main__":
    main()
