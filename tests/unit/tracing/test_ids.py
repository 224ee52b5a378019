from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.tracing.attributes import MAX_TEXT, attributes, bounded
from fairlead.tracing.ids import call_span_id, node_span_id, span_id, trace_id

NODES = st.tuples(st.text(max_size=5), st.none() | st.text(max_size=5), st.integers(1, 3))


@given(NODES, NODES)
def test_node_span_id_differs_exactly_when_the_node_does(
    one: tuple[str, str | None, int], other: tuple[str, str | None, int]
) -> None:
    if any("\x00" in part for node in (one, other) for part in node if isinstance(part, str)):
        return
    assert (node_span_id("run", *one) == node_span_id("run", *other)) == (one == other)


def test_ids_are_those_of_opentelemetry() -> None:
    assert len(trace_id("run")) == 32
    assert {len(text) for text in (span_id("run"), node_span_id("run", "a", None, 1), call_span_id("run", "k"))} == {16}
    assert trace_id("run") != trace_id("run-2")


def test_attributes_leave_out_what_is_unknown() -> None:
    assert attributes(a__b=None, c="", d=0, e__f="x") == {"d": 0, "e.f": "x"}


@given(st.text(max_size=5000))
def test_bounded_is_bounded(text: str) -> None:
    assert len(bounded(text)) <= MAX_TEXT


def test_bounded_shows_no_credential() -> None:
    assert "abcdefghij" not in bounded("Authorization: Bearer abcdefghij")
