"""What a pod is given to do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fairlead_agent.protocol.base import Count, ItemName, NodePath, Wire
from fairlead_agent.protocol.journal import Entry
from fairlead_agent.protocol.waiting import Signal


class RunInfo(Wire):
    """The `run` variable of expressions, too."""

    uid: str
    namespace: str
    name: str
    workflow: str


class ToolInfo(Wire):
    """A tool as a model is told of it, and what the engine has to know before it is used."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """A JSON Schema of the arguments."""
    require_approval: bool = False
    approvers: tuple[str, ...] = ()


class TurnInfo(Wire):
    """What an agent is asked to do in one turn."""

    agent: str
    prompt: str
    output: dict[str, Any] | None = None
    """A JSON Schema for the answer."""
    instructions: str = ""
    model: str = ""
    tools: tuple[str, ...] = ()
    graph: str = ""
    """``module:attribute`` of the agent's own graph; empty: the built-in loop."""
    node: NodePath = ""
    """The node that asked, in the run; calls carry it."""
    item: ItemName | None = None
    iteration: Count = 1
    max_turns: Count = 10
    max_tool_calls: Count = 50
    max_tokens: int | None = None
    """Input and output together; None: no limit but the budgets."""


class Rerun(Wire):
    """The earlier run whose results are used again where the digest is the same."""

    uid: str
    from_: Annotated[str, Field(alias="from")] = "Failed"
    """``Failed``: reuse all that succeeded; ``Start``: nothing; a node: all but it and what depends on it."""
    entries: tuple[Entry, ...] = ()
    """Its NodeFinished and ItemFinished entries that succeeded and have a digest."""


class Task(Wire):
    """A run or an agent's turn to execute, with everything that is known of it, the whole journal so far included."""

    id: str
    attempt: int
    kind: Literal["run", "turn"] = "run"
    run: RunInfo
    spec: dict[str, Any]
    """The frozen ``Workflow.spec``, as on the wire."""
    inputs: dict[str, Any]
    """Checked against ``spec.inputs``, defaults filled in."""
    remaining_seconds: float | None = None
    """What is left of the run's ``timeoutSeconds``, or of the turn's time."""
    journal: tuple[Entry, ...] = ()
    workflows: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The frozen specs of the workflows that ``workflow`` nodes run, by name, those of nested ones included."""
    tools: dict[str, ToolInfo] = Field(default_factory=dict)
    """Everything that ``tool`` nodes, ``llm.tools`` and the turn's agent name."""
    definitions: dict[str, str] = Field(default_factory=dict)
    """Digests of the frozen specs that nodes use, as ``model:<name>``, ``agent:<name>``, ``tool:<name>``: part of a
    node's own digest."""
    external: tuple[str, ...] = ()
    """Names of agents that someone else runs: they are asked by a call, not by a turn."""
    signals: tuple[Signal, ...] = ()
    """What has come so far."""
    suspended: bool = False
    cancel: bool = False
    """The run was stopped while nobody held it: end it, with its ``finally``."""
    rerun: Rerun | None = None
    turn: TurnInfo | None = None
    """Set when `kind` is ``turn``; `spec` is then empty."""


class Claimed(Wire):
    """The tasks that are now this pod's."""

    tasks: tuple[Task, ...] = ()


class Release(Wire):
    """Give a task back. It goes on elsewhere, from its journal; giving back is no failed attempt."""

    attempt: Count
    reason: str = "Draining"
