"""Everything that can happen to a run, at the same moment: refused or done, and nobody waits in a circle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from datetime import timedelta

import pytest

from fairlead.core import names
from fairlead.errors import Conflict
from fairlead.storage import Storage
from fairlead.storage.base import (
    ApprovalState,
    BudgetLine,
    CallAnswer,
    Effects,
    Fence,
    NodeRecord,
    Reservation,
    RunEnd,
    RunState,
    TaskState,
)
from fairlead.testing.postgres import PostgresServer
from fairlead.testing.storage import (
    CLUSTER,
    NAMESPACE,
    NOW,
    make_approval,
    make_intent,
    make_session,
    make_turn,
    start_run,
)

LINES = (BudgetLine("model/default", "2026-01"), BudgetLine("workflow/triage", ""))
WORST = Reservation(LINES, input_tokens=1, input_cost=1, output_tokens=10, output_token_cost=1)
ANSWER = CallAnswer({}, NOW, input_tokens=1, output_tokens=1, cost=2)
END = RunEnd(RunState.SUCCEEDED, "Succeeded", "", None, NOW)


class Busy:
    """A run with turns that one pod holds, and everybody who has to do with it."""

    def __init__(self, storages: tuple[Storage, Storage], uid: str) -> None:
        self.storages = storages
        self.uid = uid

    @property
    def storage(self) -> Storage:
        return random.choice(self.storages)  # noqa: S311 - no secret

    async def prepare(self) -> None:
        self.fence = await start_run(self.storage, self.uid)
        pool = names.agent_pool(CLUSTER, NAMESPACE, self.uid)
        for number in range(3):
            turn = make_turn(f"k{number}", id=f"{self.uid}-turn-{number}", pool=pool)
            await self.storage.start_turn(self.fence, turn)
        session = make_session(f"{self.uid}-turns", pool=pool)
        await self.storage.register(session, at=NOW)
        claimed = await self.storage.claim(session, limit=3, at=NOW)
        self.turns = [Fence(one.task.id, session.id, one.task.attempt) for one in claimed]
        self.pod_uid = session.pod_uid

    def everything(self) -> list[Awaitable[object]]:
        storage, uid, later = self.storage, self.uid, NOW + timedelta(days=2)
        happens: list[Awaitable[object]] = [
            self.call(fence, n) for fence in (self.fence, *self.turns) for n in range(3)
        ]
        happens += [self.finish_turn(fence) for fence in self.turns]
        happens += [
            self.append(),
            self.suspend(),
            storage.wake(at=later),
            storage.requeue_pod(self.pod_uid, at=NOW),
            storage.cancel_turns(self.fence, keys=["k0", "k1"], at=NOW),
            storage.cancel_run(uid, reason="Stopped", message="", at=NOW, handlers=True),
        ]
        random.shuffle(happens)
        return happens

    async def call(self, fence: Fence, number: int) -> None:
        key = f"a/=1/1/1/{number}"
        intent = make_intent(key, self.uid, task_id=fence.task_id, item="1", reservation=WORST)
        await self.storage.begin_call(fence, intent)
        await self.storage.finish_call(fence.task_id, key, ANSWER, span=None)

    async def append(self) -> None:
        nodes = tuple(NodeRecord(self.uid, node, item) for node in "ba" for item in ("1", ""))
        for first in range(3):
            effects = Effects(nodes=nodes, done=first, total=3)
            await self.storage.append(self.fence, first=first, entries=[{"kind": "X"}], effects=effects, at=NOW)
        effects = Effects(end=END)
        await self.storage.append(self.fence, first=3, entries=[{"kind": "RunFinished"}], effects=effects, at=NOW)

    async def finish_turn(self, fence: Fence) -> None:
        asked = make_approval("ask", self.uid, task_id=fence.task_id, deadline=NOW)
        await self.storage.open_approval(fence, asked)
        effects = Effects(turn={"output": 1})
        await self.storage.append(fence, first=0, entries=[{"kind": "TurnFinished"}], effects=effects, at=NOW)

    async def suspend(self) -> None:
        for suspended in (True, False):
            await self.storage.suspend_run(self.uid, suspended=suspended, at=NOW)

    async def check(self) -> None:
        """Look that what is over is over in every respect."""
        run = await self.storage.get_run(self.uid)
        assert run is not None
        assert run.state.final
        assert (run.pending_approvals, run.parked) == (0, "")
        assert {task.state for task in await self.storage.tasks_of_run(self.uid)} == {TaskState.DONE}
        states = {approval.state for approval in await self.storage.approvals_of_run(self.uid)}
        assert ApprovalState.PENDING not in states
        answered = [call for call in await self.storage.calls_of_run(self.uid) if call.answer is not None]
        assert run.cost == 2 * len(answered)


def deadlocks(request: pytest.FixtureRequest) -> int:
    """Return how often the server found some: it ends them after a second, and they are tried again."""
    if "postgres" not in request.node.name:
        return 0
    server: PostgresServer = request.getfixturevalue("postgres")
    return (server.folder / "log").read_text().count("deadlock detected")


async def test_everything_at_once_is_refused_or_happens(
    request: pytest.FixtureRequest, storage: Storage, other: Storage
) -> None:
    before = deadlocks(request)
    busy = [Busy((storage, other), f"run-{number}") for number in range(4)]
    for one in busy:
        await one.prepare()

    happened = await asyncio.gather(*(event for one in busy for event in one.everything()), return_exceptions=True)

    errors = [result for result in happened if isinstance(result, BaseException)]
    assert [error for error in errors if not isinstance(error, Conflict)] == []
    for one in busy:
        await storage.end_run(one.uid, END)
        await one.check()
    spent = await storage.spent(LINES)
    assert [(line.reserved_cost, line.reserved_tokens) for line in spent] == [(0, 0), (0, 0)]
    assert deadlocks(request) == before
