"""Which results of an earlier run a rerun may use."""

from __future__ import annotations

from typing import Any

from fairlead.services.results import results_of


def finished(node: str, item: str | None = None, state: str = "Succeeded", **more: Any) -> dict[str, Any]:
    kind = "NodeFinished" if item is None else "ItemFinished"
    return {
        "kind": kind,
        "node": node,
        "state": state,
        "digest": "d",
        **({} if item is None else {"item": item}),
        **more,
    }


def test_results_of_a_journal_are_what_succeeded() -> None:
    good = finished("a")
    assert results_of([{"kind": "NodeStarted", "node": "a"}, good, finished("b", state="Failed")]) == [good]


def test_results_of_a_node_that_went_on_without_an_item_are_its_other_items() -> None:
    journal = [
        finished("a", "0"),
        finished("a", "", "Failed"),
        finished("a"),
        finished("a", iteration=2),
        finished("b"),
    ]
    used = results_of(journal)
    assert [(one["node"], one.get("item"), one.get("iteration", 1)) for one in used] == [
        ("a", "0", 1),
        ("a", None, 2),
        ("b", None, 1),
    ]
