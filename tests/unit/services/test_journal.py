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
    {"name": "some", "forEach": "{'a': 1, 'b': 2}", "onError": "Continue", **QUESTION},
    {"name": "none", "forEach": "[]", **QUESTION},
    {"name": "sub", "workflow": {"name": "small"}},
    {"name": "greet", "llm": {"prompt": "hi", "model": "fast"}},
    {"name": "maybe", "needs": ["greet"], "when": "outputs.greet == 'ask'", **QUESTION},
    {"name": "after", "needs": ["maybe"], **QUESTION},
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

    async def append(self, *entries: dict[str, Any]) -> list[Any]:
        """Append entries; return what is kept."""
        usual = {"kind": "NodeFinished", "state": "Succeeded", "at": NOW}
        request = Append.model_validate({"attempt": 1, "first": 0, "entries": [usual | entry for entry in entries]})
        await self.journal.append(self.fence, request, size=100)
        return list(await self.storage.journal(self.fence.task_id))

    async def finish(self, node: str, **changes: Any) -> Any:
        """Say that a node succeeded; return the output that is kept."""
        (kept,) = await self.append({"node": node, "output": FORGED} | changes)
        return kept.get("output")


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
    ],
)
async def test_append_approval_that_nobody_gave_is_refused(
    world: World, place: tuple[Any, ...], approved: bool | None, entry: dict[str, Any]
) -> None:
    await world.ask(*place, approved=approved)
    with pytest.raises(Refused, match="nobody has approved"):
        await world.finish(**{"node": "ship", **entry})
    assert await world.storage.journal(world.fence.task_id) == []


def started(node: str, *items: str) -> list[dict[str, Any]]:
    of_items = [{"kind": "ItemStarted", "node": node, "item": item, "state": None} for item in items]
    return [{"kind": "NodeStarted", "node": node, "state": None}, *of_items]


def of_item(node: str, item: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "ItemFinished", "node": node, "item": item, "output": FORGED} | changes


def failed(reason: str, **changes: Any) -> dict[str, Any]:
    error = {"reason": reason, "message": "no"}
    return {"state": "Failed", "reason": reason, "error": error, "output": FORGED} | changes


GREETED: list[dict[str, Any]] = [*started("greet"), {"node": "greet", "output": "hello"}]
ENDING = {"kind": "RunEnding", "state": "Cancelled", "reason": "Stopped"}
ENDED = {"kind": "RunFinished", "state": "Failed", "reason": "InternalError"}


async def test_append_approvals_of_all_items(world: World) -> None:
    await world.ask("all", "0", 1, 1, 0)
    await world.ask("all", "1", 1, 2, 0)
    items = [of_item("all", "0"), of_item("all", "1", tryNumber=2)]
    kept = await world.append(*started("all", "0", "1"), *items, {"node": "all", "output": [1]})
    assert kept[-1]["output"] == [DECISION, DECISION]


async def test_append_failed_items_stay_failed(world: World) -> None:
    await world.ask("some", "a", 1, 1, 0, approved=False)
    await world.ask("some", "b", 1, 1, 0)
    items = [of_item("some", "a", **failed("ApprovalRejected")), of_item("some", "b")]
    kept = await world.append(*started("some", "a", "b"), *items, {"node": "some", "output": {"a": FORGED}})
    assert kept[-1]["output"] == {"a": {"reason": "ApprovalRejected", "message": "no"}, "b": DECISION}


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([*GREETED, {"node": "maybe", "state": "Skipped", "reason": "WhenFalse"}], id="when-is-false"),
        pytest.param(
            [*GREETED, {"node": "maybe", "state": "Skipped"}, {"node": "after", "state": "Skipped"}], id="needs-skipped"
        ),
        pytest.param([*started("none"), {"node": "none", "output": []}], id="no-items"),
        pytest.param([*started("ship"), ENDING, {"node": "ship", "state": "Cancelled"}], id="run-is-stopped"),
        pytest.param([ENDING, {"node": "after", "state": "Skipped", "reason": "Stopped"}], id="never-begun"),
        pytest.param([*started("ship"), {"node": "ship", "state": "Cancelled"}, ENDED], id="run-cannot-go-on"),
        pytest.param([*started("ship"), {"node": "ship", **failed("Timeout")}], id="took-too-long"),
        pytest.param([*started("all"), {"node": "all", **failed("ApprovalRejected")}], id="an-item-was-rejected"),
        pytest.param([*started("ship"), {"node": "ship", **failed("ApprovalRejected")}], id="was-rejected"),
    ],
)
async def test_append_approval_that_ends_as_the_graph_says(world: World, entries: list[dict[str, Any]]) -> None:
    await world.ask("all", "1", 1, 1, 0, approved=False)
    await world.ask("ship", None, 1, 1, 0, approved=False)
    kept = await world.append(*entries)
    assert len(kept) == len(entries)
    ends = [one for one in kept if one["kind"] == "NodeFinished" and one["node"] != "greet"]
    assert all(one.get("output") in (None, []) for one in ends), "nothing that the pod says of it"


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([{"node": "maybe", "state": "Skipped", "reason": "WhenFalse"}], id="before-its-needs"),
        pytest.param(
            [GREETED[0], GREETED[1] | {"output": "ask"}, {"node": "maybe", "state": "Skipped"}], id="when-is-true"
        ),
        pytest.param([{"node": "ship", "state": "Skipped", "reason": "WhenFalse"}], id="no-when"),
        pytest.param(
            [GREETED[0], GREETED[1] | {"output": "ask"}, {"node": "after", "state": "Skipped"}], id="needs-not-skipped"
        ),
        pytest.param([*started("all"), {"node": "all", "output": []}], id="items-left-out"),
        pytest.param([{"node": "all", "output": []}], id="no-items-begun"),
        pytest.param([*started("ship"), {"node": "ship", "state": "Cancelled"}], id="nothing-cancels-it"),
        pytest.param([ENDED, {"node": "ship", "state": "Cancelled"}], id="after-the-end"),
        pytest.param([*started("all", "0"), of_item("all", "0", state="Skipped")], id="items-are-not-skipped"),
        pytest.param([{"node": "sub/ship", "state": "Skipped"}], id="within-what-never-began"),
        pytest.param([*started("ship"), {"node": "ship", **failed("ApprovalRejected")}], id="not-rejected"),
        pytest.param([*started("ship"), {"node": "ship", **failed("ApprovalTimeout")}], id="not-timed-out"),
        pytest.param([*started("all"), {"node": "all", **failed("ApprovalRejected")}], id="no-item-was-rejected"),
        pytest.param(
            [*started("ship"), {"node": "ship", **failed("Odd"), "reason": "ApprovalRejected"}], id="by-its-reason"
        ),
    ],
)
async def test_append_approval_that_cannot_end_so_is_refused(world: World, entries: list[dict[str, Any]]) -> None:
    await world.ask("all", "1", 2, 1, 0, approved=False)
    await world.ask("ship", None, 1, 1, 0)
    with pytest.raises(Refused, match="does not end so"):
        await world.append(*entries)
    assert await world.storage.journal(world.fence.task_id) == []


async def test_append_failure_that_is_continued_says_what_failed(world: World) -> None:
    await world.ask("some", "a", 1, 1, 0, approved=False)
    kept = await world.append(*started("some", "a"), of_item("some", "a", **failed("Timeout")))
    assert kept[-1]["output"] == {"reason": "Timeout", "message": "no"}


async def test_append_of_other_nodes_is_kept_as_it_is(world: World) -> None:
    assert await world.finish("greet") == FORGED


async def test_append_of_a_late_writer_is_fenced(world: World) -> None:
    await world.ask("ship", None, 1, 1, 0, approved=None)
    await world.storage.release(world.fence, at=NOW)
    with pytest.raises(Fenced):
        await world.finish("ship")
