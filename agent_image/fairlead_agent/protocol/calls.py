"""Calls to the world outside, which the gateway makes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fairlead_agent.protocol.base import MAX_MESSAGES, Count, ItemName, Key, NodePath, Wire
from fairlead_agent.protocol.journal import ErrorInfo


class ToolUse(Wire):
    """A model asks for a tool."""

    id: str
    name: str
    arguments: dict[str, Any] | None = None
    """None: what the model wrote is no JSON object; it is in `raw` then."""
    raw: Annotated[str, Field(max_length=65_536)] = ""


class Message(Wire):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: Annotated[tuple[ToolUse, ...], Field(max_length=MAX_MESSAGES)] = ()
    """Of an assistant: what it asked for."""
    tool_call_id: str = ""
    """Of a tool's answer: which `ToolUse.id` it answers."""


class LlmRequest(Wire):
    """Ask a Model of the run's frozen revision, by its name."""

    model: str
    messages: Annotated[tuple[Message, ...], Field(max_length=MAX_MESSAGES)]
    output: dict[str, Any] | None = None
    """A JSON Schema: ask the provider for an answer of this shape."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    tools: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Names of the tools that the model is offered; the gateway knows their definitions."""


class ToolRequest(Wire):
    """Use a built-in tool or a `Tool` object, by its name.

    One that requires approval needs an approval that was asked for under the call's own key, for these arguments.
    """

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class FileContent(Wire):
    """The content of a file that is no text."""

    base64: str


class CodeRequest(Wire):
    """Run the program of a ``code`` node in a sandbox.

    Language, source, network and limits are those of the frozen node: a pod gives what the program works on.
    """

    inputs: dict[str, Any] = Field(default_factory=dict)
    files: Annotated[dict[str, str | FileContent], Field(max_length=64)] = Field(default_factory=dict)
    """Relative path to content."""


class AgentRequest(Wire):
    """Ask an agent that someone else runs, by the name of its Agent in the run's frozen revision."""

    name: str
    prompt: str
    output: dict[str, Any] | None = None
    """A JSON Schema: ask for an answer of this shape."""


class Call(Wire):
    """A call to the world outside, made by the gateway: committed before it is sent and before it is answered.

    *key* is ``node/item/iteration/try/sequence`` (`call_key`), the same in every attempt, so that a call whose answer
    was committed is answered from the record. *digest* covers the request: the same key with another digest is refused.
    """

    attempt: Count
    key: Key
    digest: Annotated[str, Field(max_length=256)]
    action: Literal["llm", "tool", "code", "agent"]
    node: NodePath
    item: ItemName | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600
    llm: LlmRequest | None = None
    tool: ToolRequest | None = None
    code: CodeRequest | None = None
    agent: AgentRequest | None = None


class Usage(Wire):
    """Tokens, as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0


class CallReply(Wire):
    """The committed answer, or the committed failure."""

    result: Any = None
    """``llm``: the text of the answer; ``tool``: what the tool gave; ``code``: output, stdout, stderr, files and notes,
    of a program that failed, too; ``agent``: its text, or the value that it gave."""
    tool_calls: tuple[ToolUse, ...] = ()
    """``llm``: the tools that the model asks for."""
    finish_reason: str = ""
    """``llm``: ``stop``, ``length``, ``tool_calls``, ``content_filter`` …"""
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    cost: str | None = None
    """US dollars as a decimal; None where the price is unknown."""
    scripted: bool = False
    replayed: bool = False
    """Answered from the record of an earlier attempt: nothing was sent, nothing was paid."""


def call_key(node: str, item: str | None, iteration: int, try_number: int, sequence: int) -> str:
    """Return the deterministic name of a call within its task. *item* is escaped so that it cannot forge a key."""
    safe = "-" if item is None else "=" + item.replace("%", "%25").replace("/", "%2F")
    return f"{node}/{safe}/{iteration}/{try_number}/{sequence}"


def iteration_of(key: str) -> int:
    """Return the iteration that a `call_key` is of; 1 if it is none."""
    match key.rsplit("/", 3):
        case [_, iteration, _, _] if iteration.isdecimal():
            return int(iteration)
        case _:
            return 1
