"""Shows Agents as cards and runs as tasks, and reads messages. Pure."""

from __future__ import annotations

from typing import Any, Final

import orjson
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentProvider,
    AgentSkill,
    Artifact,
    HTTPAuthSecurityScheme,
    Part,
    Role,
    SecurityRequirement,
    SecurityScheme,
    StringList,
    Task,
    TaskState,
    TaskStatus,
)
from a2a.types.a2a_pb2 import Message as WireMessage
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError, UnsupportedOperationError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from fairlead.a2a.answers import COST_KEY
from fairlead.core.actions import Obj, meta, spec_of
from fairlead.services.messages import Conversation, Message, State, show_skills

RUN_KEY: Final = "fairlead.dev/run"
"""In a task's metadata: the WorkflowRun."""
_SCHEME: Final = "kubernetes"
_MODES: Final = ("text/plain", "application/json")
_STATES: Final = {
    State.SUBMITTED: TaskState.TASK_STATE_SUBMITTED,
    State.WORKING: TaskState.TASK_STATE_WORKING,
    State.INPUT_REQUIRED: TaskState.TASK_STATE_INPUT_REQUIRED,
    State.COMPLETED: TaskState.TASK_STATE_COMPLETED,
    State.FAILED: TaskState.TASK_STATE_FAILED,
    State.CANCELED: TaskState.TASK_STATE_CANCELED,
}


def to_card(agent: Obj, *, base: str) -> dict[str, Any]:
    """Return the card of an Agent as JSON. *base* is the URL below which agents are."""
    namespace, name = meta(agent)["namespace"], meta(agent)["name"]
    url = f"{base}/a2a/v1/{namespace}/{name}"
    card = AgentCard(
        name=name,
        description=spec_of(agent).get("description") or f"The agent {name} in the namespace {namespace}.",
        version=str(meta(agent)["generation"]),
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=version) for version in ("1.0", "0.3")
        ],
        provider=AgentProvider(organization="Fairlead", url=base),
        capabilities=AgentCapabilities(streaming=True, push_notifications=False, extended_agent_card=False),
        security_schemes={
            _SCHEME: SecurityScheme(
                http_auth_security_scheme=HTTPAuthSecurityScheme(
                    scheme="bearer", description="A Kubernetes token whose user may create WorkflowRuns here."
                )
            )
        },
        security_requirements=[SecurityRequirement(schemes={_SCHEME: StringList()})],
        default_input_modes=_MODES,
        default_output_modes=_MODES,
        skills=[
            AgentSkill(
                id=skill["name"],
                name=skill["name"],
                description=skill["description"],
                tags=[skill["name"]],
                examples=skill.get("examples") or (),
            )
            for skill in show_skills(agent)
        ],
    )
    shown: dict[str, Any] = agent_card_to_dict(card)
    return shown


def to_message(wire: WireMessage) -> Message:
    """Return what somebody sent.

    Raises:
        A2AError: it is not what can be taken.
    """
    if wire.task_id:
        raise UnsupportedOperationError(
            "a task takes no further messages: send a new one, with the same contextId if it belongs to the same matter"
        )
    if wire.role == Role.ROLE_AGENT:
        raise InvalidParamsError("a message to an agent has the role of a user")
    return Message(wire.message_id, wire.context_id, "\n".join(_text(part) for part in wire.parts))


def _text(part: Part) -> str:
    if part.HasField("text"):
        return part.text
    if part.HasField("data"):
        return orjson.dumps(MessageToDict(part.data)).decode()
    raise ContentTypeNotSupportedError("files are not taken: send text or data")


def to_status(task: Conversation) -> TaskStatus:
    """Return the state of a task."""
    status = TaskStatus(state=_STATES[task.state], timestamp=task.at)
    if task.words:
        status.message.CopyFrom(
            WireMessage(
                message_id=f"{task.name}-{task.state}",
                context_id=task.context,
                task_id=task.name,
                role=Role.ROLE_AGENT,
                parts=[Part(text=task.words)],
            )
        )
    return status


def to_artifact(task: Conversation) -> Artifact:
    """Return what came of a task: text as text, anything else as data."""
    return Artifact(artifact_id="output", name="output", parts=[_part(task.output)])


def _part(output: Any) -> Part:
    if output is None or isinstance(output, str):
        return Part(text=output or "", media_type="text/plain")
    return Part(data=ParseDict(output, Value()), media_type="application/json")


def to_metadata(task: Conversation) -> dict[str, Any]:
    """Return what is said of a task beside A2A's own fields."""
    cost = {} if task.cost is None else {COST_KEY: task.cost}
    return {RUN_KEY: f"{task.namespace}/{task.name}", **cost}


def to_task(task: Conversation) -> Task:
    """Return a task as it is now."""
    said = WireMessage(
        message_id=task.message,
        context_id=task.context,
        task_id=task.name,
        role=Role.ROLE_USER,
        parts=[Part(text=task.prompt)],
    )
    return Task(
        id=task.name,
        context_id=task.context,
        status=to_status(task),
        artifacts=[to_artifact(task)] if task.state is State.COMPLETED else [],
        history=[said],
        metadata=ParseDict(to_metadata(task), Task().metadata),
    )
