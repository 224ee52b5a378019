"""A real process pod runtime for tests: its own process, on an API server of its own, since it takes every pod."""

from __future__ import annotations

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
from fairlead.testing.kubectl import Kubectl, wait_for

CANARY = "canary-user-5e1"
"""Stands in the environment of the runtime, and must never reach a pod."""


@dataclass
class Runtime:
    """The runtime's process, and kubectl on its API server."""

    server: ApiServer
    folder: Path
    kubectl: Kubectl
    process: subprocess.Popen[bytes] | None = None

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
        with (self.folder / "runtime.log").open("ab") as log:
            environment = {**os.environ, "CANARY": CANARY}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: S603 - our own
        wait_for("the node", lambda: self.kubectl("get", "node", "local", "--ignore-not-found"))

    def stop(self, which: signal.Signals = signal.SIGTERM) -> None:
        """End the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(which)
            self.process.wait(30)

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

    def reasons(self, name: str) -> set[str]:
        """Return the reasons of a pod's events."""
        events = self.kubectl.list("events", "--field-selector", f"involvedObject.name={name}")
        return {event["reason"] for event in events}
