"""Which pods are registered and what each works on, for people: the Leases do not say, storage does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.core import names
from fairlead.services.showing import camel
from fairlead.storage.base import AgentSession, Run, Storage, Task

_SHOWN = frozenset({"id", "token_digest", "cluster", "namespace", "pool", "created_at", "revoked"})


class Roster:
    """Reads pools and their pods."""

    def __init__(self, storage: Storage, *, cluster: str) -> None:
        self._storage = storage
        self._cluster = cluster

    async def agent(self, namespace: str, agent: str) -> dict[str, Any]:
        """Return an Agent's pool: what waits, what is taken, and its registered pods by name."""
        pool = names.agent_pool(self._cluster, namespace, agent)
        queued, claimed = (await self._storage.queue_depths(self._cluster)).get(pool, (0, 0))
        sessions = [one for one in await self._storage.list_sessions(self._cluster) if one.pool == pool]
        shown = await self._show(sessions)
        return {"name": agent, "namespace": namespace, "queued": queued, "claimed": claimed, "pods": shown}

    async def pod(self, namespace: str, pod: str) -> dict[str, Any] | None:
        """Return a registered pod of any pool; None: there is none of that name."""
        sessions = await self._storage.list_sessions(self._cluster)
        shown = await self._show([one for one in sessions if (one.namespace, one.pod) == (namespace, pod)])
        return shown[0] if shown else None

    async def _show(self, sessions: Iterable[AgentSession]) -> list[dict[str, Any]]:
        held = [(one, await self._storage.tasks_of_pod(one.pod_uid)) for one in sorted(sessions, key=lambda s: s.pod)]
        uids = {task.run_uid for _, tasks in held for task in tasks}
        runs = {run.uid: run for run in await self._storage.get_runs(sorted(uids))}
        return [_show_pod(session, tasks, runs) for session, tasks in held]


def _show_pod(session: AgentSession, tasks: Iterable[Task], runs: Mapping[str, Run]) -> dict[str, Any]:
    own = [_show_task(task, runs.get(task.run_uid)) for task in tasks if task.session == session.id]
    return {**camel(session, without=_SHOWN), "registeredAt": session.created_at, "tasks": own}


def _show_task(task: Task, run: Run | None) -> dict[str, Any]:
    """Return a task as JSON; the node is that of an agent's turn."""
    return {
        "id": task.id,
        "kind": task.kind,
        "run": "" if run is None else run.name,
        "runUid": task.run_uid,
        "node": str(task.request.get("node") or ""),
        "attempt": task.attempt,
    }
