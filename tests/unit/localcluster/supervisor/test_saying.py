from __future__ import annotations

import pytest

from fairlead.cli.doctor import _sandbox
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
    assert shown["description"] in describe_sandbox(shown)


def test_doctor_says_how_to_get_a_sandbox() -> None:
    assert _sandbox(BUBBLEWRAP).state == "ok"
    missing = _sandbox(NONE)
    assert (missing.state, "bwrap is not installed" in missing.what) == ("note", True)
    assert "install bubblewrap" in missing.fix
