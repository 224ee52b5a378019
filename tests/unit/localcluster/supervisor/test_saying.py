from __future__ import annotations

import pytest

from fairlead.cli.doctor import _engine, _sandbox
from fairlead.localcluster.supervisor.supervisor import describe_sandbox

NONE = {"name": "none", "description": "none: docker: no engine answers; bubblewrap: bwrap is not installed"}
BUBBLEWRAP = {"name": "bubblewrap", "description": "bubblewrap: docker: no engine answers"}


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (BUBBLEWRAP, "bubblewrap: docker: no engine answers; programs run there"),
        (NONE, "tools python and shell are refused"),
    ],
)
def test_describe_sandbox_says_which_and_why(shown: dict[str, str], words: str) -> None:
    assert words in describe_sandbox(shown)
    assert shown["description"].removeprefix("none: ") in describe_sandbox(shown)
    assert describe_sandbox(shown).count("none: ") == words.count("refused")


def test_doctor_says_how_to_get_a_sandbox() -> None:
    assert _sandbox(BUBBLEWRAP).state == "ok"
    missing = _sandbox(NONE)
    assert (missing.state, "bwrap is not installed" in missing.what) == ("note", True)
    assert "install bubblewrap" in missing.fix


def test_doctor_says_of_a_sandbox_that_is_switched_off_which_setting_does_it() -> None:
    off = {"name": "none", "description": "none: sandboxes are switched off (FAIRLEAD_SANDBOX=none): set it to auto"}
    assert "FAIRLEAD_SANDBOX" in _sandbox(off).fix
    assert "install" not in _sandbox(off).fix


def test_doctor_says_what_runs_pods_now() -> None:
    assert (_engine("docker").state, _engine("process").state) == ("ok", "note")
    assert "local processes" in _engine("process").what
