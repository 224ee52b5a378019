"""Who started sandboxes is killed: nothing of theirs goes on, and the next one tidies up."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import pytest

from fairlead.sandbox.choosing import IMAGE
from fairlead.sandbox.docker import LABEL, Docker
from fairlead.sandbox.owners import is_dead
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


@contextmanager
def killed_owner(backend: str) -> Iterator[str]:
    """Kill a process that runs a program; yield the mark of the program's processes."""
    mark = f"600.{secrets.randbelow(10**9)}"
    with subprocess.Popen([sys.executable, "-c", OWNER, backend, mark]) as owner:
        wait_for("the program", lambda: len(processes_with(mark)) > 2, seconds=60)  # the owner is one
        owner.kill()
    yield mark


def containers_of_the_dead() -> list[str]:
    client = docker.from_env()
    try:
        found = client.api.containers(all=True, filters={"label": LABEL})
    finally:
        client.close()
    return [each["Id"] for each in found if is_dead(each["Labels"][LABEL])]


async def test_kill_of_the_owner_leaves_nothing_behind(backend: str) -> None:
    with killed_owner(backend) as mark:
        wait_for("the end of all", lambda: not processes_with(mark), seconds=60)
    if backend == "docker":
        assert containers_of_the_dead()
        engine = Docker(IMAGE)
        assert await engine.unavailable() is None
        assert containers_of_the_dead() == []
        await engine.aclose()
