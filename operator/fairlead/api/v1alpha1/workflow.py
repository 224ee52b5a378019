"""Workflow: a versioned graph of nodes with inputs."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from fairlead.api.meta import (
    AGE,
    LIST_MAP_BY_NAME,
    LIST_SET,
    AnyJson,
    Budget,
    Column,
    Expression,
    HostName,
    InputName,
    JsonObject,
    KubeModel,
    Line,
    NodeName,
    ObjectMeta,
    ObjectName,
    Reason,
    Resource,
    Seconds,
    StatusBase,
    Text,
    ToolName,
    condition_column,
    rule,
    rules,
)

MAX_NODES: Final = 256
ACTIONS: Final = ("llm", "agent", "tool", "code", "workflow", "approval", "wait")
HANDLER_ACTIONS: Final = ("llm", "agent", "tool", "code", "workflow")
RESERVED_NAMES: Final = (
    *("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let"),
    *("loop", "namespace", "null", "package", "return", "true", "var", "void", "while"),
)
"""Words that CEL keeps for itself: `outputs.<word>` would not parse."""


def _one_of(fields: tuple[str, ...]) -> str:
    """Return CEL that is true when exactly one of *fields* is set."""
    return f"[{', '.join(f'has(self.{name})' for name in fields)}].filter(x, x).size() == 1"


class Input(KubeModel):
    """One input that a run is given."""

    name: InputName
    """The name: `inputs.<name>` in expressions."""
    type: Literal["string", "number", "integer", "boolean", "array", "object"] = "string"
    """The JSON type of its value."""
    required: bool = False
    """Whether a run must give it. An input that is neither given nor has a default is null."""
    default: AnyJson = None
    """The value of a run that does not give it."""
    enum: Annotated[tuple[AnyJson, ...] | None, Field(min_length=1, max_length=100)] = None
    """The only values that are allowed."""
    description: Line = ""
    """What it is for."""


class RunsOn(KubeModel):
    """Which pods take the runs."""

    agent: ObjectName
    """An Agent in this namespace: its warm pool of pods."""


class Concurrency(KubeModel):
    """How many runs of the workflow may be active at once."""

    limit: Annotated[int, Field(ge=1, le=10_000)]
    """The largest number of active runs."""
    policy: Literal["Queue", "Forbid", "Replace"] = "Queue"
    """What happens to a run over the limit: it waits, by priority, then age (Queue), it fails (Forbid), or the oldest
    active one is stopped (Replace)."""


class Memory(KubeModel):
    """What is remembered across runs."""

    scope: Literal["node", "agent", "workflow", "user"] = "workflow"
    """Who shares it."""
    recall: Annotated[int, Field(ge=0, le=100)] = 5
    """How many memories are recalled for a model call."""
    remember: bool = True
    """Whether what was learned is kept."""


class Llm(KubeModel):
    """Ask a model."""

    prompt: Annotated[Text, Field(min_length=1)]
    """What to ask. `{{ }}` holds CEL over `inputs`, `outputs`, `item`, `index` and `run`."""
    system: Text | None = None
    """What the model is told about its task before the prompt."""
    model: ObjectName | None = None
    """A Model in this namespace; absent: the workflow's `model`."""
    output: JsonObject | None = None
    """A JSON Schema. The answer is then parsed and checked, and the node's output is an object and not a text."""
    tools: Annotated[tuple[ToolName, ...] | None, Field(min_length=1, max_length=64, json_schema_extra=LIST_SET)] = None
    """Tools that the model may call."""
    max_turns: Annotated[int | None, Field(ge=1, le=100)] = None
    """The most turns of model and tools; 10 when absent."""
    parameters: JsonObject | None = None
    """Sampling parameters that are passed on to the provider: `temperature`, `max_tokens` …"""


class AgentTurn(KubeModel):
    """Hand a task to an Agent."""

    name: ObjectName
    """An Agent in this namespace."""
    prompt: Annotated[Text, Field(min_length=1)]
    """The task. `{{ }}` holds CEL."""
    output: JsonObject | None = None
    """A JSON Schema for the answer."""


class ToolCall(KubeModel):
    """Call a tool."""

    name: ToolName
    """A Tool in this namespace, or a built-in one: `sql`, `json_query`, `http_request`, `python`, `shell`."""
    arguments: JsonObject = Field(default_factory=dict)
    """What the tool is given. Every text in it may hold `{{ }}`."""


class Network(KubeModel):
    """What a sandbox may reach."""

    allow: Annotated[tuple[HostName, ...], Field(max_length=64, json_schema_extra=LIST_SET)] = ()
    """Host names, written out; by HTTP and HTTPS, and nothing else."""


class CodeLimits(KubeModel):
    """What a sandbox may use."""

    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """Wall-clock time of the program. The node's own `timeoutSeconds` holds for the whole try, in which it may have to
    wait for a free sandbox, too."""
    memory_mi_b: Annotated[int, Field(alias="memoryMiB", ge=16, le=65_536)] = 256
    """Memory, in MiB."""
    cpu_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """Processor time."""
    disk_mi_b: Annotated[int, Field(alias="diskMiB", ge=1, le=65_536)] = 64
    """Files that it writes, in MiB."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 32
    """Processes and threads at once."""


class Code(KubeModel):
    """Run a program in a sandbox: a throw-away one without network, host files and credentials.

    The node's output is `{output, stdout, stderr, files, notes}`. `files` are those that the program wrote below
    `out/`: name to text, or to `{base64: …}` where a file is no text; `notes` say what was cut or left out. An exit
    code other than 0 is the failure `CodeFailed`.
    """

    language: Literal["python", "shell"]
    """What runs it. Python has the standard library."""
    source: Annotated[Text, Field(min_length=1)]
    """The program, as it is: nothing is ever filled in, because what a model or a person wrote would become a program.
    It reads `inputs` and `files`."""
    inputs: JsonObject | None = None
    """Values that the program can read: in Python the global `inputs`, in a shell variables of the environment, as JSON
    where they are no texts. Every text in it may hold `{{ }}`. What Python assigns to the global `output` is the node's
    `output.output`."""
    files: Annotated[dict[str, Text] | None, Field(max_length=64)] = None
    """Files in the program's working directory: relative path to content, in which `{{ }}` is filled in. All together
    have at most 1 MiB."""
    network: Network | None = None
    """What it may reach; absent: nothing."""
    limits: CodeLimits | None = None
    """What it may use."""


class SubWorkflow(KubeModel):
    """Run another workflow inside this one."""

    name: ObjectName
    """A Workflow in this namespace."""
    inputs: JsonObject | None = None
    """Its inputs. Every text in it may hold `{{ }}`."""


class Approval(KubeModel):
    """Wait for a person's decision."""

    message: Annotated[Text, Field(min_length=1)]
    """What is to be decided."""
    timeout_seconds: Seconds = 86_400
    """How long to wait."""
    on_timeout: Literal["Reject", "Approve"] = "Reject"
    """What no answer means."""
    approvers: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] | None,
        Field(min_length=1, max_length=64, json_schema_extra=LIST_SET),
    ] = None
    """Users or groups that may decide, of those who may update runs; absent: all of them."""


class Wait(KubeModel):
    """Wait for a time. No pod is held meanwhile."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.seconds) != has(self.until)",
                "set exactly one of seconds and until",
                reason="FieldValueInvalid",
            )
        )
    )

    seconds: Annotated[int | None, Field(ge=0, le=31_536_000)] = None
    """How long."""
    until: Expression | None = None
    """CEL that gives the time to wait for, as a timestamp."""


class Repeat(KubeModel):
    """Go back to an earlier node until the result is good."""

    from_: Annotated[NodeName, Field(alias="from")]
    """Where to go back to: an ancestor, or the node itself."""
    until: Expression
    """CEL that is true when it is good."""
    max_iterations: Annotated[int, Field(ge=1, le=1000)] = 5
    """The most iterations."""
    on_exhausted: Literal["Fail", "Continue"] = "Fail"
    """What happens when it is not good by then."""


class Retry(KubeModel):
    """Try again when it fails."""

    limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How often to try again after the first failure."""
    backoff_seconds: Annotated[float, Field(ge=0, le=86_400)] = 1
    """The pause before the first retry."""
    factor: Annotated[float, Field(ge=1, le=100)] = 2
    """What each further pause is multiplied by."""
    max_backoff_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60
    """The longest pause."""
    on: Annotated[tuple[Reason, ...] | None, Field(min_length=1, max_length=32, json_schema_extra=LIST_SET)] = None
    """The reasons to try again for (`Timeout`, `RateLimited`, `OutputInvalid` …); absent: every one that may pass."""


class Cache(KubeModel):
    """Use the result of an earlier run with the same inputs."""

    ttl_seconds: Seconds = 86_400
    """How old it may be."""
    key: Expression | None = None
    """CEL that names the result; absent: everything that the node is given."""


class Actions(KubeModel):
    """What a node or handler does."""

    llm: Llm | None = None
    """Ask a model."""
    agent: AgentTurn | None = None
    """Hand a task to an Agent."""
    tool: ToolCall | None = None
    """Call a tool."""
    code: Code | None = None
    """Run code in a sandbox."""
    workflow: SubWorkflow | None = None
    """Run another workflow inside this one."""
    retry: Retry | None = None
    """Try again when it fails; absent: it fails at once."""
    timeout_seconds: Seconds | None = None
    """The longest that one try may take."""


class Handler(Actions):
    """What is done once at the end of a run, also beyond its deadline and when it was stopped.

    It may use `run.state`, `run.reason` and `run.message`; outputs of nodes that did not finish are null. A try takes
    at most 60 s unless `timeoutSeconds` says otherwise.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(_one_of(HANDLER_ACTIONS), f"set exactly one of {', '.join(HANDLER_ACTIONS)}"),
        )
    )


_NODE_RULES = rules(
    rule(
        _one_of(ACTIONS),
        f"a node has exactly one action: set one of {', '.join(ACTIONS)}",
        expression=f"'node \"' + self.name + '\" must have exactly one action: set one of {', '.join(ACTIONS)}'",
    ),
    rule(
        "!has(self.needs) || !(self.name in self.needs)",
        "a node cannot need itself: remove its own name from needs",
        expression="'node \"' + self.name + '\" cannot need itself: remove it from needs'",
        field=".needs",
    ),
    rule(
        "!(has(self.forEach) && has(self.repeat))",
        "forEach and repeat cannot be together: put one of them on a node of its own",
        expression=(
            "'node \"' + self.name + '\" has forEach and repeat: remove one of them, or put it on a node of its own'"
        ),
    ),
    rule(
        "!has(self.maxParallel) || has(self.forEach)",
        "maxParallel is for forEach: set forEach or remove maxParallel",
        expression="'node \"' + self.name + '\" has maxParallel without forEach: set forEach or remove maxParallel'",
        field=".maxParallel",
    ),
    rule(
        f"!(self.name in [{', '.join(repr(name) for name in RESERVED_NAMES)}])",
        "the name is a word that CEL keeps for itself, so outputs.<name> would not parse: choose another one",
        expression="'\"' + self.name + '\" is a word that CEL keeps for itself: choose another name for the node'",
        field=".name",
    ),
)


class Node(Actions):
    """One step of the graph: exactly one action, and when and how often it is done."""

    model_config = ConfigDict(json_schema_extra=_NODE_RULES)

    name: NodeName
    """The name: `outputs.<name>` in expressions. Lower-case letters, digits and underscores."""
    needs: Annotated[tuple[NodeName, ...] | None, Field(max_length=MAX_NODES - 1, json_schema_extra=LIST_SET)] = None
    """The nodes that must be finished first. It starts when they are and at least one of them ran."""
    when: Expression | None = None
    """CEL; the node is skipped when it is false."""
    for_each: Expression | None = None
    """CEL that gives a list or a map: the action is done for each entry (`item`, `index`), and the output is the list
    or map of results. At most 10,000 entries."""
    max_parallel: Annotated[int | None, Field(ge=1, le=1000)] = None
    """How many entries of `forEach` are worked on at once; 8 when absent."""
    repeat: Repeat | None = None
    """Go back to an earlier node until the result is good."""
    approval: Approval | None = None
    """Wait for a person's decision."""
    wait: Wait | None = None
    """Wait for a time."""
    on_error: Literal["Fail", "Continue"] | None = None
    """What a failure means: the run fails (Fail, when absent), or it goes on and the output is the error with `reason`
    and `message` (Continue). With `forEach` it holds for each entry."""
    cache: Cache | None = None
    """Use the result of an earlier run with the same inputs."""
    memory: Memory | None = None
    """What the node remembers across runs."""


class WorkflowSpec(KubeModel):
    """What the workflow does."""

    description: Line = ""
    """What it is for, in a sentence."""
    start_policy: Literal["Manual", "OnApply"] = "Manual"
    """When runs start by themselves: never (Manual), or one for each generation of the object (OnApply)."""
    inputs: Annotated[tuple[Input, ...], Field(max_length=64, json_schema_extra=LIST_MAP_BY_NAME)] = ()
    """What a run is given."""
    model: ObjectName | None = None
    """The Model in this namespace that `llm` nodes ask unless they name another."""
    runs_on: RunsOn | None = None
    """Which pods take the runs; absent: each run gets a pod of its own."""
    concurrency: Concurrency | None = None
    """How many runs may be active at once; absent: no limit."""
    budget: Budget | None = None
    """What its runs may spend."""
    timeout_seconds: Seconds | None = None
    """The longest that a run may take; absent: no limit."""
    pending_timeout_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long a run waits for something that it refers to and that does not exist yet."""
    memory: Memory | None = None
    """What the workflow remembers across runs."""
    nodes: Annotated[tuple[Node, ...], Field(min_length=1, max_length=MAX_NODES, json_schema_extra=LIST_MAP_BY_NAME)]
    """The graph. A node starts as soon as everything in its `needs` is finished."""
    output: AnyJson = None
    """What the run gives: any value, every text in it may hold `{{ }}`. Absent: the outputs of the nodes that nothing
    else needs."""
    on_failure: Handler | None = None
    """What is done when the run failed, before `finally`."""
    finally_: Annotated[Handler | None, Field(alias="finally")] = None
    """What is done at the end of every run, also of one that was stopped. A run that went well fails if this does."""
    ttl_seconds_after_finished: Annotated[int | None, Field(ge=0, le=31_536_000)] = None
    """When finished runs are deleted; absent: the history limits decide. Their history in storage stays."""
    successful_runs_history_limit: Annotated[int, Field(ge=0, le=1000)] = 10
    """How many succeeded runs that were made for the workflow are kept as objects."""
    failed_runs_history_limit: Annotated[int, Field(ge=0, le=1000)] = 10
    """How many other finished runs that were made for the workflow are kept as objects."""


class WorkflowStatus(StatusBase):
    """What the operator found."""

    revision: Annotated[str, Field(max_length=64)] = ""
    """The digest of the workflow together with the Workflows, Agents, Models and Tools that it uses."""
    nodes: int | None = None
    """How many nodes it has."""
    last_started_generation: int | None = None
    """The generation for which `startPolicy: OnApply` has started a run."""
    last_run: Annotated[str, Field(max_length=253)] = ""
    """The run that `startPolicy: OnApply` started last."""


class Workflow(KubeModel):
    """A versioned graph of nodes with inputs. Apply it, then make a WorkflowRun for each execution."""

    api_version: str = ""
    kind: Literal["Workflow"] = "Workflow"
    metadata: ObjectMeta = ObjectMeta()
    spec: WorkflowSpec
    """What the workflow does."""
    status: WorkflowStatus = WorkflowStatus()
    """What the operator found."""


RESOURCE: Final = Resource(
    kind="Workflow",
    plural="workflows",
    short_names=("flow",),
    model=Workflow,
    columns=(
        condition_column("Ready", "Ready", "status", "Whether runs can start."),
        Column("Nodes", ".status.nodes", "How many nodes it has.", type="integer"),
        Column("Model", ".spec.model", "The Model that it asks."),
        Column("Last Run", ".status.lastRun", "The run that startPolicy OnApply started last."),
        AGE,
        condition_column("Reason", "Ready", "reason", "Why it is ready or not.", wide=True),
        condition_column("Message", "Ready", "message", "What to do next.", wide=True),
    ),
)
