"""Puts together what a remote agent answers: one message, or a task whose artifacts come in pieces."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from a2a.types.a2a_pb2 import Artifact, Message, Part, Role, StreamResponse, Task, TaskState, TaskStatus
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from fairlead.errors import TerminalError

COST_KEY: Final = "fairlead.dev/cost-usd"
"""In the metadata of a task, a message or an artifact: what it cost, in US dollars."""
FINAL: Final = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
)
ASKING: Final = frozenset({TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED})
MAX_PARTS: Final = 4096
"""Of an answer, and of each piece in which it comes. A text that comes piece by piece is one part."""
_MOST_DOLLARS: Final = Decimal(10) ** 6
_EXACT: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent gave."""

    state: str
    """``completed``, ``failed``, ``canceled``, ``rejected``, ``input-required``, ``auth-required``."""
    text: str
    """Its words about that state."""
    parts: tuple[Part, ...]
    cost: Decimal | None
    """US dollars, where it said so."""
    task_id: str


class Gathering:
    """What has come so far."""

    def __init__(self) -> None:
        self.task_id = ""
        self.state: int = TaskState.TASK_STATE_UNSPECIFIED
        self._said: list[Part] = []
        self._artifacts: dict[str, list[Part | list[str]]] = {}
        """A text lies in its pieces until all have come."""
        self._kept = 0
        self._cost: Decimal | None = None

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.state in FINAL or self.asks

    @property
    def asks(self) -> bool:
        """Whether the agent wants something before it goes on."""
        return self.state in ASKING

    def add(self, event: StreamResponse) -> None:
        """Take in an event."""
        match event.WhichOneof("payload"):
            case "message":
                self.message(event.message)
            case "task":
                self.task(event.task)
            case "status_update":
                self._status(event.status_update.status)
                self._pay(event.status_update.metadata)
            case "artifact_update":
                update = event.artifact_update
                self._artifact(update.artifact, append=update.append)
                self._pay(update.metadata)
            case _:
                pass  # of a newer protocol

    def message(self, message: Message) -> None:
        """Take in an answer that needed no task."""
        self._artifacts = {"": list(_few(message.parts))}
        self.state = TaskState.TASK_STATE_COMPLETED
        self._pay(message.metadata)

    def task(self, task: Task) -> None:
        """Take in a task as it is now."""
        self.task_id = task.id
        self._artifacts, self._kept = {}, 0
        for artifact in task.artifacts:
            self._artifact(artifact, append=True)
        self._status(task.status)
        self._pay(task.metadata)
        if not self._artifacts and self.state == TaskState.TASK_STATE_COMPLETED and not self._said:
            self._said = _last_words(task.history)

    def answer(self) -> Answer:
        """Return the whole."""
        parts = [_whole(part) for artifact in self._artifacts.values() for part in artifact]
        return Answer(
            state=TaskState.Name(self.state).removeprefix("TASK_STATE_").lower().replace("_", "-"),
            text=_texts(self._said),
            parts=tuple(parts or self._said),
            cost=self._cost,
            task_id=self.task_id,
        )

    def _status(self, status: TaskStatus) -> None:
        self.state = status.state
        if status.HasField("message"):
            self._said = list(_few(status.message.parts))

    def _artifact(self, artifact: Artifact, *, append: bool) -> None:
        known = self._artifacts.setdefault(artifact.artifact_id, [])
        self._pay(artifact.metadata)
        self._kept -= len(known)
        if not append:
            known.clear()
        for part in _few(artifact.parts):
            pieces = known[-1] if append and known else None
            if isinstance(pieces, list) and part.HasField("text"):
                pieces.append(part.text)
            else:
                known.append([part.text] if part.HasField("text") else part)
        self._kept += len(known)
        _bound(self._kept)

    def _pay(self, metadata: Struct) -> None:
        if COST_KEY in metadata:
            self._cost = _dollars(metadata[COST_KEY])


def _few(parts: Sequence[Part]) -> Sequence[Part]:
    _bound(len(parts))
    return parts


def _bound(count: int) -> None:
    if count > MAX_PARTS:
        raise TerminalError(f"its answer has more than {MAX_PARTS} parts", reason="TooLarge")


def _whole(part: Part | list[str]) -> Part:
    return Part(text="".join(part)) if isinstance(part, list) else part


def _last_words(history: Sequence[Message]) -> list[Part]:
    said = [message for message in history if message.role == Role.ROLE_AGENT]
    return list(_few(said[-1].parts)) if said else []


def _dollars(value: Any) -> Decimal | None:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= _MOST_DOLLARS else None


def to_output(parts: Iterable[Part], *, wants_value: bool) -> Any:
    """Return parts as an output: text, a value, or an object with what there is of both and of files.

    With *wants_value* (a schema was given) a single value is the answer, whatever is said beside it.
    """
    given = list(parts)
    texts = [part.text for part in given if part.HasField("text")]
    values = [_plain(MessageToDict(part.data)) for part in given if part.HasField("data")]
    files = [_file(part) for part in given if part.HasField("raw") or part.HasField("url")]
    if len(values) == 1 and (wants_value or not (texts or files)):
        return values[0]
    text = "\n".join(texts)
    if not values and not files:
        return text
    return {"text": text, "data": values, "files": files}


def _plain(value: Any) -> Any:
    """Return a value with whole numbers as such: protobuf's values know floating-point numbers only."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case _:
            return value


def _file(part: Part) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": part.filename, "mediaType": part.media_type}
    if part.HasField("url"):
        return {**shown, "url": part.url}
    return {**shown, "base64": base64.b64encode(part.raw).decode()}


def _texts(parts: Iterable[Part]) -> str:
    return "\n".join(part.text for part in parts if part.HasField("text"))
