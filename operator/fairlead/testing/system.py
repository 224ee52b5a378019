"""The whole system on any cluster: operator and gateway as real processes, agents in the pods the cluster keeps."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.testing.apiserver import ApiServer
from fairlead.testing.kubectl import WAIT_SECONDS, Kubectl, condition, free_port, wait_for
from fairlead.testing.players import Players


@dataclass
class Service:
    """A process of the control plane."""

    module: str
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", self.module],
                env={"PATH": os.environ["PATH"], **self.environment},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End the process as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End the process as a rollout does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass
class System:
    """Everything that runs, and the way to it."""

    cluster: ApiServer
    kubectl: Kubectl
    players: Players
    operator: Service
    gateway: Service
    storage_url: str
    gateway_url: str
    gateway_ca: Path

    def start_run(self, workflow: str, **spec: Any) -> str:
        """Make a WorkflowRun and return its name."""
        name = f"{workflow}-{secrets.token_hex(4)}"
        run = {
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "WorkflowRun",
            "metadata": {"name": name},
            "spec": {"workflowRef": {"name": workflow}, **spec},
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(run))
        return name

    def finished(self, name: str, *, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """Wait for the end of a run."""

        def ended() -> dict[str, Any] | None:
            run = self.kubectl.get("workflowrun", name)
            return run if condition(run, "Finished").get("status") == "True" else None

        found: dict[str, Any] = wait_for(f"the end of run {name}", ended, seconds=seconds)
        return found

    def writes(self, agents: tuple[str, ...] = ("fairlead-operator", "fairlead-gateway")) -> list[dict[str, Any]]:
        """Return the control plane's writes so far, as DESIGN §3 counts them: no Leases, no reviews."""
        uncounted = {"leases", "tokenreviews", "subjectaccessreviews"}
        return [
            record
            for record in self.cluster.audit()
            if record["verb"] in {"create", "update", "patch", "delete"}
            and record["resource"] not in uncounted
            and record["userAgent"].startswith(agents)
        ]


def make_namespace(cluster: ApiServer, folder: Path) -> Kubectl:
    """Make a namespace of its own for a test session."""
    kubectl = Kubectl(cluster.kubeconfig, f"fairlead-test-{secrets.token_hex(4)}", folder)
    kubectl("create", "namespace", kubectl.namespace)
    wait_for("the default service account", lambda: kubectl.get("serviceaccount", "default"))
    return kubectl


def build_system(cluster: ApiServer, kubectl: Kubectl, folder: Path) -> System:
    """Return the system on a cluster; nothing of it runs yet."""
    port, storage = free_port(), f"sqlite:///{folder}/fairlead.db"
    url = os.environ.get("FAIRLEAD_TEST_GATEWAY_URL", f"https://127.0.0.1:{port}")
    shared = {
        "FAIRLEAD_KUBECONFIG": str(cluster.kubeconfig),
        "FAIRLEAD_STORAGE_URL": storage,
        "FAIRLEAD_NAMESPACE": kubectl.namespace,
        "HOME": str(folder),
    }
    gateway = {
        "FAIRLEAD_BIND": "127.0.0.1",
        "FAIRLEAD_PORT": str(port),
        "FAIRLEAD_HOSTS": '["127.0.0.1","localhost"]',
        "FAIRLEAD_ALLOW_LOOPBACK_MODELS": "true",
        "FAIRLEAD_SANDBOX": "none",
        "FAIRLEAD_ALLOW_LOOPBACK_AGENTS": "true",
    }
    operator = {
        "FAIRLEAD_GATEWAY_URL": url,
        "FAIRLEAD_WATCH_NAMESPACES": json.dumps([kubectl.namespace]),
        "FAIRLEAD_PROBE_PORT": "0",
        "FAIRLEAD_SCALE_DOWN_SECONDS": "3",
        # The players play the agents: no node of a cluster may find an image and start one, too.
        "FAIRLEAD_AGENT_IMAGE": "fairlead-agent-played-by-the-test:0",
        "FAIRLEAD_AGENT_IMAGE_PULL_POLICY": "Never",
    }
    return System(
        cluster=cluster,
        kubectl=kubectl,
        players=Players(kubectl, folder / "pods"),
        operator=Service("fairlead.controllers", {**shared, **operator}, folder / "operator.log"),
        gateway=Service("fairlead.gateway", {**shared, **gateway}, folder / "gateway.log"),
        storage_url=storage,
        gateway_url=url,
        gateway_ca=folder / "ca.crt",
    )
