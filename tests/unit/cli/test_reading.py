from __future__ import annotations

from typing import Any

import click
import pytest

from fairlead.cli.printing import duration, for_screen, money, print_rows, print_value, print_yaml
from fairlead.cli.reading import log_text, run_cost_rows, since_seconds, trace_lines


def span(ident: str, parent: str, kind: str, start: float, end: float | None, **more: Any) -> dict[str, Any]:
    def at(second: float) -> str:
        return f"2026-11-21T12:00:{second:06.3f}Z"

    finished = None if end is None else at(end)
    whole = {"spanId": ident, "parentId": parent, "name": ident, "kind": kind, "status": "ok", "attributes": {}}
    return {**whole, "startedAt": at(start), "finishedAt": finished, **more}


SPANS = [
    span("run", "", "run", 0, 10),
    span("load", "run", "node", 0, 5),
    span("each", "run", "node", 5, 10),
    span("each[0]", "each", "item", 5, 10),
    span("chat m", "each[0]", "call", 6, 9, attributes={"fairlead.cost.usd": "0.0041"}),
    span("each[1]", "each", "item", 5, 6, status="error", attributes={"error.type": "Timeout"}),
]


def test_trace_lines_fold_items_unless_asked() -> None:
    folded = trace_lines(SPANS, items=False)
    assert [line.split("  ")[0] or line.strip().split("  ")[0] for line in folded] == ["run", "load", "each x2"]
    whole = trace_lines(SPANS, items=True)
    assert len(whole) == len(SPANS)
    assert "$0.0041" in next(line for line in whole if "chat m" in line)
    assert whole[-1].endswith("Timeout")


def test_trace_lines_mark_what_a_script_answered() -> None:
    said = [{**each, "attributes": {"fairlead.scripted": True}} if each["kind"] == "call" else each for each in SPANS]
    marked = [[line.endswith("scripted") for line in trace_lines(said, items=items)] for items in (False, True)]
    assert marked == [[False, False, True], [False, False, False, False, True, False]]
    assert not any("scripted" in line for line in trace_lines(SPANS, items=True))


def test_trace_lines_place_bars_in_time() -> None:
    _, load, each = trace_lines(SPANS, items=False)
    assert load.index("█") < each.index("█")
    assert (load.count("█"), each.count("█")) == (12, 12)


def test_trace_lines_of_a_run_that_goes_on() -> None:
    (line,) = trace_lines([span("run", "", "run", 0, None)], items=False)
    assert "…" in line
    assert trace_lines([], items=False) == ["no spans yet"]


def test_log_text_shows_level_node_and_time() -> None:
    line = {"at": "2026-11-21T12:00:00Z", "level": "error", "node": "draft", "text": "it broke"}
    assert log_text(line, timestamps=False) == "ERROR [draft] it broke"
    assert log_text({**line, "level": "info", "node": ""}, timestamps=True) == "2026-11-21T12:00:00Z it broke"


def test_run_cost_rows_of_an_unknown_price_is_not_zero() -> None:
    cost = {"total": None, "known": "0.5", "unpricedCalls": 2, "currency": "USD"}
    shown = {"name": "r", "state": "Succeeded", "cost": cost, "usage": {"inputTokens": 1234, "outputTokens": 5}}
    rows = dict(run_cost_rows(shown))
    assert rows["cost"] == "n/a"
    assert rows["known"] == "$0.5 without 2 calls whose price is unknown"
    assert rows["tokens"] == "1,234 in, 5 out"


def test_run_cost_rows_say_that_answers_are_scripted() -> None:
    shown = {"name": "r", "state": "Succeeded", "cost": {"total": "0", "currency": "USD", "unpricedCalls": 0}}
    rows = dict(run_cost_rows({**shown, "usage": None, "scriptedCalls": 2}))
    assert rows["model"].startswith("scripted answers")
    assert "model" not in dict(run_cost_rows({**shown, "usage": None, "scriptedCalls": 0}))


@pytest.mark.parametrize(("total", "text"), [("0.0134", "$0.0134"), (None, "n/a"), ("n/a", "n/a"), ("0", "$0")])
def test_money_of_what_is_known_and_what_is_not(total: Any, text: str) -> None:
    assert money(total) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.0041, "4ms"), (3.44, "3.4s"), (59.0, "59.0s"), (61, "1m1s"), (3700, "1h1m"), (90_000, "1d1h")],
)
def test_duration_has_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_since_seconds_reads_units_and_refuses_others() -> None:
    assert (since_seconds(""), since_seconds("30m"), since_seconds("7d")) == (None, 1800, 604_800)
    with pytest.raises(click.UsageError):
        since_seconds("yesterday")


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
