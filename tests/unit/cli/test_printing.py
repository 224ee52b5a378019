from __future__ import annotations

import pytest

from fairlead.cli import exits, printing
from fairlead.cli.run import run_of_file
from fairlead.errors import InvalidObject, TerminalError

EVIL = "\x1b[2Jgone\u202e"
SHOWN = "\\x1b[2Jgone\\u202e"


def test_hint_never_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    printing.hint(EVIL)
    exits.explain(TerminalError(EVIL))
    exits.explain(OSError(EVIL))
    assert capsys.readouterr().err == f"{SHOWN}\nerror: {SHOWN}\nerror: {SHOWN}\n"


def test_tables_and_data_on_a_terminal_never_steer_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    printing.print_rows([[EVIL, "x"]], headers=["A", "B"])
    printing.print_json({"a": "\x9b2J"})
    printing.print_yaml({"a": EVIL})
    printing.print_value(EVIL)
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\u202e"} & set(printed)
    assert printed.count("gone") == 3


def test_data_in_a_pipe_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_value(EVIL)
    assert capsys.readouterr().out == f"{EVIL}\n"


BROKEN = """\
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {name: w}
spec:
  model: m
  nodes:
    - name: a
      needs: [b]
      llm: {prompt: hello}
"""


def test_run_of_a_file_with_a_broken_graph_says_where_and_how_to_mend_it(tmp_path: object) -> None:
    path = f"{tmp_path}/broken.yaml"
    with open(path, "w") as file:  # noqa: PTH123 - a path as on a command line
        file.write(BROKEN)
    with pytest.raises(InvalidObject) as caught:
        run_of_file(path)
    assert 'node "a"' in str(caught.value)
    assert "broken.yaml:8" in str(caught.value)
    assert exits.to_exit_code(caught.value) == 3


@pytest.mark.parametrize(("number", "text"), [(0, "0 files"), (1, "1 file"), (1200, "1,200 files")])
def test_counted_knows_one_from_many(number: int, text: str) -> None:
    assert printing.counted(number, "file") == text
