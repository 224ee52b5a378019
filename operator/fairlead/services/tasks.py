"""What the gateway has to know of a task besides its fence: its run and the frozen revision. Neither ever changes."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from fairlead.errors import TerminalError
from fairlead.storage.base import Fence, Run, Storage, Task
from fairlead_agent.graph import paths
from fairlead_agent.graph.model import ACTIONS
from fairlead_agent.protocol import StartTurn

_KEPT: Final = 2048
_STEP: Final = r"@?[A-Za-z][A-Za-z0-9_]{0,62}"
_PATH: Final = re.compile(rf"(?:{_STEP}(?:\[[^\[\]/#]*\])?(?:#\d{{1,9}}\.\d{{1,9}})?/)*{_STEP}")


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The part of a task that is the same from its claim to its end."""

    task_id: str
    run_uid: str
    namespace: str
    name: str
    workflow: str
    started_at: datetime | None
    document: Mapping[str, Any]
    """The frozen revision: ``workflow``, ``workflows``, ``agents``, ``models``, ``tools``."""
    cluster: str = ""
    run_budget: Mapping[str, Any] | None = None
    """``WorkflowRun.spec.budget``, as on the wire."""
    turn: StartTurn | None = None
    """What was asked for, where the task is an agent's turn."""
    requested_at: datetime | None = None
    """When the turn was asked for."""
    deadline: datetime | None = None
    _nodes: dict[str, Mapping[str, Any] | None] = field(default_factory=dict, repr=False, compare=False)
    """What `node` found."""
    _definitions: dict[tuple[str, ...], Mapping[str, Any] | None] = field(
        default_factory=dict, repr=False, compare=False
    )
    """What `definition` found, by the names along the path."""

    @property
    def agent(self) -> str:
        """The name of the Agent whose turn it is, or nothing."""
        return "" if self.turn is None else self.turn.agent

    def definition(self, path: str) -> Mapping[str, Any] | None:
        """Return the frozen node, or handler, that *path* leads to, or into."""
        place = paths.names(path)  # the same for all items and iterations
        if place not in self._definitions:
            _make_room(self._definitions)
            self._definitions[place] = paths.definition(self.document, path)
        return self._definitions[place]

    def node(self, path: str) -> Mapping[str, Any] | None:
        """Return the frozen node, or handler, whose path this is to the letter: for what a pod says."""
        if path not in self._nodes:
            _make_room(self._nodes)
            self._nodes[path] = self.definition(path) if _PATH.fullmatch(path) else None
        return self._nodes[path]

    def cache_key(self, path: str, digest: str) -> str:
        """Return under what a result of the node at *path* is kept, with whatever *digest* the pod gives it.

        What the node does is part of it: so no pod can make up results of nodes that its run does not have.
        """
        node = self.node(path) or {}
        does = {action: node[action] for action in ACTIONS if action in node}
        return hashlib.sha256(orjson.dumps([does, digest], option=orjson.OPT_SORT_KEYS)).hexdigest()

    def default_model(self, path: str) -> str:
        """Return the Model that the node at *path* asks unless it names another."""
        scope = paths.scope(self.document, path) or {}
        return str(scope.get("model") or self.document["workflow"]["spec"].get("model") or "")

    def agent_spec(self) -> Mapping[str, Any]:
        """Return the frozen Agent whose turn it is."""
        found: Mapping[str, Any] = (self.document.get("agents") or {}).get(self.agent) or {}
        return found


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
        revision = await self._storage.get_revision(run.revision)
        if revision is None:
            raise TerminalError(f"revision {run.revision} of run {run.uid} is gone", reason="RevisionNotFound")
        return self.remember(fence, task, run, document=revision.document)

    def remember(self, fence: Fence, task: Task, run: Run, *, document: Mapping[str, Any]) -> TaskContext:
        """Keep and return a task's context; the oldest is forgotten."""
        context = build_context(task, run, document)
        self._contexts[fence] = context
        while len(self._contexts) > _KEPT:
            self._contexts.popitem(last=False)
        return context


def build_context(task: Task, run: Run, document: Mapping[str, Any]) -> TaskContext:
    """Return what stays the same of a task."""
    asked = task.request.get("requestedAt")
    return TaskContext(
        task_id=task.id,
        run_uid=run.uid,
        namespace=run.namespace,
        name=run.name,
        workflow=run.workflow,
        started_at=run.started_at,
        document=document,
        cluster=run.cluster,
        run_budget=run.budget,
        turn=StartTurn.model_validate(task.request) if task.kind == "turn" else None,
        requested_at=datetime.fromisoformat(asked) if asked else None,
        deadline=task.deadline,
    )


def _make_room(found: dict[Any, Any]) -> None:
    if len(found) >= _KEPT:
        found.clear()
