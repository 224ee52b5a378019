"""What the engine and bubblewrap are asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairlead.sandbox.base import Limits
from fairlead.sandbox.bubblewrap import Host, build_command
from fairlead.sandbox.docker import LABEL, build_container
from fairlead.sandbox.jobs import RUNNER_BYTES
from fairlead.sandbox.owners import is_dead, own_id
from fairlead.sandbox.warm import Shape

SHAPE = Shape.of(Limits(memory_bytes=100, disk_bytes=10, processes=5))
HOST = Host(
    bwrap="/usr/bin/bwrap",
    options=frozenset({"--disable-userns"}),
    python=Path("/home/me/python/bin/python3.11"),
    paths=(Path("/home/me/python/bin/python3.11"), Path("/home/me/python/lib/python3.11")),
    hidden=(Path("/home/me/python/lib/python3.11/site-packages"),),
    machine="x86_64",
    root=False,
)


def test_build_container_allows_nothing() -> None:
    body = build_container("image", SHAPE, None)

    host = body["HostConfig"]
    assert (body["User"], body["Env"], body["NetworkDisabled"], host["NetworkMode"]) == (
        "10001:10001",
        [],
        True,
        "none",
    )
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["IpcMode"]) == (True, ["ALL"], "none")
    assert host["SecurityOpt"] == ["no-new-privileges:true"], "and the engine's own seccomp profile"
    assert host["Memory"] == host["MemorySwap"] == 100 + RUNNER_BYTES + 10
    assert (host["PidsLimit"], host["NanoCpus"]) == (6, 10**9)
    assert host["LogConfig"] == {"Type": "none"}
    assert "size=10," in host["Tmpfs"]["/work"]
    assert not host["Binds"]
    assert not host.keys() & {"Privileged", "CapAdd", "Devices", "PidMode", "UsernsMode", "VolumesFrom", "Mounts"}
    assert body["Labels"] == {LABEL: own_id()}


def test_build_container_with_a_network_has_only_the_socket_of_its_proxy() -> None:
    host = build_container("image", SHAPE, Path("/tmp/proxy-1"))["HostConfig"]  # noqa: S108

    assert (host["NetworkMode"], host["Binds"], host["PidsLimit"]) == ("none", ["/tmp/proxy-1:/run/proxy:ro"], 7)  # noqa: S108


@pytest.mark.parametrize("root", [False, True])
def test_build_command_shares_nothing_but_programs(root: bool) -> None:
    command = build_command(Host(**{name: getattr(HOST, name) for name in HOST.__slots__} | {"root": root}), SHAPE, ())

    assert {f"--unshare-{kind}" for kind in ("user", "ipc", "pid", "net", "uts")} <= set(command)
    assert {"--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1"} <= set(command)
    assert (command[0] == "setpriv") == root
    bound = [command[at + 1] for at, word in enumerate(command) if word in {"--ro-bind", "--bind", "--dev-bind"}]
    allowed = ("/usr/bin", "/usr/lib", "/bin", "/lib", "/dev/", "/home/me/python/")
    assert [path for path in bound if not path.startswith(allowed)] == []
    assert "--bind" not in command, "nothing of the host can be written to"
    assert command.index("/home/me/python/lib/python3.11/site-packages") > command.index(
        "/home/me/python/lib/python3.11"
    )
    assert command[command.index("/work") - 2 : command.index("/work")] == ["10", "--tmpfs"]
    assert command[command.index("--") if not root else command.index("--", 5) :][1] == str(HOST.python)


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        pytest.param(own_id(), False, id="this-process"),
        pytest.param(own_id() + "1", True, id="one-that-had-this-number-before"),
        pytest.param("other-boot" + own_id()[36:], True, id="before-the-machine-was-started"),
        pytest.param(f"{own_id().split('.')[0]}.1.{os.getpid()}.1", False, id="in-another-container"),
        pytest.param("", True, id="nobody"),
        pytest.param("nonsense", True, id="nonsense"),
    ],
)
def test_is_dead(owner: str, expected: bool) -> None:
    assert is_dead(owner) is expected
