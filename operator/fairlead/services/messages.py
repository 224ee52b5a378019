"""Messages from outside to our agents: each makes one WorkflowRun, and what becomes of it is a conversation's task.

A task is a run, under the run's name, which follows from who sent which message to whom: the same message makes one run
however often it comes. All that has to be known of it later is in the run's inputs, which are kept with its history.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.clock import Clock
from fairlead.core import conditions, names
from fairlead.core.actions import Obj, conditions_of, meta, spec_of
from fairlead.errors import Conflict, InvalidObject, Unavailable
from fairlead.kube import KubeClient, Ref
from fairlead.services.outcomes import dollars
from fairlead.services.wakeups import Wakeups
from fairlead.storage.base import Run, RunState, Storage

MAX_PROMPT_BYTES: Final = 256 << 10
"""A message is a part of an object in the cluster."""
TOPIC: Final = "run"
_LOOK_SECONDS: Final = 2.0
_MAX_ID: Final = 256
_CONTEXTS: Final = uuid.UUID("f4a4f4ae-9b0a-5f5d-8d0e-0f4f6b7a2d11")
"""The name space of context ids."""
_TTL_SECONDS: Final = 3600
_INPUTS: Final = ("agent", "context", "message", "prompt")
_FINAL: Final = {RunState.SUCCEEDED: "completed", RunState.FAILED: "failed", RunState.CANCELLED: "canceled"}


class State(StrEnum):
    """Where a task is, as A2A says it."""

    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input-required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens."""
        return self in (State.COMPLETED, State.FAILED, State.CANCELED)


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody sends to an agent."""

    id: str
    context: str
    """Empty: a new one."""
    prompt: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A task as it is now."""

    name: str
    uid: str
    namespace: str
    agent: str
    context: str
    message: str
    prompt: str
    state: State
    at: datetime
    words: str = ""
    """About the state, for people."""
    output: Any = None
    cost: str | None = None
    """US dollars, when it has ended and all of it is known."""

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for unless somebody does something."""
        return self.state.final or self.state is State.INPUT_REQUIRED


class Messages:
    """Makes runs of messages, and tells what becomes of them."""

    def __init__(self, kube: KubeClient, storage: Storage, clock: Clock, *, wakeups: Wakeups, cluster: str) -> None:
        self._kube = kube
        self._storage = storage
        self._clock = clock
        self._wakeups = wakeups
        self._cluster = cluster

    async def agent(self, namespace: str, name: str) -> Obj | None:
        """Return an Agent that takes messages here; one that someone else runs does not."""
        found = await self._kube.get(Ref(names.API_VERSION, "Agent", name, namespace))
        return None if found is None or spec_of(found).get("external") else found

    async def agents(self, namespace: str) -> list[Obj]:
        """Return the Agents of a namespace that take messages."""
        found = await self._kube.list(names.API_VERSION, "Agent", namespace=namespace)
        return [agent for agent in found if not spec_of(agent).get("external")]

    async def send(self, namespace: str, agent: str, message: Message, *, by: str) -> Conversation:
        """Make the run of a message, unless there is one.

        Raises:
            InvalidObject: the message cannot be taken.
        """
        _check(message)
        run = build_run(namespace, agent, message, by=by)
        known = await self.find(namespace, agent, run["metadata"]["name"])
        if known is not None:
            return known
        try:
            return self._submitted(await self._kube.create(run))
        except Conflict:
            known = await self.find(namespace, agent, run["metadata"]["name"])
            if known is None:
                raise Unavailable("the run of this message has just gone: send it again", retry_after=1) from None
            return known

    async def find(self, namespace: str, agent: str, task: str) -> Conversation | None:
        """Return a task of an agent, or None."""
        if not task.startswith("a2a-") or len(task) > _MAX_ID:
            return None
        record = await self._storage.find_run(self._cluster, namespace, task)
        if record is not None:
            return _of_record(record) if record.inputs.get("agent") == agent else None
        run = await self._kube.get(Ref(names.API_VERSION, "WorkflowRun", task, namespace))
        inputs = {} if run is None else spec_of(run).get("inputs") or {}
        return self._submitted(run) if run is not None and inputs.get("agent") == agent else None

    async def cancel(self, task: Conversation) -> None:
        """Have the run of a task ended."""
        ref = Ref(names.API_VERSION, "WorkflowRun", task.name, task.namespace)
        await self._kube.merge_patch(ref, {"metadata": {"uid": task.uid}, "spec": {"stop": True}})

    async def follow(
        self, task: Conversation, *, check: Callable[[], Awaitable[object]], to_its_end: bool = False
    ) -> AsyncGenerator[Conversation]:
        """Yield a task as it is, then whenever its state has changed, until it is settled or this process ends.

        *check* is asked at every look, and may raise: whoever asks may have lost the right to know.
        """
        yield task
        while not (task.state.final if to_its_end else task.settled):
            armed = self._wakeups.arm(TOPIC, task.uid)
            try:
                now = await self.find(task.namespace, task.agent, task.name)
                if now is None:
                    return
                await check()
                if now.state is task.state:
                    if self._wakeups.closed:
                        return
                    await asyncio.wait((armed,), timeout=_LOOK_SECONDS)
                    continue
                task = now
            finally:
                self._wakeups.disarm(armed, TOPIC, key=task.uid)
            yield task

    def _submitted(self, run: Obj) -> Conversation:
        """Return a task whose run is not in storage: not yet, or because it was refused."""
        state, words = State.SUBMITTED, ""
        found = conditions.find(conditions_of(run), ConditionType.SUCCEEDED)
        if found is not None and found["status"] == "False":
            state = State.CANCELED if found["reason"] == Reason.CANCELLED else State.FAILED
            words = f"{found['reason']}: {found['message']}"
        inputs = spec_of(run)["inputs"]
        return Conversation(
            name=meta(run)["name"],
            uid=meta(run)["uid"],
            namespace=meta(run)["namespace"],
            **{key: str(inputs.get(key, "")) for key in _INPUTS},
            state=state,
            at=self._clock.now(),
            words=words,
        )


def build_run(namespace: str, agent: str, message: Message, *, by: str) -> dict[str, Any]:
    """Return the WorkflowRun of a message. The text of the message is an input, never a part of an expression."""
    mark = names.digest([namespace, agent, by, message.id])
    given = {
        "agent": agent,
        "context": message.context or str(uuid.uuid5(_CONTEXTS, mark)),
        "message": message.id,
        "prompt": message.prompt,
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "WorkflowRun",
        "metadata": {
            "name": f"a2a-{mark[:32]}",
            "namespace": namespace,
            "labels": {names.A2A_LABEL: names.label_value(agent)},
            "annotations": {names.REQUESTED_BY_ANNOTATION: by},
        },
        "spec": {
            "workflow": {
                "description": f"Answers a message to the agent {agent}.",
                "runsOn": {"agent": agent},
                "inputs": [{"name": name, "type": "string"} for name in _INPUTS],
                "nodes": [{"name": "answer", "agent": {"name": agent, "prompt": "{{ inputs.prompt }}"}}],
                "output": "{{ outputs.answer }}",
            },
            "inputs": given,
            "ttlSecondsAfterFinished": _TTL_SECONDS,
        },
    }


def _check(message: Message) -> None:
    if not message.id or len(message.id) > _MAX_ID or len(message.context) > _MAX_ID:
        raise InvalidObject(f"messageId and contextId have 1 to {_MAX_ID} characters", field="messageId")
    if not message.prompt.strip():
        raise InvalidObject("the message says nothing: give it a text", field="parts")
    size = len(message.prompt.encode())
    if size > MAX_PROMPT_BYTES:
        raise InvalidObject(f"the message has {size} bytes, at most {MAX_PROMPT_BYTES} are taken", field="parts")


def _of_record(run: Run) -> Conversation:
    return Conversation(
        name=run.name,
        uid=run.uid,
        namespace=run.namespace,
        **{key: str(run.inputs.get(key, "")) for key in _INPUTS},
        state=_state(run),
        at=run.finished_at or run.started_at or run.created_at,
        words=_words(run),
        output=run.output,
        cost=dollars(run.cost) if run.state.final and not run.unpriced_calls else None,
    )


def _state(run: Run) -> State:
    if run.state in _FINAL:
        return State(_FINAL[run.state])
    if run.parked and run.pending_approvals:
        return State.INPUT_REQUIRED
    return State.SUBMITTED if run.state is RunState.QUEUED and not run.attempt else State.WORKING


def _words(run: Run) -> str:
    match _state(run):
        case State.FAILED | State.CANCELED:
            return f"{run.reason}: {run.message}" if run.message else run.reason
        case State.INPUT_REQUIRED:
            return f"A person has to decide: fairlead approvals {run.name} --namespace {run.namespace}"
        case _:
            return ""


def show_skills(agent: Obj) -> list[Mapping[str, Any]]:
    """Return the skills of an Agent; one that names none can at least be asked."""
    spec = spec_of(agent)
    found: list[Mapping[str, Any]] = list(spec.get("skills") or ())
    return found or [{"name": "ask", "description": spec.get("description") or "Answers what it is asked."}]
