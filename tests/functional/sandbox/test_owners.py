"""Who started sandboxes is killed: nothing of theirs goes on, and the next one tidies up."""

from __future__ import annotations

import secrets
import subprocess
import sys

import docker
import pytest

from fairlead.sandbox.choosing import IMAGE
from fairlead.sandbox.docker import LABEL, Docker
from fairlead.testing.kubectl import wait_for
from fairlead.testing.sandboxes import processes_with

pytestmark = pytest.mark.process_runtime

OWNER = """
import asyncio, sys
from fairlead.sandbox.base import Job
from fairlead.sandbox.choosing import build_sandbox

program = f"trap '' TERM HUP; (sleep {sys.argv[2]} &); sleep {sys.argv[2]}"
asyncio.run(build_sandbox(sys.argv[1]).run(Job("shell", program)))
"""


def containers_of(owner: int) -> list[str]:
    client = docker.from_env()
    try:
        found = client.api.containers(all=True, filters={"label": LABEL})
    finally:
        client.close()
    return [each["Id"] for each in found if f".{owner}." in each["Labels"][LABEL]]


async def test_kill_of_the_owner_leaves_nothing_behind(backend: str) -> None:
    mark = f"600.{secrets.randbelow(10**9)}"
    with subprocess.Popen([sys.executable, "-c", OWNER, backend, mark]) as owner:  # noqa: ASYNC220
        wait_for("the program", lambda: len(processes_with(mark)) > 2, seconds=60)  # the owner is one
        assert backend != "docker" or containers_of(owner.pid)
        owner.kill()
    wait_for("the end of all", lambda: not processes_with(mark), seconds=60)
    if backend == "docker":
        engine = Docker(IMAGE)
        assert await engine.unavailable() is None
        await engine.aclose()
        assert containers_of(owner.pid) == []
