from __future__ import annotations

from typing import Any

import pytest

from fairlead.cli.printing import duration, for_screen, money, print_rows, print_value, print_yaml
from fairlead.cli.reading import log_text


def test_log_text_shows_level_node_and_time() -> None:
    line = {"at": "2026-11-21T12:00:00Z", "level": "error", "node": "draft", "text": "it broke"}
    assert log_text(line, timestamps=False) == "ERROR [draft] it broke"
    assert log_text({**line, "level": "info", "node": ""}, timestamps=True) == "2026-11-21T12:00:00Z it broke"


@pytest.mark.parametrize(("total", "text"), [("0.0134", "$0.0134"), (None, "n/a"), ("n/a", "n/a"), ("0", "$0")])
def test_money_of_what_is_known_and_what_is_not(total: Any, text: str) -> None:
    assert money(total) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.0041, "4ms"), (3.44, "3.4s"), (59.0, "59.0s"), (61, "1m1s"), (3700, "1h1m"), (90_000, "1d1h")],
)
def test_duration_has_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_print_value_leaves_text_alone_and_shows_the_rest_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_value("# Report\n")
    print_value({"a": [1]})
    assert capsys.readouterr().out == '# Report\n{\n  "a": [\n    1\n  ]\n}\n'


def test_print_yaml_writes_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    print_yaml({"text": "one\ntwo\n"})
    assert capsys.readouterr().out == "text: |\n  one\n  two\n"


def test_print_rows_aligns_as_kubectl_does(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([("a", "1"), ("longer", "")], headers=("NAME", "N"))
    assert capsys.readouterr().out == "NAME     N\na        1\nlonger\n"


def test_log_text_cannot_forge_a_line() -> None:
    line = {"at": "t", "level": "info", "node": "a", "text": "one\nERROR [b] two\n"}
    assert log_text(line, timestamps=False) == "[a] one\n  ERROR [b] two"


def test_for_screen_shows_escapes_and_leaves_pipes_alone() -> None:
    said = {"items": [{"text": "\x1b[31mred\x1b[0m", "n": 1}]}
    assert for_screen(said, terminal=False) == said
    assert for_screen(said, terminal=True) == {"items": [{"text": "\\x1b[31mred\\x1b[0m", "n": 1}]}
