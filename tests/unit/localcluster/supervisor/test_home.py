from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import orjson
import pytest

from fairlead.errors import TerminalError
from fairlead.localcluster.supervisor.children import trim_log
from fairlead.localcluster.supervisor.home import AlreadyRunning, Home, State, write_file
from fairlead.localcluster.supervisor.ports import choose_ports, free_port, is_free
from fairlead.localcluster.supervisor.processes import Identity


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


def test_create_makes_a_folder_for_its_owner_only(home: Home) -> None:
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert home.logs.is_dir()


def test_create_below_a_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TerminalError, match="FAIRLEAD_HOME"):
        Home(tmp_path / "file" / "home").create()


def test_lock_is_for_one(home: Home) -> None:
    assert not home.locked()
    with home.lock():
        assert home.locked()
        with pytest.raises(AlreadyRunning), home.lock():
            pass
    assert not home.locked()


def test_state_read_gives_what_was_written(home: Home) -> None:
    assert State.read(home) == State()
    state = State({"apiserver": 20_001}, Identity(1, "a"), {"gateway": Identity(2, "b")}, ready=True)
    state.write(home)
    assert State.read(home) == state


def test_state_read_refuses_what_a_newer_version_wrote(home: Home) -> None:
    home.state_file.write_bytes(orjson.dumps({"format": 99, "version": "9.0.0"}))
    with pytest.raises(TerminalError, match=r"written by Fairlead 9\.0\.0, which is newer") as caught:
        State.read(home)
    assert "FAIRLEAD_HOME" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": null}'])
def test_state_read_of_a_broken_file_names_it(home: Home, text: str) -> None:
    home.state_file.write_text(text)
    with pytest.raises(TerminalError, match=r"supervisor\.json cannot be read"):
        State.read(home)


def test_write_file_is_private(tmp_path: Path) -> None:
    write_file(tmp_path / "kubeconfig", b"secret")
    assert stat.S_IMODE((tmp_path / "kubeconfig").stat().st_mode) == 0o600


def test_choose_ports_keeps_what_the_home_has_and_fills_up() -> None:
    mine = free_port()
    chosen = choose_ports({"apiserver": mine}, {})
    assert chosen["apiserver"] == mine
    assert len(set(chosen.values())) == 3
    given = free_port(chosen.values())
    assert choose_ports(chosen, {"gateway": given}) == {**chosen, "gateway": given}


def test_choose_ports_names_the_option_for_a_taken_port() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        assert not is_free(taken)
        with pytest.raises(TerminalError, match=rf"port {taken} \(gateway\) is in use.*--gateway-port"):
            choose_ports({"gateway": taken}, {})


def test_identity_is_of_one_process_and_not_of_its_number() -> None:
    mine = Identity.of(os.getpid())
    assert mine.alive()
    assert not Identity(mine.pid, "another start").alive()
    assert not Identity(mine.pid, "").alive()


def test_trim_log_moves_what_is_too_much(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 100)
        writer.flush()
        trim_log(log, limit=10)
        writer.write(b"y")
    assert log.read_bytes() == b"y"
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 100
