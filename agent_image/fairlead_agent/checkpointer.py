"""A LangGraph checkpointer whose storage is the journal of a turn.

What it writes is msgpack of plain data and of LangGraph's and LangChain's own message types; never a pickle, and no
type that the stored bytes could name. Only what is new goes into an entry: what a step did not change is not repeated.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.event_hooks import SerdeEvent, register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from fairlead_agent.failures import failure
from fairlead_agent.graph import MAX_OUTPUT

_MSGPACK: Final = "msgpack"
_CONFIG: Final = ("thread_id", "checkpoint_ns", "checkpoint_id")


class StrictSerializer(JsonPlusSerializer):
    """Msgpack of the types that LangGraph lists as safe, checked when they are written: what is read is what was."""

    def __init__(self) -> None:
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return *obj* as bytes.

        Raises:
            NodeFailure: it holds something that could not be read back.
        """
        try:
            data = super().dumps_typed(obj)
        except Exception as error:
            raise failure("TurnFailed", f"the state of the graph cannot be kept: {error}") from error
        self.loads_typed(data)
        return data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return what *data* holds.

        Raises:
            NodeFailure: it names a type that is not listed; nothing was made of it.
        """
        refused: list[SerdeEvent] = []
        forget = register_serde_event_listener(refused.append)
        try:
            value = super().loads_typed(data)
        finally:
            forget()
        if refused:
            name = f"{refused[0]['module']}.{refused[0]['name']}"
            text = f"the state of the graph holds a {name}, which is not kept: use plain data and messages in it"
            raise failure("TurnFailed", text)
        return value


class JournalSaver(InMemorySaver):
    """Keeps checkpoints in memory, and in the journal before anything builds on them.

    Args:
        saved: what `save` was given so far, by earlier attempts.
        save: commits an entry.
    """

    def __init__(self, saved: Iterable[Any], *, save: Callable[[dict[str, str]], Awaitable[None]]) -> None:
        super().__init__(serde=StrictSerializer())
        self._save = save
        self.begun = False
        """Whether there is a checkpoint to go on from."""
        for entry in saved:
            self._restore(entry)

    def with_allowlist(self, extra_allowlist: Any) -> Self:  # noqa: ARG002 - LangGraph's signature
        """Allow no further types."""
        return self

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint."""
        values = checkpoint["channel_values"]
        lean = {**checkpoint, "channel_values": {name: values[name] for name in new_versions if name in values}}
        place = _place(config)
        await self._commit("put", [place, lean, dict(metadata), dict(new_versions)])
        self.begun = True
        return super().put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a step has written so far."""
        await self._commit("writes", [_place(config), [list(write) for write in writes], task_id, task_path])
        super().put_writes(config, writes, task_id, task_path)

    def put(self, *_args: Any, **_keys: Any) -> NoReturn:
        """Refuse: the journal is written asynchronously."""
        raise failure("TurnFailed", "a graph within the graph was run by invoke(): use ainvoke()")

    put_writes = put

    async def _commit(self, what: str, arguments: list[Any]) -> None:
        kind, data = self.serde.dumps_typed(arguments)
        if kind != _MSGPACK:
            raise failure("TurnFailed", f"the state of the graph cannot be kept: it became {kind}")
        text = base64.b64encode(data).decode()
        if len(text) > MAX_OUTPUT:
            raise failure(
                "OutputTooLarge", f"one step of the graph changed {len(text)} bytes of state: keep less in it"
            )
        await self._save({"what": what, "data": text})

    def _restore(self, entry: Mapping[str, str]) -> None:
        arguments = self.serde.loads_typed((_MSGPACK, base64.b64decode(entry["data"])))
        if entry["what"] == "put":
            place, checkpoint, metadata, versions = arguments
            super().put({"configurable": place}, checkpoint, metadata, versions)
            self.begun = True
        else:
            place, writes, task_id, task_path = arguments
            super().put_writes({"configurable": place}, [(name, value) for name, value in writes], task_id, task_path)


def _place(config: RunnableConfig) -> dict[str, Any]:
    configurable = config["configurable"]
    return {name: configurable[name] for name in _CONFIG if name in configurable}
