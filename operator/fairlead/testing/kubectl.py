"""Real kubectl for tests, and waiting for what it shows."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAIT_SECONDS = 120.0
POLL_SECONDS = 0.1
SLOWEST_POLL_SECONDS = 0.5
POLL_SHARE = 3
"""A look at the cluster starts a process: what is waited for gets this many times as long as a look took, at most."""


def wait_for(what: str, condition: Callable[[], Any], *, seconds: float = WAIT_SECONDS) -> Any:
    """Return the first true value of *condition*; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if found := condition():
            return found
        ended = time.monotonic()
        if ended > deadline:
            message = f"waited {seconds:.0f} s for {what}"
            raise AssertionError(message)
        time.sleep(min(SLOWEST_POLL_SECONDS, max(POLL_SECONDS, POLL_SHARE * (ended - began))))


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Kubectl:
    """Real kubectl, on one namespace."""

    kubeconfig: Path
    namespace: str
    home: Path

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl; *check*: anything but success fails the test."""
        environment = {**os.environ, "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(  # noqa: S603 - the caller's words, no shell
            ["kubectl", "-n", self.namespace, *arguments],  # noqa: S607 - the one on the PATH
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            message = f"kubectl {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            raise AssertionError(message)
        return done

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return what it prints."""
        return self.run(*arguments, stdin=stdin).stdout

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object."""
        text = self("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Return the objects of a kind."""
        items: list[dict[str, Any]] = json.loads(self("get", kind, "-o", "json", *arguments))["items"]
        return items

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects, as one file."""
        self("apply", "-f", "-", stdin="\n---\n".join(json.dumps(each) for each in objects))


def condition(obj: Mapping[str, Any] | None, kind: str) -> dict[str, Any]:
    """Return a condition of an object; empty if it is not there."""
    found = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((each for each in found if each["type"] == kind), {})
