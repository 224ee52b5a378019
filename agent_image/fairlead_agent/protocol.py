"""The wire contract between an agent pod and the gateway, version 1.

Both sides import these models, so a message is checked where it is made and where it is read. All paths are below
``/v1``. `register` presents the pod's projected service account token as ``Authorization: Bearer``; everything after it
presents the session that `register` answered with. Times are RFC 3339 in UTC, durations are seconds.

| call | request → answer | refused with |
|---|---|---|
| ``POST /register`` | `Register` → `Session` | 401 not a live pod's token, 403 no agent pod, 426 `PROTOCOL` unknown |
| ``POST /heartbeat`` | `Heartbeat` → `HeartbeatReply` | 401 session is over: register again |
| ``POST /claim`` | `Claim` → `Claimed` (held up to `Claim.wait_seconds`) | 401 |
| ``POST /tasks/{id}/journal`` | `Append` → `Appended` | 409 fenced: drop the task, write nothing more |
| ``POST /tasks/{id}/calls`` | `Call` → `CallReply` | 409 fenced, or the key was used with another digest |
| ``POST /tasks/{id}/logs`` | `Logs` → 204 | 409 fenced |
| ``POST /tasks/{id}/release`` | `Release` → 204 | 409 fenced |

A refusal's body is `Problem`. 503 with ``Retry-After`` means: try the same request again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

PROTOCOL = 1
"""The version of this contract. A gateway speaks one version and says so in a 426."""

Count = Annotated[int, Field(ge=0, lt=1 << 31)]
"""What databases keep as an integer."""
NodeName = Annotated[str, Field(max_length=256)]
ItemName = Annotated[str, Field(max_length=4096)]
MAX_ENTRIES = 10_000
"""Of one append; a larger batch would hold everybody else up."""
MAX_LINES = 2_000
MAX_MESSAGES = 1_000
MAX_TASKS = 1_000


class Wire(BaseModel):
    """A message: camelCase on the wire, unknown fields ignored, so that either side may be the newer one."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Problem(Wire):
    """Why a request was refused."""

    reason: str
    """A PascalCase word: ``Fenced``, ``SessionExpired``, ``UnknownProtocol``, ``NonDeterministic``, ``TooLarge`` …"""
    message: str


class Register(Wire):
    """An agent pod says what it is."""

    protocol: Count = PROTOCOL
    version: str
    """The version of `fairlead_agent` in the pod."""
    capabilities: Annotated[tuple[str, ...], Field(max_length=MAX_TASKS)] = ()
    """The node actions that it can run: ``llm``, ``tool`` …"""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 1


class Session(Wire):
    """What `register` answers."""

    session: str
    """The bearer token of everything that follows. Secret; valid until the lease is lost or the pod registers again."""
    pod: str
    pool: str
    heartbeat_seconds: float
    lease_duration_seconds: float
    once: bool = False
    """The pod exists for one run: exit 0 when its task is finished."""


class Heartbeat(Wire):
    """Sent every `Session.heartbeat_seconds`, by a thread that does nothing else."""

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_TASKS)] = ()


class HeartbeatReply(Wire):
    """What the pod should do about its tasks."""

    cancel: tuple[str, ...] = ()
    """Tasks to end with `State.CANCELLED`: the run was stopped or deleted."""
    lost: tuple[str, ...] = ()
    """Tasks that are no longer this pod's: drop them without another word."""
    drain: bool = False
    """Claim nothing more, finish what runs."""


class Claim(Wire):
    """Ask for work; only as much as there is room for."""

    limit: Annotated[int, Field(ge=1, le=100)] = 1
    wait_seconds: Annotated[float, Field(ge=0, le=30)] = 20


class RunInfo(Wire):
    """The `run` variable of expressions, too."""

    uid: str
    namespace: str
    name: str
    workflow: str


class State(StrEnum):
    """How a node, an item of a ``forEach`` or a run ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"


class ErrorInfo(Wire):
    """Why something failed, for a person and for `retry.on`."""

    reason: str
    """``ExpressionError``, ``Timeout``, ``ToolFailed``, ``ModelFailed``, ``RateLimited``, ``OutputInvalid`` …"""
    message: str
    retryable: bool = True
    """False where the same request must fail again (a bad argument, a refused address)."""
    retry_after_seconds: float | None = None


class Kind(StrEnum):
    """What a journal entry records."""

    NODE_STARTED = "NodeStarted"
    ITEM_STARTED = "ItemStarted"
    TRY_FAILED = "TryFailed"
    """A try of a node or item failed and `retry` grants another: `try_number` is the failed one, `retry_at` its end."""
    ITEM_FINISHED = "ItemFinished"
    NODE_FINISHED = "NodeFinished"
    RUN_FINISHED = "RunFinished"


class Entry(Wire):
    """One line of the journal. The journal is the checkpoint: what it says was done is never done again."""

    kind: Kind
    at: AwareDatetime
    """The agent's clock; for display, never for decisions."""
    node: NodeName = ""
    item: ItemName | None = None
    """Which item of a ``forEach``: the index in decimal, or the key of a map. None: the node itself."""
    iteration: Count = 1
    try_number: Count = 1
    state: State | None = None
    """Set on the *Finished kinds."""
    output: Any = None
    error: ErrorInfo | None = None
    reason: str = ""
    """Why it is Skipped or Cancelled, or how the run ended (``WhenFalse``, ``UpstreamFailed``, ``NodeFailed`` …)."""
    retry_at: AwareDatetime | None = None


class Task(Wire):
    """A run to execute, with everything that is known of it. A later attempt gets the whole journal so far."""

    id: str
    attempt: int
    run: RunInfo
    spec: dict[str, Any]
    """The frozen ``Workflow.spec``, as on the wire."""
    inputs: dict[str, Any]
    """Checked against ``spec.inputs``, defaults filled in."""
    remaining_seconds: float | None = None
    """What is left of the run's ``timeoutSeconds``."""
    journal: tuple[Entry, ...] = ()


class Claimed(Wire):
    """The tasks that are now this pod's."""

    tasks: tuple[Task, ...] = ()


class Progress(Wire):
    """A summary for `status`; the agent knows it best."""

    done: Count
    total: Count
    current: Annotated[tuple[NodeName, ...], Field(max_length=MAX_TASKS)] = ()
    """At most ten names of nodes that run now."""


class Append(Wire):
    """Add entries to the journal. Sending the same again is harmless: what is there already is skipped.

    An append that holds `Kind.RUN_FINISHED` also holds the final state of every node, and ends the task.
    """

    attempt: Count
    first: Count
    """The sequence number of the first entry: the length of the journal before it."""
    entries: Annotated[tuple[Entry, ...], Field(max_length=MAX_ENTRIES)]
    progress: Progress | None = None


class Appended(Wire):
    """The entries are committed."""

    length: int
    """The length of the journal now."""


class Call(Wire):
    """A call to the world outside, made by the gateway: committed before it is sent and before it is answered.

    *key* is ``node/item/iteration/try/sequence`` (`call_key`), the same in every attempt, so that a call whose answer
    was committed is answered from the record. *digest* covers the request: the same key with another digest is refused.
    """

    attempt: Count
    key: Annotated[str, Field(max_length=16_384)]
    digest: Annotated[str, Field(max_length=256)]
    action: Literal["llm", "tool"]
    node: NodeName
    item: ItemName | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600
    llm: LlmRequest | None = None
    tool: ToolRequest | None = None


class Message(Wire):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class LlmRequest(Wire):
    """Ask a Model of the run's frozen revision, by its name."""

    model: str
    messages: Annotated[tuple[Message, ...], Field(max_length=MAX_MESSAGES)]
    output: dict[str, Any] | None = None
    """A JSON Schema: ask the provider for an answer of this shape."""
    parameters: dict[str, Any] = {}


class ToolRequest(Wire):
    """Use a built-in tool or a `Tool` object, by its name."""

    name: str
    arguments: dict[str, Any] = {}


class Usage(Wire):
    """Tokens, as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0


class CallReply(Wire):
    """The committed answer, or the committed failure."""

    result: Any = None
    """``llm``: the text of the answer; ``tool``: what the tool gave."""
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    cost: str | None = None
    """US dollars as a decimal; None where the price is unknown."""
    scripted: bool = False
    replayed: bool = False
    """Answered from the record of an earlier attempt: nothing was sent, nothing was paid."""


class LogLine(Wire):
    """One line of a run's log."""

    at: AwareDatetime
    level: Literal["debug", "info", "warning", "error"] = "info"
    node: NodeName = ""
    text: str


class Logs(Wire):
    """Lines for the run's log, kept in storage and there when the pod is gone."""

    attempt: Count
    lines: Annotated[tuple[LogLine, ...], Field(max_length=MAX_LINES)]


class Release(Wire):
    """Give a task back. It goes on elsewhere, from its journal; giving back is no failed attempt."""

    attempt: Count
    reason: str = "Draining"


def call_key(node: str, item: str | None, iteration: int, try_number: int, sequence: int) -> str:
    """Return the deterministic name of a call within its task. *item* is escaped so that it cannot forge a key."""
    safe = "-" if item is None else "=" + item.replace("%", "%25").replace("/", "%2F")
    return f"{node}/{safe}/{iteration}/{try_number}/{sequence}"


Call.model_rebuild()
