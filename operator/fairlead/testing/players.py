"""Plays the kubelet's part for agent pods, on a cluster that runs none of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead.testing.kubectl import Kubectl


@dataclass
class Players:
    """Plays agent pods: one process for each that wants to live, restarted as restartPolicy says."""

    kubectl: Kubectl
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    paused: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to play, on a thread."""
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every agent as a drained node does."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for process in self.processes.values():
            self._end(process)

    def kill(self, uid: str) -> None:
        """End a pod's process as a crash does."""
        self.processes[uid].kill()
        self.processes[uid].wait()

    def log(self, uid: str) -> str:
        """Return what a pod's agent has printed."""
        return (self.folder / uid / "log").read_text()

    def _loop(self) -> None:
        while not self._stop.wait(0.2):
            with contextlib.suppress(subprocess.SubprocessError, json.JSONDecodeError):
                self._pass()

    def _pass(self) -> None:
        done = self.kubectl.run("get", "pods", "-l", "app.kubernetes.io/part-of=fairlead", "-o", "json", check=False)
        if done.returncode:
            return
        pods = {pod["metadata"]["uid"]: pod for pod in json.loads(done.stdout)["items"]}
        for uid in [uid for uid in self.processes if uid not in pods]:
            self._end(self.processes.pop(uid))
        for uid, pod in pods.items():
            if "deletionTimestamp" in pod["metadata"]:
                self._finish(uid, pod)
            elif not self.paused:
                self._ensure(uid, pod)

    def _finish(self, uid: str, pod: Mapping[str, Any]) -> None:
        if uid in self.processes:
            self._end(self.processes.pop(uid))
        self.kubectl.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", check=False)

    def _ensure(self, uid: str, pod: Mapping[str, Any]) -> None:
        process = self.processes.get(uid)
        if process is not None and process.poll() is None:
            return
        if process is not None and pod["spec"].get("restartPolicy") != "Always" and process.returncode == 0:
            self._succeed(pod)
            return
        self.processes[uid] = self._begin(uid, pod)

    def _succeed(self, pod: Mapping[str, Any]) -> None:
        """Say that a pod has done what it was for."""
        if pod.get("status", {}).get("phase") != "Succeeded":
            change = json.dumps({"status": {"phase": "Succeeded"}})
            name = pod["metadata"]["name"]
            self.kubectl.run("patch", "pod", name, "--subresource=status", "--type=merge", "-p", change, check=False)

    def _begin(self, uid: str, pod: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        root = self.folder / uid
        mount = root / "var/run/secrets/fairlead.dev"
        mount.mkdir(parents=True, exist_ok=True)
        (mount / "token").write_text(self._token(uid, pod))
        given = {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0].get("env", [])}
        environment = {"PATH": os.environ["PATH"], "CONTAINER_SANDBOX_MOUNT_POINT": str(root), **given}
        with (root / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "fairlead_agent"], env=environment, cwd=root, stdout=log, stderr=log
            )

    def _token(self, uid: str, pod: Mapping[str, Any]) -> str:
        return self.kubectl(
            *("create", "token", pod["spec"].get("serviceAccountName", "default"), "--audience=fairlead-gateway"),
            *("--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}", f"--bound-object-uid={uid}"),
        ).strip()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
