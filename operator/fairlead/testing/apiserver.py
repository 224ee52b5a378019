"""A real embedded API server for tests: its own process, port and folder."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from fairlead.localcluster.apiserver import pki

START_SECONDS = 30.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """How to reach one API server. What only the embedded one has is None elsewhere."""

    url: str
    kubeconfig: Path
    ca_file: Path | None = None
    admin_token: str = ""
    node_token: str = ""
    data_dir: Path | None = None
    audit_log: Path | None = None
    pod_log_dir: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def embedded(self) -> bool:
        """Tell whether this is our own server."""
        return self.data_dir is not None

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit log's records so far."""
        if self.audit_log is None:
            return []
        return [orjson.loads(line) for line in self.audit_log.read_bytes().splitlines()]


@contextlib.contextmanager
def running_apiserver(folder: Path, *, port: int = 0, arguments: Sequence[str] = ()) -> Iterator[ApiServer]:
    """Start a server on what is in *folder*, yield it when it serves, and stop it."""
    server = start_apiserver(folder, port=port, arguments=arguments)
    try:
        yield server
    finally:
        stop_apiserver(server)


def start_apiserver(folder: Path, *, port: int = 0, arguments: Sequence[str] = ()) -> ApiServer:
    """Start a server; end it with `stop_apiserver`, or kill its `process`."""
    data_dir, pod_log_dir = folder / "apiserver", folder / "pod-logs"
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    (data_dir / "ready.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "fairlead.localcluster.apiserver", "--data-dir", str(data_dir)]
    command += ["--port", str(port), "--pod-log-dir", str(pod_log_dir), *arguments]
    log = folder / "apiserver.log"
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603 - our own program
    url = _wait_until_ready(data_dir, process, log=log)
    identity = pki.ensure(data_dir)
    kubeconfig = folder / "kubeconfig"
    pki.write_private(kubeconfig, pki.kubeconfig(url, identity).encode())
    return ApiServer(
        url=url,
        kubeconfig=kubeconfig,
        ca_file=identity.ca_cert,
        admin_token=identity.admin_token,
        node_token=identity.node_token,
        data_dir=data_dir,
        audit_log=data_dir / "audit.log",
        pod_log_dir=pod_log_dir,
        process=process,
    )


def stop_apiserver(server: ApiServer) -> None:
    """Stop the server's process, if it still runs."""
    if server.process is None or server.process.poll() is not None:
        return
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        raise


def _wait_until_ready(data_dir: Path, process: subprocess.Popen[bytes], *, log: Path) -> str:
    ready, deadline = data_dir / "ready.json", time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            message = f"the API server does not start: {log.read_text()}"
            raise RuntimeError(message)
        time.sleep(_POLL_SECONDS)
    return str(orjson.loads(ready.read_bytes())["url"])


def from_kubeconfig(path: Path) -> ApiServer:
    """Return the cluster that a kubeconfig's current context names."""
    document = yaml.safe_load(path.read_text())
    contexts = {each["name"]: each["context"] for each in document["contexts"]}
    clusters = {each["name"]: each["cluster"] for each in document["clusters"]}
    cluster = clusters[contexts[document["current-context"]]["cluster"]]
    return ApiServer(url=cluster["server"], kubeconfig=path)
