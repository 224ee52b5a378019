from __future__ import annotations

from typing import Any

from fairlead.cli.tracing import trace_lines


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


def test_trace_lines_tell_rounds_apart_and_what_was_not_done() -> None:
    skipped = {"fairlead.state": "Skipped", "fairlead.reason": "WhenFalse"}
    cancelled = {"fairlead.state": "Cancelled", "error.type": "Stopped"}
    spans = [
        span("run", "", "run", 0, 10),
        span("again", "run", "node", 0, 1, attributes={"fairlead.iteration": 2, "fairlead.state": "Succeeded"}),
        span("never", "run", "node", 2, 2, status="unset", attributes=skipped),
        span("half", "run", "node", 3, 9, status="unset", attributes=cancelled),
    ]
    ends = [line.split("█")[-1].strip() for line in trace_lines(spans, items=False)]
    assert ends == ["", "round 2", "skipped (WhenFalse)", "cancelled (Stopped)"]


def test_trace_lines_say_what_there_is_to_say() -> None:
    known = {
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 7,
        "fairlead.cost.usd": "n/a",
        "fairlead.queue_seconds": 2.5,
        "fairlead.tries": 3,
        "fairlead.reused": "uid-0",
        "fairlead.reason": "Cached",
        "fairlead.repeats": 1,
    }
    (line,) = trace_lines([span("x", "", "call", 0, 1, attributes=known)], items=False)
    assert line.endswith("12+7 tokens  n/a  waited 2.5s  3 tries  cached  sent again")
    (free,) = trace_lines([span("x", "", "node", 0, 1, attributes={"fairlead.cost.usd": "0"})], items=False)
    assert "$" not in free


def test_trace_lines_show_contents_if_asked() -> None:
    known = {"gen_ai.tool.call.arguments": '{"q": 1}', "gen_ai.tool.call.result": "a\n" + "b" * 300}
    spans = [span("x", "", "call", 0, 1, attributes=known)]
    _, given, result = trace_lines(spans, items=False, contents=True)
    assert given == '  in   {"q": 1}'
    assert result.startswith("  out  a bbb")
    assert len(result) < 210
    assert len(trace_lines(spans, items=False)) == 1
