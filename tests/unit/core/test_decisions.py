"""Decisions that people write into annotations."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fairlead.core.decisions import Word, decide, may_decide, words_of
from fairlead.storage.base import Approval, ApprovalState
from fairlead.testing.storage import NOW

APPROVE, REJECT = "fairlead.dev/approve", "fairlead.dev/reject"


def run(**annotations: str) -> dict[str, Any]:
    names = {"approve": APPROVE, "reject": REJECT}
    return {"metadata": {"annotations": {names[key]: value for key, value in annotations.items()}}}


def asks(node: str = "ship", key: str = "k1", **more: Any) -> Approval:
    question = Approval(
        task_id="t",
        key=key,
        run_uid="u",
        cluster="c",
        namespace="n",
        run_name="r",
        node=node,
        item="",
        message="?",
        requested_at=NOW,
        deadline=NOW + timedelta(days=1),
    )
    return replace(question, **more)


def answers(obj: dict[str, Any], *questions: Approval) -> list[tuple[str, bool, str]]:
    return [(question.key, word.approved, word.comment) for question, word in decide(words_of(obj), questions)]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, []),
        ({"approve": ""}, []),
        ({"approve": "ship"}, [Word(approved=True, node="ship", comment="")]),
        ({"approve": " ship = well=done "}, [Word(approved=True, node="ship", comment="well=done")]),
        (
            {"approve": "all[k=v]/ship[a=b]=fine=so"},
            [Word(approved=True, node="all[k=v]/ship[a=b]", comment="fine=so")],
        ),
        (
            {"approve": "a", "reject": "b=no"},
            [Word(approved=False, node="b", comment="no"), Word(approved=True, node="a", comment="")],
        ),
    ],
)
def test_words_of(annotations: dict[str, str], expected: list[Word]) -> None:
    assert words_of(run(**annotations)) == expected


def test_decide_answers_what_is_open() -> None:
    questions = (asks(), asks("other", "k2"), asks("outer/ship", "k3"))
    assert answers(run(approve="ship=fine"), *questions) == [("k1", True, "fine")]
    assert answers(run(reject="outer/ship"), *questions) == [("k3", False, "")]
    assert answers(run(approve="nobody"), *questions) == []


def test_decide_answers_all_items_or_one() -> None:
    items = [asks(item=str(n), key=f"k{n}") for n in range(3)]
    assert [key for key, *_ in answers(run(approve="ship"), *items)] == ["k0", "k1", "k2"]
    assert [key for key, *_ in answers(run(approve="ship[1]"), *items)] == ["k1"]


def test_decide_uses_an_annotation_once() -> None:
    """The same node asks again in the next iteration of a loop."""
    first = asks(state=ApprovalState.APPROVED, via="annotation", comment="go")
    assert answers(run(approve="ship=go"), first, asks(key="k2")) == []
    assert answers(run(approve="ship=go again"), first, asks(key="k2")) == [("k2", True, "go again")]
    by_api = replace(first, via="api")
    assert answers(run(approve="ship=go"), by_api, asks(key="k2")) == [("k2", True, "go")]


def test_annotations_do_not_decide_where_approvers_are_named() -> None:
    assert may_decide(asks())
    assert not may_decide(asks(approvers=("ann",)))
