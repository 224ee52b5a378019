"""WorkflowRun: one execution of a workflow."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from fairlead.api.meta import (
    AGE,
    Column,
    JsonObject,
    KubeModel,
    Line,
    ObjectMeta,
    ObjectName,
    Resource,
    RunBudget,
    StatusBase,
    Text,
    Usage,
    condition_column,
    rule,
    rules,
)
from fairlead.api.v1alpha1.workflow import WorkflowSpec

NodePath = Annotated[str, Field(max_length=128)]
"""A node within its run: `name`, or `outer/name` inside the sub-workflow of the node `outer`."""

MUTABLE: Final = frozenset({"suspend", "stop"})
"""The only fields of a run's spec that may change."""


class WorkflowRef(KubeModel):
    """The workflow to run."""

    name: ObjectName
    """A Workflow in this namespace."""
    revision: Annotated[str | None, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")] = None
    """Run only this revision (`status.revision` of the Workflow); absent: what is there when the run starts."""


class RerunOf(KubeModel):
    """An earlier run whose results are used again."""

    name: ObjectName
    """The earlier run."""
    uid: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    """Its uid, where the name was used more than once."""
    from_: Annotated[
        str, Field(alias="from", min_length=1, max_length=63, pattern=r"^(Failed|Start|[a-z][a-z0-9_]{0,62})$")
    ] = "Failed"
    """Where to begin: what failed (`Failed`), the start (`Start`), or a node."""


class ReplyTo(KubeModel):
    """Where the result is sent."""

    trigger: ObjectName
    """The Trigger whose channel carries it."""
    conversation: Annotated[str, Field(min_length=1, max_length=256)]
    """The conversation in that channel."""


def _unchanged(name: str) -> dict[str, str]:
    same = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"
    fix = f"{name} cannot change once the run exists (only suspend and stop can): make a new run instead"
    return rule(same, fix, reason="FieldValueForbidden")


_FIXED = (
    *("workflowRef", "workflow", "inputs", "priority", "dryRun", "rerunOf"),
    *("budget", "ttlSecondsAfterFinished", "replyTo"),
)
_RUN_RULES = rules(
    rule(
        "has(self.rerunOf) || has(self.workflowRef) != has(self.workflow)",
        "set exactly one of workflowRef (the name of a Workflow) and workflow (written here)",
        reason="FieldValueRequired",
    ),
    rule(
        "!(has(self.workflowRef) && has(self.workflow))",
        "workflowRef and workflow are both set: remove one of them",
        reason="FieldValueForbidden",
    ),
    rule("!oldSelf.stop || self.stop", "stop cannot be taken back: make a new run instead", field=".stop"),
    *(_unchanged(name) for name in _FIXED),
)


class WorkflowRunSpec(KubeModel):
    """What to run. Only `suspend` and `stop` may change afterwards."""

    model_config = ConfigDict(json_schema_extra=_RUN_RULES)

    workflow_ref: WorkflowRef | None = None
    """The workflow to run."""
    workflow: WorkflowSpec | None = None
    """A workflow written here, for a run without a Workflow object."""
    inputs: JsonObject = Field(default_factory=dict)
    """The values of the workflow's inputs, by name."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Runs with a higher number are taken first."""
    budget: RunBudget | None = None
    """What this run may spend, besides what the workflow, its Agents and Models allow."""
    suspend: bool = False
    """Pause after what is running now; false: go on."""
    stop: bool = False
    """Cancel the run. Cannot be taken back."""
    dry_run: bool = False
    """Check and plan only: nothing is called, and the plan is the output."""
    rerun_of: RerunOf | None = None
    """Use the results of an earlier run for everything whose inputs and definition are the same. Inputs that are not
    given are those of the earlier run; without `workflowRef` and `workflow` it is of the earlier run's workflow."""
    ttl_seconds_after_finished: Annotated[int | None, Field(ge=0, le=31_536_000)] = None
    """When the finished run is deleted; absent: the workflow's value. Its history in storage stays."""
    reply_to: ReplyTo | None = None
    """Where the result is sent."""


class Cost(KubeModel):
    """What the run cost so far."""

    total: Annotated[str, Field(max_length=32)] = "0"
    """A decimal, or `n/a` when the price of a call is not known."""
    currency: Annotated[str, Field(max_length=8)] = "USD"
    """The currency."""


class WorkflowRunStatus(StatusBase):
    """A summary. Everything else is in storage: `fairlead logs`, `fairlead trace`, `fairlead output`."""

    workflow: Annotated[str, Field(max_length=253)] = ""
    """The Workflow that it runs, also where `rerunOf` alone says which; empty: one that is written into the run."""
    revision: Annotated[str, Field(max_length=64)] = ""
    """The digest of everything that was frozen for the run."""
    given_digest: Annotated[str, Field(max_length=64)] = ""
    """Of a run that waited: the digest of `inputs` and `workflow` as they were when it was first seen. If they change
    while it waits, it is ended: the API server's own rules miss some changes in fields without a schema."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """How often a pod has taken the run."""
    agent: Annotated[str, Field(max_length=253)] = ""
    """The Agent whose pool the run is for; empty: a pod of its own."""
    agent_pod: Annotated[str, Field(max_length=253)] = ""
    """The pod that has the run, or had it last."""
    trigger: Annotated[str, Field(max_length=253)] = ""
    """What made the run."""
    progress: Annotated[str, Field(max_length=32)] = ""
    """Finished nodes of all nodes: `4/7`."""
    current_nodes: Annotated[tuple[NodePath, ...], Field(max_length=10)] = ()
    """Nodes that run now, at most ten."""
    reused: Annotated[int | None, Field(ge=0)] = None
    """How many nodes took the result of the run that `rerunOf` names."""
    pending_approvals: Annotated[int | None, Field(ge=0)] = None
    """Questions that nobody has answered: `fairlead approvals` shows them."""
    usage: Usage | None = None
    """Tokens so far."""
    cost: Cost | None = None
    """Cost so far."""
    budget: RunBudget | None = None
    """The most that the run may spend, by its own and its workflow's `budget`."""
    result: Annotated[Text, Field(max_length=1024)] = ""
    """The beginning of the output; all of it with `fairlead output`."""
    start_time: datetime | None = None
    """When the run was accepted."""
    completion_time: datetime | None = None
    """When it ended."""
    duration: Annotated[str, Field(max_length=32)] = ""
    """How long it took, once it has ended."""
    dashboard_url: Annotated[Line, Field(alias="dashboardURL")] = ""
    """The run's page."""


class WorkflowRun(KubeModel):
    """One execution of a workflow. Wait for it with `kubectl wait --for=condition=Finished`."""

    api_version: str = ""
    kind: Literal["WorkflowRun"] = "WorkflowRun"
    metadata: ObjectMeta = ObjectMeta()
    spec: WorkflowRunSpec
    """What to run. Only `suspend` and `stop` may change afterwards."""
    status: WorkflowRunStatus = WorkflowRunStatus()
    """A summary of the execution."""


RESOURCE: Final = Resource(
    kind="WorkflowRun",
    plural="workflowruns",
    short_names=("run",),
    model=WorkflowRun,
    columns=(
        Column("Workflow", ".status.workflow", "The workflow that it runs."),
        condition_column("Status", "Succeeded", "reason", "How it stands: the reason of the condition Succeeded."),
        Column("Progress", ".status.progress", "Finished nodes of all nodes."),
        Column("Cost", ".status.cost.total", "US dollars so far; n/a when a price is not known."),
        Column("Duration", ".status.duration", "How long it took."),
        AGE,
        Column("Agent", ".status.agentPod", "The pod that has it, or had it last.", wide=True),
        Column("Trigger", ".status.trigger", "What made it.", wide=True),
        condition_column("Message", "Succeeded", "message", "What happened and what to do next.", wide=True),
    ),
)
