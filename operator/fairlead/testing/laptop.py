"""Laptop mode for tests: a home of its own, driven by the real command line and real kubectl."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import yaml

from fairlead.localcluster.supervisor.home import Home, State
from fairlead.testing.kubectl import Kubectl, wait_for

_SECONDS = 240


@dataclass(frozen=True)
class Laptop:
    """One home."""

    home: Home
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further settings of its processes, as environment variables."""
    runtime: str = "process"
    """What runs its pods, whatever else this machine has."""

    @property
    def kubectl(self) -> Kubectl:
        """Real kubectl with the kubeconfig that `up` wrote."""
        return Kubectl(self.home.kubeconfig, "default", self.home.root.parent)

    @property
    def state(self) -> State:
        """What the supervisor says about itself."""
        return State.read(self.home)

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line and do not wait for it."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FAIRLEAD_", "KUBECONFIG"))}
        own = {
            "FAIRLEAD_HOME": str(self.home.root),
            "HOME": str(self.home.root.parent),
            "FAIRLEAD_RUNTIME": self.runtime,
            "FAIRLEAD_SANDBOX": "bubblewrap",
        }
        environment = {**inherited, **own, **self.settings}
        return subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "fairlead.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run the command line. *code*: what it must end with; None: anything."""
        process = self.command(*arguments)
        out, err = process.communicate(timeout=_SECONDS)
        if code is not None and process.returncode != code:
            message = f"fairlead {' '.join(arguments)} ended with {process.returncode}, not {code}:\n{out}{err}"
            raise AssertionError(message)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def __call__(self, *arguments: str) -> str:
        """Run the command line and return what it prints."""
        return self.run(*arguments).stdout

    def up(self) -> None:
        """Bring the home up."""
        self.run("up", "--detach")

    def crash(self) -> None:
        """Kill the supervisor, as a crash does; returns when all that it started is gone, too."""
        state = self.state
        assert state.supervisor is not None  # noqa: S101 - it runs
        state.supervisor.signal(signal.SIGKILL)
        wait_for("its children to end", lambda: not any(child.alive() for child in state.children.values()))

    def agent_pid(self, pod: str = "default-0") -> int:
        """Return the process of an agent's pod, from the runtime's log."""
        records = [json.loads(line) for line in (self.home.logs / "podruntime.log").read_text().splitlines() if line]
        started = [each for each in records if each.get("event") == "container_started" and each["name"] == pod]
        return int(started[-1]["pid"])

    def journal(self, run: str) -> list[dict[str, Any]]:
        """Return a run's journal, as the gateway shows it."""
        return self.read(run, "journal")

    def read(self, run: str, part: str) -> list[dict[str, Any]]:
        """Return what the gateway shows of a run: its ``journal``, ``calls``, ``trace`` or ``logs``."""
        items: list[dict[str, Any]] = self.ask(f"{run}/{part}")["items"]
        return items

    def find(self, run: str) -> dict[str, Any] | None:
        """Return the gateway's record of a run; None before it is accepted."""
        try:
            return self.ask(run)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def ask(self, path: str) -> dict[str, Any]:
        """Return what the gateway answers below ``runs/``; for the name of a run, its record with its nodes."""
        found: dict[str, Any] = self._gateway("GET", f"v1/namespaces/default/runs/{path}")
        return found

    def say(self, agent: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Speak A2A with an agent; return the result."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._gateway("POST", f"a2a/v1/default/{agent}", json=call)
        if "result" not in answer:
            raise AssertionError(answer)
        found: dict[str, Any] = answer["result"]
        return found

    def _gateway(self, method: str, path: str, **more: Any) -> Any:
        gateway = json.loads(self.home.gateway_file.read_text())
        token = yaml.safe_load(self.home.kubeconfig.read_text())["users"][0]["user"]["token"]
        answer = httpx.request(
            method,
            f"{gateway['url']}/{path}",
            headers={"Authorization": f"Bearer {token}", "A2A-Version": "1.0"},
            verify=ssl.create_default_context(cafile=gateway["ca"]),
            trust_env=False,
            timeout=60,
            **more,
        )
        return answer.raise_for_status().json()

    def wait_for(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait for something, with more patience: everything is real here."""
        return wait_for(what, condition, seconds=120)
