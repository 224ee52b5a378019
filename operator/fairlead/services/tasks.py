"""What the gateway has to know of a task besides its fence: its run and the frozen revision. Neither ever changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fairlead.errors import TerminalError
from fairlead.storage.base import Fence, Run, Storage

_KEPT: Final = 2048


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The part of a run that is the same from its claim to its end."""

    task_id: str
    run_uid: str
    namespace: str
    name: str
    workflow: str
    started_at: datetime | None
    document: Mapping[str, Any]
    """The frozen revision: ``workflow``, ``agents``, ``models``, ``tools``."""

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """The declared nodes, by name."""
        return {node["name"]: node for node in self.document["workflow"]["spec"].get("nodes") or ()}


class Tasks:
    """Remembers the contexts of the tasks that were used last."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._contexts: OrderedDict[Fence, TaskContext] = OrderedDict()

    async def context(self, fence: Fence) -> TaskContext:
        """Return a task's context. A fence is checked when it is first seen: writers are fenced anyway.

        Raises:
            Fenced: the claim is over.
        """
        known = self._contexts.get(fence)
        if known is not None:
            self._contexts.move_to_end(fence)
            return known
        task = await self._storage.check_fence(fence)
        run = await self._storage.get_run(task.run_uid)
        if run is None:
            raise TerminalError(f"run {task.run_uid} is gone", reason="RunNotFound")
        return await self.remember(fence, run)

    async def remember(self, fence: Fence, run: Run, document: Mapping[str, Any] | None = None) -> TaskContext:
        """Keep and return a task's context; the oldest is forgotten."""
        if document is None:
            revision = await self._storage.get_revision(run.revision)
            if revision is None:
                raise TerminalError(f"revision {run.revision} of run {run.uid} is gone", reason="RevisionNotFound")
            document = revision.document
        context = TaskContext(fence.task_id, run.uid, run.namespace, run.name, run.workflow, run.started_at, document)
        self._contexts[fence] = context
        while len(self._contexts) > _KEPT:
            self._contexts.popitem(last=False)
        return context
