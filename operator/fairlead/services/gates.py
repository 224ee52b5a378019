"""Approval nodes: that one succeeded, and who decided, is what storage says, whatever the pod does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fairlead.errors import Refused
from fairlead.services.tasks import TaskContext
from fairlead.storage.base import Approval, ApprovalState, Storage
from fairlead_agent.protocol import Entry, Kind, State, call_key

_FINISHED: Final = frozenset({Kind.NODE_FINISHED, Kind.ITEM_FINISHED})
_FAILURE: Final = frozenset({"reason", "message"})
"""What the output of an item has that failed and is continued."""
_QUESTION: Final = 0
"""The sequence number of what the node itself asks."""


def says_approved(context: TaskContext, entry: Entry) -> bool:
    """Whether an entry says that an approval node, or an item of one, succeeded."""
    return (
        entry.state is State.SUCCEEDED
        and entry.kind in _FINISHED
        and (context.node(entry.node) or {}).get("approval") is not None
    )


async def with_approval(storage: Storage, context: TaskContext, entry: Entry) -> Entry:
    """Return an entry with the decision that storage has as its output; any other entry as it is.

    Raises:
        Refused: nobody approved it.
    """
    if not says_approved(context, entry):
        return entry
    node = context.node(entry.node) or {}
    if entry.item is None and node.get("forEach") is not None:
        approved = _by_question(await storage.approvals_of_run(context.run_uid), context.task_id)
        return entry.model_copy(update={"output": _gathered(entry, approved, node), "reused": ""})
    key = call_key(entry.node, entry.item, entry.iteration, entry.try_number, _QUESTION)
    found = await storage.get_approval(context.task_id, key)
    if found is None or found.state is not ApprovalState.APPROVED:
        raise _refusal(entry, entry.item)
    return entry.model_copy(update={"output": _output(found), "reused": ""})


def _by_question(approvals: Iterable[Approval], task_id: str) -> dict[str, Approval]:
    """Return what was approved for nodes of a task, by key without try: an item's last one counts."""
    found = {}
    for one in approvals:
        question, _, sequence = one.key.rpartition("/")
        if one.task_id == task_id and one.state is ApprovalState.APPROVED and sequence == str(_QUESTION):
            found[question.rpartition("/")[0]] = one
    return found


def _gathered(entry: Entry, approved: Mapping[str, Approval], node: Mapping[str, Any]) -> Any:
    """Return what all items of a ``forEach`` come to."""
    given = entry.output
    if isinstance(given, Mapping):
        return {item: _of_item(entry, str(item), value, approved, node) for item, value in given.items()}
    if isinstance(given, list):
        return [_of_item(entry, str(index), value, approved, node) for index, value in enumerate(given)]
    raise _refusal(entry, None)


def _of_item(entry: Entry, item: str, value: Any, approved: Mapping[str, Approval], node: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping) and value.keys() == _FAILURE and node.get("onError") == "Continue":
        return value
    key = call_key(entry.node, item, entry.iteration, 1, _QUESTION)
    found = approved.get(key.rsplit("/", 2)[0])
    if found is None:
        raise _refusal(entry, item)
    return _output(found)


def _output(approval: Approval) -> dict[str, Any]:
    at = None if approval.decided_at is None else approval.decided_at.isoformat()
    return {"approved": True, "by": approval.decided_by, "comment": approval.comment, "at": at}


def _refusal(entry: Entry, item: str | None) -> Refused:
    which = "" if item is None else f", item {item[:64]},"
    return Refused(f"nobody has approved node {entry.node[:200]}{which} in this run", reason="NotApproved")
