from __future__ import annotations

from fairlead.storage import Storage
from fairlead.testing.storage import CLUSTER, NOW, POOL, make_revision, make_run, make_session, make_task


async def test_register_makes_a_session_that_its_token_finds(storage: Storage) -> None:
    session = make_session()

    await storage.register(session, at=NOW)

    assert await storage.get_session(session.token_digest) == session
    assert await storage.get_session("another") is None
    assert await storage.list_sessions(CLUSTER) == [session]
    assert await storage.list_sessions("another cluster") == []


async def test_register_again_ends_the_pods_earlier_session_and_frees_its_tasks(storage: Storage) -> None:
    first, second = make_session(), make_session(id="second", token_digest="second")
    await storage.register(first, at=NOW)
    await storage.submit(make_run(), revision=make_revision(), task=make_task())
    await storage.claim(first, limit=1, at=NOW)

    await storage.register(second, at=NOW)

    assert await storage.get_session(first.token_digest) is None
    assert await storage.list_sessions(CLUSTER) == [second]
    assert await storage.queue_depths(CLUSTER) == {POOL: (1, 0)}
    assert len(await storage.claim(second, limit=1, at=NOW)) == 1


async def test_requeue_pod_leaves_other_pods_alone(storage: Storage) -> None:
    await storage.register(make_session("pod-1"), at=NOW)
    await storage.register(make_session("pod-2"), at=NOW)

    await storage.requeue_pod("pod-1-uid", at=NOW)

    assert await storage.list_sessions(CLUSTER) == [make_session("pod-2")]
