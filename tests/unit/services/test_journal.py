from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import Refused
from fairlead.services.journal import Journal
from fairlead.services.tasks import Tasks
from fairlead.storage import Storage
from fairlead.storage.base import Fence, Fenced, Revision, Verdict
from fairlead.testing.clock import FakeClock
from fairlead.testing.storage import NOW, claim, make_approval, make_revision, make_run, make_task, sqlite_storage
from fairlead_agent.protocol import Append, call_key

QUESTION = {"approval": {"message": "Go?"}}
NODES: list[dict[str, Any]] = [
    {"name": "ship", **QUESTION},
    {"name": "all", "forEach": "[1, 2]", **QUESTION},
    {"name": "some", "forEach": "[1, 2]", "onError": "Continue", **QUESTION},
    {"name": "sub", "workflow": {"name": "small"}},
    {"name": "greet", "llm": {"prompt": "hi"}},
]
FORGED = {"approved": True, "by": "boss", "comment": "", "at": "2020-01-01T00:00:00+00:00"}
DECISION = {"approved": True, "by": "ann", "comment": "fine", "at": NOW.isoformat()}


@dataclass
class World:
    storage: Storage
    journal: Journal
    fence: Fence

    async def ask(self, *place: Any, approved: bool | None = True) -> None:
        approval = make_approval(call_key(*place))
        await self.storage.open_approval(self.fence, approval)
        if approved is not None:
            await self.storage.decide(approval.task_id, approval.key, Verdict(approved, "ann", NOW, "fine"))

    async def finish(self, node: str, output: Any = None, **changes: Any) -> Any:
        """Say that a node succeeded; return the output that is kept."""
        entry = {"kind": "NodeFinished", "node": node, "state": "Succeeded", "output": output or FORGED, "at": NOW}
        request = Append.model_validate({"attempt": 1, "first": 0, "entries": [entry | changes]})
        await self.journal.append(self.fence, request, size=100)
        (kept,) = await self.storage.journal(self.fence.task_id)
        return kept["output"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    document = {**make_revision(nodes=NODES).document, "workflows": {"small": {"nodes": NODES[:1]}}}
    revision = Revision("d" * 64, document)
    async with sqlite_storage(tmp_path) as storage:
        await storage.submit(make_run(revision=revision.digest), revision=revision, task=make_task())
        fence, _ = await claim(storage)
        yield World(storage, Journal(storage, Tasks(storage), FakeClock()), fence)


@pytest.mark.parametrize(
    ("place", "entry"),
    [
        pytest.param(("ship", None, 1, 1, 0), {}, id="node"),
        pytest.param(("ship", None, 3, 2, 0), {"iteration": 3, "tryNumber": 2}, id="round-and-try"),
        pytest.param(("all", "1", 1, 1, 0), {"kind": "ItemFinished", "item": "1"}, id="item"),
        pytest.param(("sub/ship", None, 1, 1, 0), {}, id="sub-workflow"),
    ],
)
async def test_append_approval_takes_who_decided_from_storage(
    world: World, place: tuple[Any, ...], entry: dict[str, Any]
) -> None:
    await world.ask(*place)
    assert await world.finish(place[0], **entry) == DECISION
    assert await world.finish(place[0], **entry) == DECISION, "the same again is harmless"


@pytest.mark.parametrize(
    ("place", "approved", "entry"),
    [
        pytest.param(("all", "0", 1, 1, 0), True, {}, id="not-asked"),
        pytest.param(("ship", None, 1, 1, 0), None, {}, id="not-decided"),
        pytest.param(("ship", None, 1, 1, 0), False, {}, id="rejected"),
        pytest.param(("ship", None, 1, 1, 0), True, {"iteration": 2}, id="another-round"),
        pytest.param(("ship", None, 1, 1, 0), True, {"tryNumber": 2}, id="another-try"),
        pytest.param(("ship", None, 1, 1, 1), True, {}, id="another-question"),
        pytest.param(("ship", None, 1, 1, 0), True, {"kind": "ItemFinished", "item": "0"}, id="another-item"),
        pytest.param(("ship", None, 1, 1, 0), True, {"node": "sub/ship"}, id="another-workflow"),
        pytest.param(("sub/ship", None, 1, 1, 0), True, {"reused": "run-0", "reason": "Reused"}, id="reused"),
        pytest.param(("all", "0", 1, 1, 0), True, {"node": "all", "output": [FORGED, FORGED]}, id="an-item-of-two"),
        pytest.param(("all", "0", 1, 1, 0), True, {"node": "all", "output": FORGED}, id="items-of-a-map"),
        pytest.param(("all", "0", 1, 1, 0), True, {"node": "all", "output": "approved"}, id="no-items"),
    ],
)
async def test_append_approval_that_nobody_gave_is_refused(
    world: World, place: tuple[Any, ...], approved: bool | None, entry: dict[str, Any]
) -> None:
    await world.ask(*place, approved=approved)
    with pytest.raises(Refused, match="nobody has approved"):
        await world.finish(**{"node": "ship", **entry})
    assert await world.storage.journal(world.fence.task_id) == []


async def test_append_approvals_of_all_items(world: World) -> None:
    await world.ask("all", "0", 1, 1, 0)
    await world.ask("all", "1", 1, 2, 0)
    assert await world.finish("all", [FORGED, {"anything": 1}]) == [DECISION, DECISION]


async def test_append_failed_items_stay_failed(world: World) -> None:
    failed = {"reason": "ApprovalRejected", "message": "no"}
    await world.ask("some", "b", 1, 1, 0)
    assert await world.finish("some", {"a": failed, "b": FORGED}) == {"a": failed, "b": DECISION}


async def test_append_of_other_nodes_is_kept_as_it_is(world: World) -> None:
    assert await world.finish("greet") == FORGED


async def test_append_of_a_late_writer_is_fenced(world: World) -> None:
    await world.ask("ship", None, 1, 1, 0, approved=None)
    await world.storage.release(world.fence, at=NOW)
    with pytest.raises(Fenced):
        await world.finish("ship")
