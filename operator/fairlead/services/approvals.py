"""Questions to people: how a task asks them, who may answer, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from fairlead.clock import Clock
from fairlead.errors import Conflict, InvalidObject, Refused
from fairlead.kube import TokenIdentity
from fairlead.logs import get_logger
from fairlead.services.effects import item_label
from fairlead.services.permits import check_question
from fairlead.services.showing import camel
from fairlead.services.tasks import Tasks
from fairlead.storage.base import Approval, ApprovalState, Fence, Run, Storage, Verdict
from fairlead_agent.protocol import AskApproval

_log = get_logger(__name__)
_HIDDEN: Final = frozenset({"task_id", "cluster"})


class AlreadyDecided(Conflict):
    """Somebody else, or the clock, decided otherwise."""

    reason = "AlreadyDecided"


class Answer(BaseModel):
    """What a person says to an approval."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")

    approved: bool
    comment: Annotated[str, Field(max_length=4096)] = ""
    key: Annotated[str, Field(max_length=32_768)] = ""
    """Which one, by its key …"""
    node: Annotated[str, Field(max_length=16_384)] = ""
    """… or by its node."""
    item: Annotated[str, Field(max_length=4096)] | None = None
    """And the item of the node, where it has items."""


class Approvals:
    """Asks people and takes their answers."""

    def __init__(self, storage: Storage, clock: Clock, tasks: Tasks, *, cluster: str) -> None:
        self._storage = storage
        self._clock = clock
        self._tasks = tasks
        self._cluster = cluster

    async def ask(self, fence: Fence, request: AskApproval) -> None:
        """Put a question to people. Asking again under the same key is harmless; the first question stands.

        Raises:
            Fenced: the claim is over.
            Refused: the frozen workflow does not ask for this.
        """
        context = await self._tasks.context(fence)
        question = check_question(context, request)
        now = self._clock.now()
        await self._storage.open_approval(
            fence,
            Approval(
                task_id=fence.task_id,
                key=request.key,
                run_uid=context.run_uid,
                cluster=context.cluster,
                namespace=context.namespace,
                run_name=context.name,
                node=request.node,
                item=item_label(request.item),
                message=request.message,
                requested_at=now,
                deadline=now + timedelta(seconds=question.timeout_seconds),
                on_timeout=question.on_timeout,
                approvers=question.approvers,
                tool=None if request.tool is None else request.tool.model_dump(mode="json", by_alias=True),
            ),
        )

    async def pending(self, namespace: str) -> list[dict[str, Any]]:
        """Return what waits for a decision; empty *namespace*: in all of them."""
        found = await self._storage.pending_approvals(self._cluster, namespace=namespace)
        return [show_approval(one) for one in found]

    async def of_run(self, run: Run) -> list[dict[str, Any]]:
        """Return a run's approvals, decided ones too."""
        return [show_approval(one) for one in await self._storage.approvals_of_run(run.uid)]

    async def decide(self, run: Run, who: TokenIdentity, answer: Answer) -> dict[str, Any] | None:
        """Decide an approval of a run for somebody who may update the run; return it. None: there is no such approval.

        Raises:
            InvalidObject: it is not clear which one is meant.
            Refused: the approval names approvers, and *who* is none of them.
            AlreadyDecided: it was decided otherwise.
        """
        asked = _meant(await self._storage.approvals_of_run(run.uid), answer)
        if asked is None:
            return None
        _check_approver(asked, who)
        verdict = Verdict(answer.approved, who.username, self._clock.now(), answer.comment)
        found = await self._storage.decide(asked.task_id, asked.key, verdict)
        if found is None:
            return None
        wanted = ApprovalState.APPROVED if answer.approved else ApprovalState.REJECTED
        if found.state is not wanted:
            raise AlreadyDecided(_outcome(found))
        keys = {"namespace": run.namespace, "name": run.name, "uid": run.uid, "node": found.node}
        _log.info("approval_decided", **keys, state=found.state.value, by=who.username)
        return show_approval(found)


def show_approval(approval: Approval) -> dict[str, Any]:
    """Return an approval as JSON."""
    return camel(approval, without=_HIDDEN)


def _meant(approvals: Sequence[Approval], answer: Answer) -> Approval | None:
    """Return the approval that an answer is to: by its key or node, those that wait before those that do not."""
    if bool(answer.key) == bool(answer.node):
        raise InvalidObject("say which approval: its key, or its node", field="key", reason="InvalidRequest")
    fits = [one for one in approvals if (one.key == answer.key if answer.key else one.node == answer.node)]
    if answer.item is not None:
        fits = [one for one in fits if one.item == item_label(answer.item)]
    waiting = [one for one in fits if one.state is ApprovalState.PENDING]
    if len(waiting) > 1:
        known = ", ".join(one.item or one.key for one in waiting[:10])
        message = f"{len(waiting)} approvals of node {answer.node} wait: say which, by item or key: {known}"
        raise InvalidObject(message, field="item", reason="Ambiguous")
    return waiting[0] if waiting else max(fits, key=lambda one: one.requested_at, default=None)


def _check_approver(approval: Approval, who: TokenIdentity) -> None:
    allowed = approval.approvers
    if allowed and not {who.username, *who.groups} & set(allowed):
        raise Refused(
            f"{who.username} may not decide this: {', '.join(allowed)} may (node {approval.node})", reason="Forbidden"
        )


def _outcome(approval: Approval) -> str:
    if approval.state is ApprovalState.CANCELLED:
        return f"node {approval.node}, or its run, ended before anybody decided"
    said = "approved" if approval.state is ApprovalState.APPROVED else "rejected"
    by = approval.decided_by or ("its time-out" if approval.via == "timeout" else "somebody unknown")
    when = "" if approval.decided_at is None else f" at {approval.decided_at.isoformat(timespec='seconds')}"
    return f"node {approval.node} was {said} by {by}{when} already"
