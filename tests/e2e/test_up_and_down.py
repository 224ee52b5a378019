"""Homes: what `up` leaves behind, what it refuses, and that `down` ends no more than it started."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from fairlead.localcluster.supervisor.home import State
from fairlead.localcluster.supervisor.ports import free_port
from fairlead.testing.laptop import Laptop

pytestmark = pytest.mark.process_runtime


def test_up_twice_is_one_instance_and_status_shows_it(laptop: Laptop) -> None:
    before = laptop.state
    assert "already running" in laptop.run("up").stderr
    assert laptop.state == before
    shown = laptop("status")
    for expected in ("ready", "apiserver", "gateway", "operator", "podruntime", str(laptop.home.kubeconfig)):
        assert expected in shown


def test_home_is_for_its_owner_only(laptop: Laptop) -> None:
    readable = [
        path
        for folder, _, files in os.walk(laptop.home.root)
        for path in [folder, *(os.path.join(folder, file) for file in files)]  # noqa: PTH118 - plain strings
        if not os.path.islink(path) and stat.S_IMODE(os.stat(path).st_mode) & 0o077  # noqa: PTH114, PTH116
    ]
    assert not readable


def test_everything_listens_on_loopback_only(laptop: Laptop) -> None:
    ports = set(laptop.state.ports.values())
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) in ports
    ]
    assert len(listening) == len(ports)
    assert {address.partition(":")[0] for address in listening} == {"0100007F"}


def test_secrets_are_in_no_log(laptop: Laptop) -> None:
    import yaml

    token = yaml.safe_load(laptop.home.kubeconfig.read_text())["users"][0]["user"]["token"]
    logs = "".join(path.read_text(errors="replace") for path in laptop.home.logs.rglob("*.log"))
    assert logs
    assert token not in logs
    assert "eyJ" not in logs


def test_crashed_child_is_started_again(laptop: Laptop) -> None:
    before = laptop.state.children["podruntime"]
    assert before.signal(signal.SIGKILL)

    def restarted() -> bool:
        now = laptop.state.children.get("podruntime")
        return now is not None and now != before and now.alive()

    laptop.wait_for("the pod runtime to be back", restarted)
    assert laptop.state.supervisor is not None


def test_second_home_runs_beside_and_down_ends_only_its_own(laptop: Laptop, spare: Laptop) -> None:
    spare.up()
    assert not set(spare.state.ports.values()) & set(laptop.state.ports.values())
    children = dict(spare.state.children)
    spare("down")
    assert not any(child.alive() for child in children.values())
    assert all(child.alive() for child in laptop.state.children.values())
    assert "does not run" in spare.run("down").stderr
    assert spare.run("status", code=1).stdout.splitlines()[1].split() == ["state", "stopped"]


def test_down_leaves_a_process_that_has_only_the_number(spare: Laptop) -> None:
    from fairlead.localcluster.supervisor.processes import Identity

    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    spare.home.create()
    State({}, Identity(stranger.pid, "1"), {"gateway": Identity(stranger.pid, "1")}).write(spare.home)
    assert "does not run" in spare.run("down").stderr
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_up_on_a_busy_port_says_which(spare: Laptop) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = spare.run("up", "--port", str(port), code=1)
    assert f"port {port} (apiserver) is in use" in done.stderr


def test_up_in_a_home_of_a_newer_version_is_refused(spare: Laptop) -> None:
    spare.home.create()
    spare.home.state_file.write_bytes(orjson.dumps({"format": 99, "version": "9.0.0"}))
    assert "newer than this one" in spare.run("up", "--detach", code=1).stderr


@pytest.mark.parametrize("detach", [True, False])
def test_up_with_a_broken_database_says_so_and_leaves_nothing_running(spare: Laptop, *, detach: bool) -> None:
    spare.home.create()
    (spare.home.apiserver / "cluster.db").write_bytes(b"this is no database, " * 100)
    done = spare.run("up", *(["--detach"] if detach else []), code=1)
    assert "cluster.db is not a database any more" in done.stderr
    assert "Traceback" not in done.stderr
    assert not spare.home.locked()


def test_up_in_a_place_that_cannot_be_written_to_says_so(spare: Laptop) -> None:
    (spare.home.root.parent / "file").write_text("")
    below = str(spare.home.root.parent / "file" / "home")
    assert "FAIRLEAD_HOME" in spare.run("up", "--detach", "--home", below, code=1).stderr


def test_up_in_front_ends_with_ctrl_c_and_leaves_nothing(spare: Laptop) -> None:
    port = free_port()
    process = spare.command("up", "--port", str(port))
    spare.wait_for("it to be ready", lambda: process.poll() is not None or State.read(spare.home).ready)
    children = dict(spare.state.children)
    assert spare.state.ports["apiserver"] == port
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 0, said
    assert "export KUBECONFIG=" in said
    assert "process" in said
    assert not any(child.alive() for child in children.values())
