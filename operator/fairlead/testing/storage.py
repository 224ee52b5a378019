"""Factories for what storage keeps, and a storage on a file. SQLite on a temporary file is the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairlead.core import names
from fairlead.storage import Storage, open_storage
from fairlead.storage.base import AgentSession, QueuedTask, Revision, Run

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


@asynccontextmanager
async def sqlite_storage(folder: Path) -> AsyncIterator[Storage]:
    """Open a storage on a file in *folder*, up to date."""
    storage = open_storage(f"sqlite:///{folder / 'fairlead.db'}")
    try:
        await storage.migrate()
        yield storage
    finally:
        await storage.aclose()
