from __future__ import annotations

from typing import Any

import click
import pytest

from fairlead.cli.costing import print_costs, run_cost_rows, since_seconds
from fairlead.cli.main import run


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


def test_since_seconds_reads_units_and_refuses_others() -> None:
    assert (since_seconds(""), since_seconds("30m"), since_seconds("7d")) == (None, 1800, 604_800)
    with pytest.raises(click.UsageError):
        since_seconds("yesterday")


def sums(**changes: Any) -> dict[str, Any]:
    row = {"calls": 3, "usage": {"inputTokens": 1200, "outputTokens": 5}, "cost": "0.5", "known": "0.5"}
    return {**row, "unpricedCalls": 0, "scriptedCalls": 0, **changes}


def test_print_costs_shows_sums_and_their_total(capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"model": "fast", "day": "2026-11-21", **sums()}, {"model": "slow", "day": "", **sums(cost=None)}]
    total = sums(calls=6, cost=None, unpricedCalls=2, scriptedCalls=1)
    print_costs({"by": ["model", "day"], "items": items, "total": total})
    said = capsys.readouterr()
    assert [line.split() for line in said.out.splitlines()] == [
        ["MODEL", "DAY", "CALLS", "COST", "INPUT", "TOKENS", "OUTPUT", "TOKENS"],
        ["fast", "2026-11-21", "3", "$0.5", "1,200", "5"],
        ["slow", "-", "3", "n/a", "1,200", "5"],
        ["total", "6", "n/a", "1,200", "5"],
    ]
    assert "2 calls have no known price ($0.5 is known)" in said.err
    assert "1 call was answered by scripted models" in said.err


@pytest.mark.parametrize("by", ["user", "node,day", "model,,x"])
def test_cost_refuses_what_it_cannot_sum_by(by: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cost", "--by", by]) == 2
    assert "nothing to sum by" in capsys.readouterr().err


def test_cost_by_node_is_of_something(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cost", "--by", "node"]) == 2
    assert "name it" in capsys.readouterr().err
