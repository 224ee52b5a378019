from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from fairlead.errors import InvalidObject
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.services.turns import Turns, TurnView, build_turn_info, fold_turn, turn_id
from fairlead.storage.base import Fence, Storage, Turn
from fairlead.testing.clock import FakeClock
from fairlead.tracing.ids import node_span_id, turn_span_id
from fairlead_agent.protocol import Entry, ErrorInfo, Kind, StartTurn, State, Wait, WaitFor, call_key

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TURN = StartTurn(attempt=1, key="fix/=0/1/1/1", node="fix", item="0", agent="engineer", prompt="mend it")


def context(**spec: Any) -> TaskContext:
    nodes = [{"name": "fix", "agent": {"name": "engineer", "prompt": "?"}}]
    document = {"workflow": {"name": "w", "spec": {"model": "usual", "nodes": nodes}}, "agents": {"engineer": spec}}
    bare = TaskContext("task-1", "run-1", "ns", "run", "w", None, document)
    return replace(bare, turn=TURN, requested_at=START)


def entry(kind: Kind, seconds: int = 5, **values: Any) -> Entry:
    return Entry(kind=kind, at=START + timedelta(seconds=seconds), **values)


def test_build_turn_info_of_a_bare_agent_has_the_workflows_model_and_limits() -> None:
    info = build_turn_info(context())
    assert info is not None
    assert (info.model, info.tools, info.max_turns, info.max_tool_calls, info.max_tokens) == ("usual", (), 10, 50, None)
    assert (info.node, info.item, info.prompt) == ("fix", "0", "mend it")


def test_build_turn_info_takes_the_persona_of_the_frozen_agent() -> None:
    spec = {"model": "own", "instructions": "Be brief.", "tools": ["sql"], "maxToolCalls": 0, "graph": "m:g"}
    info = build_turn_info(context(**spec))
    assert info is not None
    assert (info.model, info.instructions, info.tools, info.max_tool_calls, info.graph) == (
        "own",
        "Be brief.",
        ("sql",),
        0,
        "m:g",
    )


def test_fold_turn_answer_and_span() -> None:
    waiting = entry(Kind.WAITING, 1, wait=Wait(kind=WaitFor.APPROVAL, key="k"))
    view, first = fold_turn(context(), TurnView(), [waiting, entry(Kind.CHECKPOINT, 2, output={})], attempt=1)
    (span,) = first.spans
    assert (first.turn, first.end, span.finished_at, span.started_at) == (None, None, None, START)
    assert span.span_id == turn_span_id("run-1", "task-1")
    assert span.parent_id == node_span_id("run-1", "fix", "0", 1)

    _, last = fold_turn(context(), view, [entry(Kind.TURN_FINISHED, state=State.SUCCEEDED, output=[1])], attempt=1)
    (span,) = last.spans
    assert last.turn == {"output": [1]}
    assert (span.status, span.finished_at, span.started_at) == ("ok", START + timedelta(seconds=5), START)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"state": State.FAILED, "error": ErrorInfo(reason="ModelFailed", message="no")}, "ModelFailed"),
        ({"state": State.CANCELLED, "reason": "Stopped"}, "Stopped"),
        ({"state": State.FAILED}, "TurnFailed"),
    ],
)
def test_fold_turn_that_failed_answers_with_an_error(values: dict[str, Any], reason: str) -> None:
    _, effects = fold_turn(context(), TurnView(), [entry(Kind.TURN_FINISHED, **values)], attempt=1)
    assert effects.turn is not None
    assert effects.turn["error"]["reason"] == reason
    assert effects.spans[0].status != "ok"


class Known:
    """Storage that keeps the turn it is given, and the one task that there is."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self.turn: Turn | None = None

    async def context(self, fence: Fence) -> TaskContext:
        del fence
        return self._context

    async def start_turn(self, fence: Fence, turn: Turn) -> None:
        del fence
        self.turn = turn


@pytest.mark.parametrize(
    ("node", "seconds"),
    [
        pytest.param("fix", 30, id="node"),
        pytest.param("w[@finally]/fix", 30, id="item-named-so"),
        pytest.param("@finally", 60, id="handler"),
        pytest.param("w[0]#2.1/@onFailure", 60, id="handler-inside"),
        pytest.param("@finally/fix", 60, id="in-a-handlers-workflow"),
    ],
)
async def test_start_gives_a_handlers_turn_its_time_beyond_the_runs_deadline(node: str, seconds: float) -> None:
    nodes = [{"name": name, "agent": {"name": "engineer"}, "workflow": {"name": "i"}} for name in ("fix", "w")]
    spec = {"nodes": nodes, "finally": nodes[0], "onFailure": nodes[0]}
    document = {"workflow": {"spec": spec}, "workflows": {"i": spec}, "agents": {"engineer": {}}}
    known = Known(replace(context(), document=document, turn=None, deadline=START + timedelta(seconds=30)))
    turns = Turns(cast("Storage", known), FakeClock(START), cast("Tasks", known))
    request = TURN.model_copy(update={"node": node, "item": None, "key": call_key(node, None, 1, 1, 0)})
    await turns.start(Fence("task-1", "s", 1), request.model_copy(update={"timeout_seconds": 60.0}))
    assert known.turn is not None
    assert known.turn.deadline == START + timedelta(seconds=seconds)


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.WAITING, Kind.CHECKPOINT, Kind.TURN_FINISHED}))
def test_fold_turn_writes_nothing_of_its_run(kind: Kind) -> None:
    with pytest.raises(InvalidObject):
        fold_turn(context(), TurnView(), [entry(kind, node="fix", state=State.SUCCEEDED)], attempt=1)


def test_turn_id_is_the_same_for_the_same_question() -> None:
    assert turn_id("t", "a") == turn_id("t", "a") != turn_id("t", "b")
    assert len(turn_id("t" * 36, "k" * 10_000)) < 64
