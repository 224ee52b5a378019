"""Carries out the decisions that people write into a run's annotations."""

from __future__ import annotations

from typing import Final

from fairlead.api.conditions import EventReason
from fairlead.clock import Clock
from fairlead.core.actions import Obj, meta
from fairlead.core.decisions import ANNOTATION, Word, decide, may_decide, words_of
from fairlead.services.applying import Applier
from fairlead.storage import Storage
from fairlead.storage.base import Approval, Run, Verdict

_REMEMBERED: Final = 10_000


class Annotations:
    """Decides approvals from annotations, each once."""

    def __init__(self, storage: Storage, applier: Applier, clock: Clock) -> None:
        self._storage = storage
        self._applier = applier
        self._clock = clock
        self._refused: dict[tuple[str, str, str], None] = {}

    async def heed(self, run: Obj, record: Run) -> None:
        """Decide what the run's annotations decide and is still open."""
        words = words_of(run)
        if not words or not record.pending_approvals:
            return
        for question, word in decide(words, await self._storage.approvals_of_run(record.uid)):
            if may_decide(question):
                await self._decide(question, word)
            else:
                await self._refuse(run, question, word)

    async def _decide(self, question: Approval, word: Word) -> None:
        now = self._clock.now()
        verdict = Verdict(word.approved, by="", at=now, comment=word.comment, via=ANNOTATION, verified=False)
        await self._storage.decide(question.task_id, question.key, verdict)

    async def _refuse(self, run: Obj, question: Approval, word: Word) -> None:
        """Say once that an annotation is not enough."""
        mark = (meta(run)["uid"], question.key, word.annotation)
        if mark in self._refused:
            return
        self._refused[mark] = None
        if len(self._refused) > _REMEMBERED:
            del self._refused[next(iter(self._refused))]
        text = (
            f'Node "{question.node}" may be decided by {", ".join(question.approvers)} only, and the annotation '
            f"{word.annotation} does not show who wrote it: use `fairlead approve` or `fairlead reject`."
        )
        await self._applier.tell(run, EventReason.DECISION_REFUSED, text, warning=True)
