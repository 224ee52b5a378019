"""Agents' turns: tasks of their own, handed to the agent's pool, whose answer is a signal of the task that asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.errors import InvalidObject
from fairlead.services.nodespans import SPAN_STATUS
from fairlead.services.permits import check_turn
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.storage.base import Effects, Fence, Span, Storage, Turn
from fairlead.tracing.attributes import attributes, failure
from fairlead.tracing.ids import node_span_id, turn_span_id
from fairlead_agent.graph.paths import in_handler
from fairlead_agent.protocol import CancelTurns, Entry, ErrorInfo, Kind, StartTurn, State, TurnAnswer, TurnInfo

_ALLOWED: Final = frozenset({Kind.WAITING, Kind.CHECKPOINT, Kind.TURN_FINISHED})
_MAX_TURNS: Final = 10
_MAX_TOOL_CALLS: Final = 50


class Turns:
    """Starts turns and ends those that nobody waits for any more."""

    def __init__(self, storage: Storage, clock: Clock, tasks: Tasks) -> None:
        self._storage = storage
        self._clock = clock
        self._tasks = tasks

    async def start(self, fence: Fence, request: StartTurn) -> None:
        """Queue a turn for the agent's pool. Asking again under the same key is harmless.

        Raises:
            Fenced: the claim is over.
            Refused: the node hands nothing to this agent.
        """
        context = await self._tasks.context(fence)
        spec = check_turn(context, request)
        now = self._clock.now()
        whole = None if in_handler(request.node) else context.deadline
        turn = Turn(
            id=turn_id(fence.task_id, request.key),
            key=request.key,
            pool=names.agent_pool(context.cluster, context.namespace, request.agent),
            request={**request.model_dump(mode="json", by_alias=True), "requestedAt": now.isoformat()},
            deadline=_deadline(now, whole, request.timeout_seconds, spec.get("turnTimeoutSeconds")),
        )
        await self._storage.start_turn(fence, turn)

    async def cancel(self, fence: Fence, request: CancelTurns) -> None:
        """End turns.

        Raises:
            Fenced: the claim is over.
        """
        await self._storage.cancel_turns(fence, keys=request.keys, at=self._clock.now())


def turn_id(parent: str, key: str) -> str:
    """Return the id of the task of a turn: the same whoever asks for it, however often."""
    return f"{parent}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def build_turn_info(context: TaskContext) -> TurnInfo | None:
    """Return what the agent is told of its turn; the persona is that of the frozen Agent."""
    turn = context.turn
    if turn is None:
        return None
    spec = context.agent_spec()
    return TurnInfo(
        agent=turn.agent,
        prompt=turn.prompt,
        output=turn.output,
        instructions=spec.get("instructions") or "",
        model=spec.get("model") or context.default_model(turn.node),
        tools=tuple(spec.get("tools") or ()),
        graph=spec.get("graph") or "",
        node=turn.node,
        item=turn.item,
        iteration=turn.iteration,
        max_turns=spec.get("maxTurns") or _MAX_TURNS,
        max_tool_calls=_MAX_TOOL_CALLS if spec.get("maxToolCalls") is None else spec["maxToolCalls"],
        max_tokens=spec.get("maxTokens"),
    )


@dataclass(frozen=True, slots=True)
class TurnView:
    """What later entries of a turn's journal need to know of earlier ones."""

    length: int = 0
    started_at: datetime | None = None


def fold_turn(
    context: TaskContext, view: TurnView, entries: Iterable[Entry], *, attempt: int
) -> tuple[TurnView, Effects]:
    """Return the view after *entries* of a turn's journal and what they change. Pure.

    Raises:
        InvalidObject: a turn writes no such entries.
    """
    answer: Mapping[str, Any] | None = None
    span: Span | None = None
    for entry in entries:
        if entry.kind not in _ALLOWED:
            raise InvalidObject(f"a turn writes no {entry.kind} entries", field="entries", reason="InvalidRequest")
        if view.length == 0:
            view = replace(view, started_at=min(context.requested_at or entry.at, entry.at))
            span = _span(context, view, attempt)
        view = replace(view, length=view.length + 1)
        if entry.kind is Kind.TURN_FINISHED:
            result = _answer(entry)
            answer = result.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            span = _ended(_span(context, view, attempt), entry, result)
    return view, Effects(spans=() if span is None else (span,), turn=answer)


def _answer(entry: Entry) -> TurnAnswer:
    if entry.state is None:
        raise InvalidObject(f"a {entry.kind} entry says how it ended", field="entries")
    if entry.state is State.SUCCEEDED:
        return TurnAnswer(output=entry.output)
    unknown = ErrorInfo(reason=entry.reason or "TurnFailed", message="the agent did not finish its turn")
    return TurnAnswer(error=entry.error or unknown)


def _span(context: TaskContext, view: TurnView, attempt: int) -> Span:
    turn = context.turn
    if turn is None or view.started_at is None:
        raise InvalidObject("this task is no turn", field="entries")
    return Span(
        run_uid=context.run_uid,
        span_id=turn_span_id(context.run_uid, context.task_id),
        parent_id=node_span_id(context.run_uid, turn.node, turn.item, turn.iteration),
        name=f"invoke_agent {turn.agent}",
        kind="turn",
        started_at=view.started_at,
        attributes=attributes(
            gen_ai__operation__name="invoke_agent",
            gen_ai__agent__name=turn.agent,
            fairlead__node=turn.node,
            fairlead__item=turn.item,
            fairlead__attempt=attempt,
        ),
    )


def _ended(span: Span, entry: Entry, answer: TurnAnswer) -> Span:
    error = answer.error
    more = {} if error is None else failure(error.reason, error.message)
    status = SPAN_STATUS.get(entry.state or State.FAILED, "unset")
    return replace(span, finished_at=entry.at, status=status, attributes={**span.attributes, **more})


def _deadline(now: datetime, whole: datetime | None, *seconds: float | None) -> datetime | None:
    """Return when a turn is over: with its node's try, its agent's patience or *whole*, whichever is first."""
    ends = [now + timedelta(seconds=limit) for limit in seconds if limit]
    return min((*ends, whole) if whole is not None else ends, default=None)
