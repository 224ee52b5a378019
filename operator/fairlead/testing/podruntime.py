"""A real pod runtime for tests: its own process, on an API server of its own, since it takes every pod."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fairlead.localcluster.supervisor.bootstrap import kubeconfig_for
from fairlead.testing.apiserver import ApiServer
from fairlead.testing.containers import docker
from fairlead.testing.kubectl import Kubectl, wait_for

CANARY = "canary-user-5e1"
"""Stands in the environment of the runtime, and must never reach a pod."""


@dataclass
class Runtime:
    """The runtime's process, and kubectl on its API server."""

    server: ApiServer
    folder: Path
    kubectl: Kubectl
    engine: str = "process"
    process: subprocess.Popen[bytes] | None = None

    @property
    def image(self) -> str:
        """An image that it can run, with a shell and Python."""
        return "fairlead-agent:0.1.0" if self.engine == "process" else "fairlead-base:local"

    @property
    def image_variables(self) -> set[str]:
        """The names of the variables that every container has, whatever its pod says."""
        if self.engine == "process":
            return {"CONTAINER_SANDBOX_MOUNT_POINT", "HOME", "LANG", "PATH"}
        shown = docker("image", "inspect", "--format={{json .Config.Env}}", self.image).stdout
        return {"HOME", "HOSTNAME", "PATH", *(each.partition("=")[0] for each in json.loads(shown))}

    @property
    def home_id(self) -> str:
        """What marks everything that it makes in a container engine."""
        return hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]

    @property
    def pods(self) -> Path:
        """Where pods' folders are."""
        return self.folder / "pods"

    def start(self) -> None:
        """Start the process; returns when the node is there."""
        kubeconfig = self.folder / "node.kubeconfig"
        admin = yaml.safe_load(self.server.kubeconfig.read_text())
        kubeconfig.write_text(kubeconfig_for(admin, "node", token=self.server.node_token))
        assert self.server.pod_log_dir is not None  # noqa: S101 - the embedded server has one
        command = [sys.executable, "-m", "fairlead.localcluster.podruntime", "--kubeconfig", str(kubeconfig)]
        command += ["--pods-dir", str(self.pods), "--log-dir", str(self.server.pod_log_dir)]
        gateway = self.folder / "gateway"
        gateway.mkdir(exist_ok=True)
        command += ["--engine", self.engine, "--home-id", self.home_id, "--gateway-dir", str(gateway)]
        with (self.folder / "runtime.log").open("ab") as log:
            environment = {**os.environ, "CANARY": CANARY}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: S603 - our own
        wait_for("the node", lambda: self.kubectl("get", "node", "local", "--ignore-not-found"))

    def stop(self, which: signal.Signals = signal.SIGTERM) -> None:
        """End the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(which)
            self.process.wait(30)

    def left(self, kind: str = "ps", *more: str) -> list[str]:
        """Return the ids of what it has in the engine: containers (``ps``), ``volume``s or ``network``s."""
        what = ["ps", "--all"] if kind == "ps" else [kind, "ls"]
        labels = [f"--filter=label={label}" for label in (f"dev.fairlead.home={self.home_id}", *more)]
        return docker(*what, "--quiet", *labels).stdout.split()

    def container_of(self, pod: str) -> str:
        """Return the container of a pod that has said something."""
        wait_for("it to run", lambda: self.lines(pod))
        (found,) = self.left("ps", f"dev.fairlead.pod={pod}", "dev.fairlead.container=agent")
        return found

    def alive(self, mark: str) -> bool:
        """Whether what `mark` has returned still runs."""
        if self.engine == "docker":
            return docker("inspect", "--format={{.State.Running}}", mark, check=False).stdout.strip() == "true"
        stat = Path(f"/proc/{mark}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"

    def mark(self, pod: str) -> str:
        """Return what runs a pod's first container now: its process's id, or its container's."""
        return str(self.pid_of(pod)) if self.engine == "process" else self.container_of(pod)

    def kill(self, pod: str) -> str:
        """Kill a pod's first container behind the runtime's back; return what ran it."""
        mark = self.mark(pod)
        if self.engine == "process":
            os.kill(int(mark), signal.SIGKILL)
        else:
            docker("kill", mark)
        return mark

    def pid_of(self, pod: str) -> int:
        """Return the process that a pod has said it runs as, in its first line."""
        line = wait_for("its process id", lambda: self.lines(pod))[0]
        return int(line.partition("pid=")[2])

    def lines(self, pod: str) -> list[str]:
        """Return what a pod has said so far."""
        return self.kubectl.run("logs", pod, check=False).stdout.splitlines()

    def pod(self, name: str) -> dict[str, Any]:
        """Return a pod that is there."""
        found = self.kubectl.get("pod", name)
        assert found is not None, name  # noqa: S101 - a test's helper
        return found

    def state(self, name: str) -> dict[str, Any]:
        """Return the status of a pod's first container; empty while it has none."""
        statuses = (self.pod(name).get("status") or {}).get("containerStatuses") or [{}]
        return dict(statuses[0])

    def waits(self, name: str, reason: str) -> str:
        """Wait until a pod's first container waits for *reason*; return the message."""

        def found() -> str:
            waiting = self.state(name).get("state", {}).get("waiting", {})
            return str(waiting["message"]) if waiting.get("reason") == reason else ""

        return str(wait_for(f"{name} to wait for {reason}", found))

    def reasons(self, name: str) -> set[str]:
        """Return the reasons of a pod's events."""
        events = self.kubectl.list("events", "--field-selector", f"involvedObject.name={name}")
        return {event["reason"] for event in events}
