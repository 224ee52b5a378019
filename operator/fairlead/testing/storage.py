"""Factories for what storage keeps, and a storage on a file. SQLite on a temporary file is the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import create_engine

from fairlead.core import names
from fairlead.storage import Storage, open_storage
from fairlead.storage.base import (
    AgentSession,
    Approval,
    CallIntent,
    Claimed,
    Fence,
    QueuedTask,
    Revision,
    Run,
    Turn,
)
from fairlead.storage.migrations import bring_up_to_date

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CLUSTER = "11111111-2222-3333-4444-555555555555"
NAMESPACE = "default"
POOL = names.agent_pool(CLUSTER, NAMESPACE, "default")


def make_revision(**spec: Any) -> Revision:
    """Return a frozen Workflow; *spec* are fields of its spec."""
    workflow = {"name": "triage", "uid": "workflow-uid", "generation": 1, "spec": spec}
    document = {"workflow": workflow, "agents": {}, "models": {}, "tools": {}}
    return Revision(names.digest(document), document)


def make_run(uid: str = "run-1", **changes: Any) -> Run:
    """Return a run that was just created."""
    values: dict[str, Any] = {
        "uid": uid,
        "cluster": CLUSTER,
        "namespace": NAMESPACE,
        "name": uid,
        "workflow": "triage",
        "revision": make_revision().digest,
        "inputs": {},
        "created_at": NOW,
    }
    return Run(**values | changes)


def make_task(run_uid: str = "run-1", **changes: Any) -> QueuedTask:
    """Return the task of a run; its id is ``<run>-task``."""
    values: dict[str, Any] = {"id": f"{run_uid}-task", "run_uid": run_uid, "pool": POOL}
    return QueuedTask(**values | changes)


def make_session(pod: str = "pod-1", **changes: Any) -> AgentSession:
    """Return the session of a pod; its id is ``<pod>-session``, the pod's uid ``<pod>-uid``."""
    values: dict[str, Any] = {
        "id": f"{pod}-session",
        "token_digest": names.digest(f"{pod}-token"),
        "cluster": CLUSTER,
        "namespace": NAMESPACE,
        "pod": pod,
        "pod_uid": f"{pod}-uid",
        "pool": POOL,
        "concurrency": 4,
        "version": "0.1.0",
        "capabilities": ("llm", "tool"),
        "created_at": NOW,
    }
    return AgentSession(**values | changes)


def make_approval(key: str = "ship/-/1/1/0", run_uid: str = "run-1", **changes: Any) -> Approval:
    """Return a question of a run's task; it has a day to be answered."""
    values: dict[str, Any] = {
        "task_id": f"{run_uid}-task",
        "key": key,
        "run_uid": run_uid,
        "cluster": CLUSTER,
        "namespace": NAMESPACE,
        "run_name": run_uid,
        "node": key.partition("/")[0],
        "item": "",
        "message": "Send this?",
        "requested_at": NOW,
        "deadline": NOW + timedelta(days=1),
    }
    return Approval(**values | changes)


def make_turn(key: str = "fix/-/1/1/0", **changes: Any) -> Turn:
    """Return a turn of an agent; its id is that of `make_task` with the key behind it."""
    values: dict[str, Any] = {"id": f"run-1-task/{key}", "key": key, "pool": POOL, "request": {"prompt": "Fix it."}}
    return Turn(**values | changes)


def make_intent(key: str = "a/-/1/1/0", run_uid: str = "run-1", **changes: Any) -> CallIntent:
    """Return a call of a run's task to a model."""
    values: dict[str, Any] = {
        "task_id": f"{run_uid}-task",
        "run_uid": run_uid,
        "key": key,
        "digest": "d",
        "action": "llm",
        "node": key.partition("/")[0],
        "item": "",
        "gateway": "gateway-1",
        "target": "default",
        "request": {"prompt": "hi"},
        "started_at": NOW,
    }
    return CallIntent(**values | changes)


async def claim(storage: Storage, pod: str = "pod-1", *, pool: str = POOL) -> tuple[Fence, Claimed]:
    """Register a pod and claim the one task that its pool has; return the fence to write with."""
    session = make_session(pod, pool=pool)
    await storage.register(session, at=NOW)
    [claimed] = await storage.claim(session, limit=1, at=NOW)
    return Fence(claimed.task.id, session.id, claimed.task.attempt), claimed


async def start_run(storage: Storage, uid: str = "run-1", **changes: Any) -> Fence:
    """Create a run that a pod holds; the pod is ``<uid>-pod``, its pool the run's own."""
    pool = names.run_pool(CLUSTER, NAMESPACE, uid)
    await storage.submit(make_run(uid, **changes), revision=make_revision(), task=make_task(uid, pool=pool))
    fence, _ = await claim(storage, f"{uid}-pod", pool=pool)
    return fence


@cache
def migrated_file() -> bytes:
    """Return a SQLite file that is up to date. It is made once: migrations take far longer than most tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fairlead.db"
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            bring_up_to_date(connection)
        engine.dispose()
        return path.read_bytes()


@asynccontextmanager
async def sqlite_storage(folder: Path) -> AsyncIterator[Storage]:
    """Open a storage on a file in *folder*, up to date."""
    path = folder / "fairlead.db"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(migrated_file())
    storage = open_storage(f"sqlite:///{path}")
    try:
        await storage.migrate()
        yield storage
    finally:
        await storage.aclose()
