"""Reads decisions from a run's annotations. Nobody knows who wrote them, so they decide only what anyone may decide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fairlead.core import names
from fairlead.core.actions import Obj, meta

ANNOTATION = "annotation"
"""`Question.via` of a decision that was made here."""
_PENDING = "Pending"
_PLACE = re.compile(r"(?:[^=\[]|\[[^\]]*\])+")
"""A node with its item, up to the first ``=`` outside of brackets: the names of items may hold any."""


class Question(Protocol):
    """A question to people as storage knows it; `fairlead.storage.base.Approval` is one."""

    # fmt: off
    @property
    def key(self) -> str: """Tells it from all others of its task."""
    @property
    def node(self) -> str: """The path of the node that asks."""
    @property
    def item(self) -> str: """The item of a ``forEach``, or empty."""
    @property
    def state(self) -> str: """``Pending``, ``Approved``, ``Rejected`` or ``Cancelled``."""
    @property
    def comment(self) -> str: """What was said with the decision."""
    @property
    def via(self) -> str: """How it was decided."""
    @property
    def approvers(self) -> tuple[str, ...]: """Who may decide; empty: anyone who may update the run."""
    # fmt: on


@dataclass(frozen=True, slots=True)
class Word:
    """What one annotation says."""

    approved: bool
    node: str
    comment: str

    @property
    def annotation(self) -> str:
        """The annotation that it is from."""
        return names.APPROVE_ANNOTATION if self.approved else names.REJECT_ANNOTATION


AnyQuestion = TypeVar("AnyQuestion", bound=Question)


def words_of(run: Obj) -> list[Word]:
    """Return what a run's annotations say; a no comes first."""
    found = meta(run).get("annotations") or {}
    words = []
    for approved, annotation in ((False, names.REJECT_ANNOTATION), (True, names.APPROVE_ANNOTATION)):
        text = str(found.get(annotation) or "")
        place = _PLACE.match(text)
        if place is not None and place[0].strip():
            words.append(Word(approved, place[0].strip(), text[place.end() + 1 :].strip()))
    return words


def decide(words: Iterable[Word], questions: Sequence[AnyQuestion]) -> Iterator[tuple[AnyQuestion, Word]]:
    """Return which open questions the annotations answer. An annotation that answered before does not answer again.

    Else one that was left on the run would answer the same node's questions of later iterations, too.
    """
    for word in words:
        mine = [question for question in questions if word.node in _names_of(question)]
        if not any(_is_used(word, question) for question in mine):
            yield from ((question, word) for question in mine if question.state == _PENDING)


def may_decide(question: Question) -> bool:
    """Return whether an annotation may: where approvers are named, they have to show who they are."""
    return not question.approvers


def _names_of(question: Question) -> tuple[str, ...]:
    """Return how a question can be named: by its node, and by its item in it."""
    return (question.node, f"{question.node}[{question.item}]") if question.item else (question.node,)


def _is_used(word: Word, question: Question) -> bool:
    answered = question.state == ("Approved" if word.approved else "Rejected") and question.via == ANNOTATION
    return answered and question.comment == word.comment
