from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from fairlead.core import names
from fairlead.errors import Refused, Unavailable
from fairlead.kube import Ref, TokenIdentity
from fairlead.services.leases import UNWRITTEN
from fairlead.services.sessions import Sessions, Unauthenticated, UnknownProtocol, token_digest
from fairlead.services.tasks import Tasks
from fairlead.services.wakeups import Wakeups
from fairlead.storage import Storage
from fairlead.storage.base import MAX_ATTEMPTS_WITHOUT_PROGRESS, Fence, Fenced, RunState, TaskState
from fairlead.testing.clock import FakeClock
from fairlead.testing.kube import FakeKube
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, make_revision, make_run, make_task, sqlite_storage
from fairlead_agent.protocol import PROTOCOL, Claim, Heartbeat, Register

REGISTER = Register(version="0.1.0", concurrency=2)


@dataclass
class World:
    storage: Storage
    kube: FakeKube
    clock: FakeClock
    sessions: Sessions
    wakeups: Wakeups

    async def pod(self, name: str = "agent-0", **meta: Any) -> str:
        """Create a pod of the pool; return its token."""
        metadata = {"name": name, "namespace": NAMESPACE, "labels": {names.AGENT_LABEL: "default"}} | meta
        pod = await self.kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
        extra = {
            "authentication.kubernetes.io/pod-name": [name],
            "authentication.kubernetes.io/pod-uid": [pod["metadata"]["uid"]],
        }
        username = f"system:serviceaccount:{NAMESPACE}:default"
        self.kube.tokens[f"token-{name}", names.AUDIENCE] = TokenIdentity(username, extra=extra)
        return f"token-{name}"

    async def submit(self, uid: str = "run-1", **task: Any) -> None:
        revision = make_revision(nodes=[])
        await self.storage.submit(
            make_run(uid, revision=revision.digest), revision=revision, task=make_task(uid, **task)
        )

    def lease(self, pod: str = "agent-0") -> dict[str, Any]:
        return self.kube.objects[Ref("coordination.k8s.io/v1", "Lease", pod, NAMESPACE)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with sqlite_storage(tmp_path) as storage:
        kube, clock = FakeKube(), FakeClock()
        wakeups = Wakeups(storage, clock, "queue")
        fake: Any = kube
        sessions = Sessions(storage, fake, clock, cluster=CLUSTER, tasks=Tasks(storage), wakeups=wakeups)
        yield World(storage, kube, clock, sessions, wakeups)


async def present() -> bool:
    return False


async def test_register_keeps_a_digest_of_the_session_only(world: World) -> None:
    session = await world.sessions.register(await world.pod(), REGISTER)
    (stored,) = await world.storage.list_sessions(CLUSTER)
    assert stored.token_digest == token_digest(session.session)
    assert session.session not in str(stored)
    assert (await world.sessions.authenticate(session.session)).id == stored.id


async def test_register_again_ends_the_earlier_session_and_requeues(world: World) -> None:
    token = await world.pod()
    await world.submit()
    first = await world.sessions.register(token, REGISTER)
    old = await world.sessions.authenticate(first.session)
    (claimed,) = await world.sessions.claim(old, Claim(wait_seconds=0), gone=present)

    second = await world.sessions.register(token, REGISTER)

    with pytest.raises(Unauthenticated):
        await world.sessions.authenticate(first.session)
    new = await world.sessions.authenticate(second.session)
    (again,) = await world.sessions.claim(new, Claim(wait_seconds=0), gone=present)
    assert (again.task.id, again.task.attempt) == (claimed.task.id, claimed.task.attempt + 1)


async def test_register_pod_of_one_run_is_once(world: World) -> None:
    meta = {"labels": {names.RUN_LABEL: "triage-1"}, "annotations": {names.POOL_ANNOTATION: "run-uid"}}
    session = await world.sessions.register(await world.pod(**meta), REGISTER)
    assert (session.once, session.pool) == (True, names.run_pool(CLUSTER, NAMESPACE, "run-uid"))
    assert world.lease()["metadata"]["labels"][names.RUN_LABEL] == "triage-1"


async def test_register_lease_seconds_come_from_the_pod(world: World) -> None:
    token = await world.pod(annotations={f"{names.GROUP}/lease-seconds": "60"})
    session = await world.sessions.register(token, REGISTER)
    assert (session.lease_duration_seconds, session.heartbeat_seconds) == (60, 20)
    assert world.lease()["spec"]["leaseDurationSeconds"] == 60


async def test_register_lease_of_an_earlier_pod_of_the_name_is_taken_over(world: World) -> None:
    await world.sessions.register(await world.pod(), REGISTER)
    del world.kube.objects[Ref("v1", "Pod", "agent-0", NAMESPACE)]
    before = world.lease()["spec"]["holderIdentity"]
    await world.sessions.register(await world.pod(), REGISTER)
    lease = world.lease()
    assert lease["spec"]["holderIdentity"] != before
    assert lease["metadata"]["ownerReferences"][0]["uid"] == lease["spec"]["holderIdentity"]


async def test_register_says_on_the_lease_what_the_agent_is(world: World) -> None:
    request = Register(version="1.2.3", capabilities=("llm", "tool"), concurrency=7)
    await world.sessions.register(await world.pod(), request)
    annotations = world.lease()["metadata"]["annotations"]
    assert annotations == {
        names.VERSION_ANNOTATION: "1.2.3",
        names.CAPABILITIES_ANNOTATION: "llm,tool",
        names.CAPACITY_ANNOTATION: "7",
    }


async def test_register_is_told_once_for_each_registration(world: World) -> None:
    token = await world.pod()
    for _ in range(2):
        await world.sessions.register(token, REGISTER)
    events = [obj for obj in world.kube.objects.values() if obj["kind"] == "Event"]
    assert [event["reason"] for event in events] == ["AgentRegistered"] * 2
    assert events[0]["related"]["name"] == "agent-0"


@pytest.mark.parametrize(
    ("again", "drains"),
    [pytest.param(False, True, id="its-process-started-again"), pytest.param(True, False, id="another-pod")],
)
async def test_register_what_was_asked_of_a_pod_holds_for_it(world: World, *, again: bool, drains: bool) -> None:
    token = await world.pod()
    await world.sessions.register(token, REGISTER)
    world.lease()["metadata"]["annotations"][names.DRAIN_ANNOTATION] = "true"
    if again:
        del world.kube.objects[Ref("v1", "Pod", "agent-0", NAMESPACE)]
        token = await world.pod()
    session = await world.sessions.authenticate((await world.sessions.register(token, REGISTER)).session)
    assert (await world.sessions.heartbeat(session, Heartbeat())).drain is drains


@pytest.mark.parametrize("token", ["", "unknown"])
async def test_register_unknown_token_is_refused(world: World, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await world.sessions.register(token, REGISTER)


async def test_register_token_for_another_audience_is_refused(world: World) -> None:
    token = await world.pod()
    world.kube.tokens[token, ""] = world.kube.tokens.pop((token, names.AUDIENCE))
    with pytest.raises(Unauthenticated, match="audience"):
        await world.sessions.register(token, REGISTER)


async def test_register_token_without_a_pod_is_refused(world: World) -> None:
    world.kube.tokens["t", names.AUDIENCE] = TokenIdentity(f"system:serviceaccount:{NAMESPACE}:default")
    with pytest.raises(Unauthenticated, match="not bound to a pod"):
        await world.sessions.register("t", REGISTER)


async def test_register_pod_that_is_gone_is_refused(world: World) -> None:
    token = await world.pod()
    del world.kube.objects[Ref("v1", "Pod", "agent-0", NAMESPACE)]
    with pytest.raises(Unauthenticated, match="gone"):
        await world.sessions.register(token, REGISTER)


async def test_register_pod_that_was_replaced_is_refused(world: World) -> None:
    token = await world.pod()
    world.kube.objects[Ref("v1", "Pod", "agent-0", NAMESPACE)]["metadata"]["uid"] = "another"
    with pytest.raises(Unauthenticated, match="gone"):
        await world.sessions.register(token, REGISTER)


async def test_register_pod_that_is_ending_is_refused(world: World) -> None:
    token = await world.pod(deletionTimestamp="2026-01-02T03:04:05Z")
    with pytest.raises(Unauthenticated, match="ending"):
        await world.sessions.register(token, REGISTER)


async def test_register_pod_that_is_no_agent_is_refused(world: World) -> None:
    with pytest.raises(Refused, match="no agent pod"):
        await world.sessions.register(await world.pod(labels={}), REGISTER)


async def test_register_another_protocol_is_refused(world: World) -> None:
    with pytest.raises(UnknownProtocol, match=f"protocol {PROTOCOL}"):
        await world.sessions.register(await world.pod(), Register(protocol=99, version="9"))


async def test_heartbeat_tells_what_to_cancel_and_what_is_lost(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    await world.submit()
    await world.sessions.claim(session, Claim(wait_seconds=0), gone=present)
    await world.storage.cancel_run("run-1", reason="Stopped", message="", at=NOW)
    reply = await world.sessions.heartbeat(session, Heartbeat(tasks=("run-1-task", "not-mine")))
    assert (reply.cancel, reply.lost, reply.drain) == (("run-1-task",), ("not-mine",), False)


async def test_heartbeat_drain_is_asked_for_on_the_lease(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    world.lease()["metadata"]["annotations"] = {f"{names.GROUP}/drain": "true"}
    assert (await world.sessions.heartbeat(session, Heartbeat())).drain


async def test_heartbeat_mends_a_deleted_lease(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    del world.kube.objects[Ref("coordination.k8s.io/v1", "Lease", "agent-0", NAMESPACE)]
    await world.sessions.heartbeat(session, Heartbeat())
    assert world.lease()["spec"]["holderIdentity"] == session.pod_uid


async def test_heartbeat_of_a_deleted_pod_is_refused(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    world.kube.objects.clear()
    with pytest.raises(Unauthenticated):
        await world.sessions.heartbeat(session, Heartbeat())


async def test_heartbeat_works_while_the_cluster_does_not(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    world.kube.failure = Unavailable("no API server")
    assert (await world.sessions.heartbeat(session, Heartbeat(tasks=("x",)))).lost == ("x",)


@pytest.mark.parametrize("why", [Unavailable("too many requests"), Refused("a webhook says no", reason="Forbidden")])
async def test_heartbeat_whose_lease_cannot_be_written_is_told_to_the_operator(world: World, why: Exception) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    async with aclosing(world.storage.subscribe(UNWRITTEN)) as told:  # type: ignore[type-var]
        await world.sessions.heartbeat(session, Heartbeat())
        world.kube.failure = why
        assert (await world.sessions.heartbeat(session, Heartbeat(tasks=("x",)))).lost == ("x",)
        assert (await asyncio.wait_for(anext(told), 10)).key == session.pod_uid


async def test_heartbeat_whose_lease_is_not_written_at_once_is_told_to_the_operator(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    world.kube.held = asyncio.Event()
    async with aclosing(world.storage.subscribe(UNWRITTEN)) as told:  # type: ignore[type-var]
        beating = asyncio.create_task(world.sessions.heartbeat(session, Heartbeat()))
        assert (await asyncio.wait_for(anext(told), 10)).key == session.pod_uid
        assert not beating.done()
        world.kube.held.set()
        await beating


async def test_heartbeat_that_does_not_know_its_task_gives_it_back(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    await world.submit()
    (claimed,) = await world.sessions.claim(session, Claim(wait_seconds=0), gone=present)
    for _ in range(2):
        await world.sessions.heartbeat(session, Heartbeat())
        assert [t.id for t in await world.storage.tasks_of_pod(session.pod_uid)] == [claimed.task.id]

    await world.sessions.heartbeat(session, Heartbeat())

    assert await world.storage.tasks_of_pod(session.pod_uid) == []
    (task,) = await world.storage.tasks_of_run("run-1")
    assert task.state is TaskState.QUEUED


async def test_heartbeat_task_that_is_dropped_each_time_ends(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    await world.submit()
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        assert len(await world.sessions.claim(session, Claim(wait_seconds=0), gone=present)) == 1
        for _ in range(3):
            await world.sessions.heartbeat(session, Heartbeat())

    assert await world.sessions.claim(session, Claim(wait_seconds=0), gone=present) == []
    run = await world.storage.get_run("run-1")
    assert run is not None
    assert (run.state, run.reason) == (RunState.FAILED, "AttemptsExhausted")


async def test_heartbeat_that_knows_its_task_keeps_it(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    await world.submit()
    (claimed,) = await world.sessions.claim(session, Claim(wait_seconds=0), gone=present)
    for known in ((), (claimed.task.id,), (), (), (claimed.task.id,), ()):
        await world.sessions.heartbeat(session, Heartbeat(tasks=known))
    assert len(await world.storage.tasks_of_pod(session.pod_uid)) == 1


async def test_claim_gives_no_more_than_asked(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    for number in range(5):
        await world.submit(f"run-{number}")
    claimed = await world.sessions.claim(session, Claim(limit=3, wait_seconds=0), gone=present)
    assert len({one.task.id for one in claimed}) == 3


async def test_claim_of_another_pool_is_not_given(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    await world.submit(pool=names.agent_pool(CLUSTER, "other", "default"))
    assert await world.sessions.claim(session, Claim(wait_seconds=0), gone=present) == []


async def test_claim_that_is_hung_up_on_takes_nothing(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    await world.submit()
    answers = cycle([False, True])  # there when it asks, gone when it is answered

    async def gone() -> bool:
        return next(answers)

    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        assert await world.sessions.claim(session, Claim(wait_seconds=0), gone=gone) == []
    (task,) = await world.storage.tasks_of_run("run-1")
    assert task.state is TaskState.QUEUED, "nobody's fault: it does not count"


async def test_claim_is_woken_by_the_bus(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    listening = asyncio.create_task(world.wakeups.run())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(world.sessions.claim(session, Claim(wait_seconds=30), gone=present))
    await asyncio.wait((waiting,), timeout=0.1)
    await world.submit()
    claimed = await asyncio.wait_for(waiting, 4)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert len(claimed) == 1


async def test_claim_while_ending_gives_nothing(world: World) -> None:
    registered = await world.sessions.register(await world.pod(), REGISTER)
    session = await world.sessions.authenticate(registered.session)
    waiting = asyncio.create_task(world.sessions.claim(session, Claim(wait_seconds=30), gone=present))
    await asyncio.wait((waiting,), timeout=0.1)
    world.sessions.closing = True
    world.wakeups.close()
    assert await asyncio.wait_for(waiting, 5) == []
    await world.submit()
    assert await world.sessions.claim(session, Claim(wait_seconds=30), gone=present) == []


async def test_release_of_what_is_not_held_is_fenced(world: World) -> None:
    await world.submit()
    with pytest.raises(Fenced):
        await world.sessions.release(Fence("run-1-task", "nobody", 1), reason="x")


async def test_register_leaves_the_lease_of_somebody_else_alone(world: World) -> None:
    theirs = {"name": "agent-0", "namespace": NAMESPACE, "labels": {"app": "other"}}
    made = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": theirs}
    await world.kube.create({**made, "spec": {"holderIdentity": "leader-of-another-program"}})
    with pytest.raises(Refused, match="belongs to something else"):
        await world.sessions.register(await world.pod(), REGISTER)
    assert world.lease()["spec"]["holderIdentity"] == "leader-of-another-program"


@pytest.mark.parametrize(("given", "seconds"), [("9" * 5000, 15), ("-1", 15), ("1", 3), ("60", 60), ("²", 15)])
async def test_register_lease_seconds_of_any_text(world: World, given: str, seconds: int) -> None:
    token = await world.pod(annotations={names.LEASE_SECONDS_ANNOTATION: given})
    assert (await world.sessions.register(token, REGISTER)).lease_duration_seconds == seconds
