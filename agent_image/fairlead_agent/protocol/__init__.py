"""The wire contract between an agent pod and the gateway, version 2.

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
| ``POST /tasks/{id}/signals`` | `AwaitSignals` → `Signals` (held up to its ``wait_seconds``) | 409 fenced |
| ``POST /tasks/{id}/park`` | `Park` → `Parked` | 409 fenced |
| ``POST /tasks/{id}/approvals`` | `AskApproval` → 204; the decision comes as a signal | 409 fenced |
| ``POST /tasks/{id}/turns`` | `StartTurn` → 204; the answer comes as a signal | 409 fenced |
| ``POST /tasks/{id}/turns/cancel`` | `CancelTurns` → 204 | 409 fenced |
| ``POST /tasks/{id}/cache`` | `CacheLookup` → `CacheAnswer` | 409 fenced |

A *path* names a node within its run: ``name``, or ``outer/name`` for a node of the sub-workflow that the node ``outer``
runs (`fairlead_agent.graph.paths`). A *signal* is something that a task waits for and that others bring about: a
decision (`Decision`), the answer of an agent's turn (`TurnAnswer`). It has the key under which it was asked for, comes
once, and is kept as long as the task.

A refusal's body is `Problem`. 503 with ``Retry-After`` means: try the same request again.
"""

from fairlead_agent.protocol.base import (
    MAX_ENTRIES,
    MAX_LINES,
    MAX_MESSAGES,
    MAX_TASKS,
    PROTOCOL,
    Count,
    ItemName,
    Key,
    NodePath,
    Problem,
    Wire,
)
from fairlead_agent.protocol.calls import (
    AgentRequest,
    Call,
    CallReply,
    CodeRequest,
    FileContent,
    LlmRequest,
    Message,
    ToolRequest,
    ToolUse,
    Usage,
    call_key,
    iteration_of,
)
from fairlead_agent.protocol.journal import (
    Append,
    Appended,
    Entry,
    ErrorInfo,
    Kind,
    LogLine,
    Logs,
    Progress,
    State,
    Wait,
    WaitFor,
)
from fairlead_agent.protocol.pods import Claim, Heartbeat, HeartbeatReply, Register, Session
from fairlead_agent.protocol.tasks import Claimed, Release, Rerun, RunInfo, Task, ToolInfo, TurnInfo
from fairlead_agent.protocol.waiting import (
    RESUME,
    AskApproval,
    AwaitSignals,
    CacheAnswer,
    CacheLookup,
    CancelTurns,
    Decision,
    Park,
    Parked,
    Signal,
    Signals,
    StartTurn,
    TurnAnswer,
)

__all__ = [
    "MAX_ENTRIES",
    "MAX_LINES",
    "MAX_MESSAGES",
    "MAX_TASKS",
    "PROTOCOL",
    "RESUME",
    "AgentRequest",
    "Append",
    "Appended",
    "AskApproval",
    "AwaitSignals",
    "CacheAnswer",
    "CacheLookup",
    "Call",
    "CallReply",
    "CancelTurns",
    "Claim",
    "Claimed",
    "CodeRequest",
    "Count",
    "Decision",
    "Entry",
    "ErrorInfo",
    "FileContent",
    "Heartbeat",
    "HeartbeatReply",
    "ItemName",
    "Key",
    "Kind",
    "LlmRequest",
    "LogLine",
    "Logs",
    "Message",
    "NodePath",
    "Park",
    "Parked",
    "Problem",
    "Progress",
    "Register",
    "Release",
    "Rerun",
    "RunInfo",
    "Session",
    "Signal",
    "Signals",
    "StartTurn",
    "State",
    "Task",
    "ToolInfo",
    "ToolRequest",
    "ToolUse",
    "TurnAnswer",
    "TurnInfo",
    "Usage",
    "Wait",
    "WaitFor",
    "Wire",
    "call_key",
    "iteration_of",
]
