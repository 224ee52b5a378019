"""Agent: a persona and the pool of pods that plays it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from fairlead.api.meta import (
    AGE,
    LIST_MAP_BY_NAME,
    LIST_SET,
    Budget,
    Column,
    KubeModel,
    Line,
    Money,
    ObjectMeta,
    ObjectName,
    Quantity,
    Resource,
    Seconds,
    SecretValue,
    StatusBase,
    Text,
    ToolName,
    Url,
    condition_column,
    rule,
    rules,
)
from fairlead.api.v1alpha1.workflow import Memory

_LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
LabelValue = Annotated[str, Field(max_length=63, pattern=_LABEL_VALUE)]


class Skill(KubeModel):
    """Something that the agent can do, as other agents are told (A2A)."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$")]
    """A short name."""
    description: Annotated[str, Field(min_length=1, max_length=1024)]
    """What it does, in a sentence."""
    examples: Annotated[tuple[Line, ...], Field(max_length=16)] = ()
    """Requests that it answers."""


class Scale(KubeModel):
    """How many pods the pool has. With a `max` above `min`, their number follows the work."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.max) || self.min <= self.max",
                "scale.min must not be larger than scale.max: lower min or raise max",
                field=".min",
            )
        )
    )

    min: Annotated[int, Field(ge=0, le=1000)] = 1
    """Pods that are always there. 0: none while there is nothing to do; the first task starts one."""
    max: Annotated[int | None, Field(ge=1, le=1000)] = None
    """The most pods; absent: as many as `min`."""
    target_queue: Annotated[int | None, Field(ge=1, le=100_000)] = None
    """Tasks per pod, queued or at work, above which another pod is started; absent: `concurrency`, so that nothing
    waits while there may be more pods."""


class Resources(KubeModel):
    """What one pod asks for and may use, as in a container of Kubernetes."""

    requests: Annotated[dict[str, Quantity] | None, Field(max_length=16)] = None
    """What is reserved for it; for what is not given: `cpu: 100m`, `memory: 128Mi`, `ephemeral-storage: 64Mi`."""
    limits: Annotated[dict[str, Quantity] | None, Field(max_length=16)] = None
    """What it may use at most; for what is not given: `cpu: 1`, `memory: 512Mi`, `ephemeral-storage: 256Mi`, or the
    request where that is more."""


class EnvVar(KubeModel):
    """An environment variable. Never a secret: agents hold none."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Its name. `FAIRLEAD_…` is reserved."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value."""


class Toleration(KubeModel):
    """A taint of nodes that the pod tolerates."""

    key: Annotated[str | None, Field(max_length=317)] = None
    """The taint's key; absent with `Exists`: every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: LabelValue | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The effect to tolerate; absent: all."""
    toleration_seconds: Annotated[int | None, Field(ge=0, le=86_400)] = None
    """How long a NoExecute taint is tolerated."""


class PodOptions(KubeModel):
    """The part of a pod that can be chosen. The rest is fixed so that every agent pod is restricted."""

    image: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """The image; absent: the operator's setting."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is pulled; absent: the operator's setting."""
    image_pull_secrets: Annotated[tuple[ObjectName, ...] | None, Field(max_length=16, json_schema_extra=LIST_SET)] = (
        None
    )
    """Names of Secrets to pull the image with."""
    env: Annotated[tuple[EnvVar, ...] | None, Field(max_length=64, json_schema_extra=LIST_MAP_BY_NAME)] = None
    """Further environment variables."""
    labels: Annotated[dict[str, LabelValue] | None, Field(max_length=32)] = None
    """Further labels."""
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]] | None, Field(max_length=32)] = None
    """Further annotations."""
    node_selector: Annotated[dict[str, LabelValue] | None, Field(max_length=32)] = None
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...] | None, Field(max_length=32)] = None
    """Taints that are tolerated."""
    priority_class_name: ObjectName | None = None
    """The PriorityClass."""
    runtime_class_name: ObjectName | None = None
    """The RuntimeClass."""
    service_account_name: ObjectName | None = None
    """The service account; absent: `default`. It needs no permission."""


class External(KubeModel):
    """An agent that someone else runs (A2A)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.caCertificate) || self.url.startsWith('https://')",
                "caCertificate needs an https url: correct url, or remove caCertificate",
                field=".caCertificate",
            )
        )
    )

    url: Url
    """Its address: the agent card is at `<url>/.well-known/agent-card.json`."""
    token: SecretValue | None = None
    """A bearer token for it, in a Secret of this namespace. It is sent to the origin of `url` and nowhere else."""
    ca_certificate: Annotated[
        str | None, Field(min_length=1, max_length=16_384, pattern=r"^-----BEGIN CERTIFICATE-----\r?\n")
    ] = None
    """The authority (PEM) that signed its certificate, where it is no public one. Not a secret."""
    cost_per_call_usd: Annotated[Money | None, Field(alias="costPerCallUSD")] = None
    """What one call costs, in US dollars; absent: what its answers say, if they do."""


class AgentSpec(KubeModel):
    """The persona and its pool."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!(has(self.external) && has(self.graph))",
                "external and graph cannot be together: an external agent runs elsewhere; remove one of them",
                reason="FieldValueForbidden",
            ),
            rule(
                "!has(self.external) || !has(self.pod)",
                "an external agent has no pods here: remove pod",
                field=".pod",
                reason="FieldValueForbidden",
            ),
            rule(
                "!has(self.external) || !has(self.scale) || "
                "(self.scale.min == 1 && !has(self.scale.max) && !has(self.scale.targetQueue))",
                "an external agent has no pods here: remove scale",
                field=".scale",
                reason="FieldValueForbidden",
            ),
            rule(
                "!has(self.external) || !(has(self.model) || has(self.tools) || has(self.skills) || "
                "has(self.memory) || has(self.resources) || (has(self.instructions) && self.instructions != ''))",
                "an external agent thinks elsewhere: remove model, instructions, tools, skills, memory and resources",
                reason="FieldValueForbidden",
            ),
        )
    )

    description: Line = ""
    """What the agent is for, in a sentence."""
    model: ObjectName | None = None
    """The Model that it thinks with."""
    instructions: Text = ""
    """Who it is and how it works: its system prompt."""
    tools: Annotated[tuple[ToolName, ...] | None, Field(max_length=64, json_schema_extra=LIST_SET)] = None
    """Tools that it may call: Tools in this namespace, or built-in ones."""
    max_turns: Annotated[int, Field(ge=1, le=1000)] = 10
    """How often its model may be asked in one turn of the agent."""
    max_tool_calls: Annotated[int, Field(ge=0, le=10_000)] = 50
    """How many tools it may call in one turn of the agent."""
    max_tokens: Annotated[int | None, Field(ge=1, le=1_000_000_000_000)] = None
    """Input and output tokens together that one turn may use; absent: what the budgets leave."""
    turn_timeout_seconds: Seconds | None = None
    """The longest that one turn may take, the wait for a pod included; absent: what the node and the run leave."""
    budget: Budget | None = None
    """What may be spent by this agent."""
    memory: Memory | None = None
    """What it remembers."""
    skills: Annotated[tuple[Skill, ...] | None, Field(max_length=64, json_schema_extra=LIST_MAP_BY_NAME)] = None
    """What it can do, as other agents are told (A2A)."""
    scale: Scale = Scale()
    """How many pods the pool has."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many tasks one pod works on at once."""
    lease_duration_seconds: Annotated[int, Field(ge=3, le=300)] = 15
    """How long a pod may be silent before its work goes on elsewhere."""
    drain_seconds: Annotated[int, Field(ge=0, le=3600)] = 30
    """How long a pod that is told to stop may finish its tasks before it hands them back."""
    resources: Resources | None = None
    """What one pod asks for and may use; absent: small defaults."""
    pod: PodOptions | None = None
    """Further choices for the pods."""
    graph: Annotated[
        str | None,
        Field(min_length=3, max_length=512, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"),
    ] = None
    """A LangGraph graph of your own in the image: `module:attribute`."""
    external: External | None = None
    """An agent that someone else runs (A2A)."""


class AgentStatus(StatusBase):
    """What the operator found."""

    pods: Annotated[str, Field(max_length=32)] = ""
    """Ready pods of all: `1/1`."""
    ready: int | None = None
    """Pods that are registered and whose lease is alive."""
    total: int | None = None
    """Pods that the pool should have."""
    queue: int | None = None
    """Tasks that wait for a pod."""


class Agent(KubeModel):
    """A persona and the pool of pods that plays it."""

    api_version: str = ""
    kind: Literal["Agent"] = "Agent"
    metadata: ObjectMeta = ObjectMeta()
    spec: AgentSpec = AgentSpec()
    """The persona and its pool."""
    status: AgentStatus = AgentStatus()
    """What the operator found."""


RESOURCE: Final = Resource(
    kind="Agent",
    plural="agents",
    short_names=("fagent",),
    model=Agent,
    columns=(
        condition_column("Ready", "Ready", "status", "Whether the pool can take work."),
        Column("Pods", ".status.pods", "Ready pods of all."),
        Column("Queue", ".status.queue", "Tasks that wait for a pod.", type="integer"),
        Column("Model", ".spec.model", "The Model that it thinks with."),
        AGE,
        condition_column("Reason", "Ready", "reason", "Why it is ready or not.", wide=True),
        condition_column("Message", "Ready", "message", "What to do next.", wide=True),
    ),
)
