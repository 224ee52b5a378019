from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from fairlead.core import names
from fairlead.storage import Storage
from fairlead.storage.base import (
    ApprovalState,
    Effects,
    Event,
    Fenced,
    NodeRecord,
    RunEnd,
    RunState,
    TaskState,
    Verdict,
)
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, make_approval, start_run
from fairlead_agent.protocol import Decision

OWN = names.run_pool(CLUSTER, NAMESPACE, "run-1")
LATER = NOW + timedelta(hours=1)
ASKED = make_approval(approvers=("ada", "team:ops"), tool={"name": "sql", "arguments": {"q": 1}}, item="3")
YES = Verdict(approved=True, by="ada", at=LATER, comment="fine")
NO = Verdict(approved=False, by="bob", at=LATER, via="annotation", verified=False)


async def pending_of_run(storage: Storage) -> int:
    run = await storage.get_run("run-1")
    assert run is not None
    return run.pending_approvals


async def test_open_approval_asks_once(storage: Storage) -> None:
    fence = await start_run(storage)

    assert await storage.open_approval(fence, ASKED) == ASKED
    assert await storage.open_approval(fence, replace(ASKED, message="Something else?")) == ASKED

    assert await storage.get_approval(ASKED.task_id, ASKED.key) == ASKED
    assert await storage.approvals_of_run("run-1") == [ASKED]
    assert await pending_of_run(storage) == 1


async def test_open_approval_by_who_lost_the_claim_is_fenced(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.requeue_pod("run-1-pod-uid", at=NOW)

    with pytest.raises(Fenced):
        await storage.open_approval(fence, ASKED)

    assert await storage.approvals_of_run("run-1") == []


@pytest.mark.parametrize(("verdict", "state"), [(YES, ApprovalState.APPROVED), (NO, ApprovalState.REJECTED)])
async def test_decide_keeps_who_when_and_why_and_wakes_the_task(
    storage: Storage, verdict: Verdict, state: ApprovalState
) -> None:
    fence = await start_run(storage)
    await storage.open_approval(fence, ASKED)
    await storage.park(fence, keys=[ASKED.key], wake_at=None, reason="Approval", at=NOW)

    decided = await storage.decide(ASKED.task_id, ASKED.key, verdict)

    assert decided == replace(
        ASKED,
        state=state,
        decided_by=verdict.by,
        decided_at=LATER,
        comment=verdict.comment,
        via=verdict.via,
        verified=verdict.verified,
    )
    assert await pending_of_run(storage) == 0
    assert await storage.queue_depths(CLUSTER) == {OWN: (1, 0)}
    [signal] = await storage.signals_of_task(ASKED.task_id)
    decision = Decision.model_validate(signal.value)
    assert (decision.approved, decision.by, decision.at, decision.comment, decision.via, decision.verified) == (
        verdict.approved,
        verdict.by,
        verdict.at,
        verdict.comment,
        verdict.via,
        verdict.verified,
    )


async def test_decide_again_lets_the_first_verdict_stand(storage: Storage, other: Storage) -> None:
    fence = await start_run(storage)
    await storage.open_approval(fence, ASKED)

    answers = await asyncio.gather(
        *(through.decide(ASKED.task_id, ASKED.key, verdict) for verdict in (YES, NO) for through in (storage, other))
    )

    assert len({(one.state, one.decided_by) for one in answers if one is not None}) == 1
    assert None not in answers
    assert len(await storage.signals_of_task(ASKED.task_id)) == 1
    assert await pending_of_run(storage) == 0


async def test_decide_what_nobody_asked_is_none(storage: Storage) -> None:
    await start_run(storage)

    assert await storage.decide("run-1-task", "nothing", YES) is None
    assert await storage.decide("nobody", "nothing", YES) is None

    assert await storage.signals_of_task("run-1-task") == []


async def test_decide_is_announced(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.open_approval(fence, ASKED)
    events = storage.subscribe("run", "signal")

    await storage.decide(ASKED.task_id, ASKED.key, YES)

    assert {await anext(events), await anext(events)} == {Event("run", "run-1"), Event("signal", "run-1-task")}


@pytest.mark.parametrize(
    ("on_timeout", "state"), [("Reject", ApprovalState.REJECTED), ("Approve", ApprovalState.APPROVED)]
)
async def test_wake_decides_what_is_over_its_time(storage: Storage, on_timeout: str, state: ApprovalState) -> None:
    fence = await start_run(storage)
    await storage.open_approval(fence, replace(ASKED, deadline=LATER, on_timeout=on_timeout))
    await storage.open_approval(fence, replace(ASKED, key="other"))
    await storage.park(fence, keys=[ASKED.key, "other"], wake_at=None, reason="Approval", at=NOW)

    assert await storage.wake(at=NOW) == LATER
    assert await storage.wake(at=LATER) == ASKED.deadline

    decided = await storage.get_approval(ASKED.task_id, ASKED.key)
    assert decided is not None
    assert (decided.state, decided.decided_by, decided.via, decided.decided_at) == (state, "", "timeout", LATER)
    assert await storage.queue_depths(CLUSTER) == {OWN: (1, 0)}
    assert await pending_of_run(storage) == 1


async def test_end_of_the_run_cancels_what_nobody_decided(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.open_approval(fence, ASKED)
    await storage.open_approval(fence, replace(ASKED, key="decided"))
    await storage.decide(ASKED.task_id, "decided", NO)

    await storage.end_run("run-1", RunEnd(RunState.FAILED, "Timeout", "", None, LATER))

    found = {one.key: one.state for one in await storage.approvals_of_run("run-1")}
    assert found == {ASKED.key: ApprovalState.CANCELLED, "decided": ApprovalState.REJECTED}
    assert await pending_of_run(storage) == 0
    late = await storage.decide(ASKED.task_id, ASKED.key, YES)
    assert late is not None
    assert late.state is ApprovalState.CANCELLED
    assert await storage.wake(at=ASKED.deadline) is None
    assert [task.state for task in await storage.tasks_of_run("run-1")] == [TaskState.DONE]


async def test_pending_approvals_are_those_of_a_cluster_or_namespace_oldest_first(storage: Storage) -> None:
    for number, namespace in ((2, "team"), (0, NAMESPACE), (1, NAMESPACE)):
        uid = f"run-{number}"
        fence = await start_run(storage, uid, namespace=namespace)
        asked = make_approval(run_uid=uid, namespace=namespace, requested_at=NOW + timedelta(seconds=number))
        await storage.open_approval(fence, asked)
    decided = await start_run(storage, "run-9")
    await storage.open_approval(decided, make_approval(run_uid="run-9"))
    await storage.decide("run-9-task", make_approval().key, YES)

    async def runs(**options: object) -> list[str]:
        return [one.run_uid for one in await storage.pending_approvals(CLUSTER, **options)]  # type: ignore[arg-type]

    assert await runs() == ["run-0", "run-1", "run-2"]
    assert await runs(namespace="team") == ["run-2"]
    assert await runs(limit=1) == ["run-0"]
    assert await storage.pending_approvals("another cluster") == []


async def test_open_approval_by_a_request_that_comes_after_its_node_has_ended_asks_nobody(storage: Storage) -> None:
    fence = await start_run(storage)
    over = NodeRecord("run-1", ASKED.node, ASKED.item, state="Cancelled", finished_at=NOW)
    await storage.append(fence, first=0, entries=[{"kind": "ItemFinished"}], effects=Effects(nodes=(over,)), at=NOW)

    late = await storage.open_approval(fence, ASKED)
    again = replace(ASKED, key=ASKED.key.replace("/1/1/", "/2/1/"))
    assert (late.state, await storage.open_approval(fence, again)) == (ApprovalState.CANCELLED, again)
    assert await pending_of_run(storage) == 1


async def test_append_withdraws_what_nobody_waits_for_any_more(storage: Storage) -> None:
    fence = await start_run(storage)
    answered, other = replace(ASKED, key="answered"), replace(ASKED, key="other", item="4")
    for one in (ASKED, answered, other):
        await storage.open_approval(fence, one)
    await storage.decide(answered.task_id, answered.key, YES)

    over = Effects(withdrawn=((ASKED.node, ASKED.item), ("nobody", "")))
    await storage.append(fence, first=0, entries=[{"kind": "NodeFinished"}], effects=over, at=NOW)

    states = {one.key: one.state for one in await storage.approvals_of_run("run-1")}
    assert states == {ASKED.key: ApprovalState.CANCELLED, "answered": ApprovalState.APPROVED, "other": "Pending"}
    assert await pending_of_run(storage) == 1
    late = await storage.decide(ASKED.task_id, ASKED.key, NO)
    assert late is not None
    assert late.state is ApprovalState.CANCELLED
