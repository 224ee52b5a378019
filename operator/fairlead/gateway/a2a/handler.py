"""Answers A2A requests: the methods of the SDK's handler, over messages and runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.types import a2a_pb2 as wire
from a2a.utils.errors import (
    A2AError,
    ExtendedAgentCardNotConfiguredError,
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.task import apply_history_length
from starlette.requests import Request

from fairlead.errors import FairleadError, InvalidObject, Unavailable
from fairlead.gateway.a2a.showing import to_artifact, to_message, to_metadata, to_status, to_task
from fairlead.logs import get_logger
from fairlead.services.messages import Conversation, Messages, State

_log = get_logger(__name__)
_LONGEST_SECONDS: Final = 600.0
"""How long a message that is not streamed waits for its answer; then the task is told as it is."""
_CANCEL_SECONDS: Final = 10.0
MOST_WAITING: Final = 200
"""How many wait for tasks of one namespace at a time: each holds a connection."""
_CALLER: Final = "fairlead"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks which agent."""

    namespace: str
    agent: str
    username: str
    check: Callable[[], Awaitable[object]]
    """Raises when they may not ask any more."""


class _Contexts(ServerCallContextBuilder):
    """Tells the handler who asks; the route has found that out."""

    def build(self, request: Request) -> ServerCallContext:
        return ServerCallContext(state={"headers": dict(request.headers), _CALLER: request.state.a2a_caller})


def build_dispatcher(messages: Messages) -> JsonRpcDispatcher:
    """Return what answers JSON-RPC requests."""
    return JsonRpcDispatcher(Handler(messages), context_builder=_Contexts(), enable_v0_3_compat=True)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Make A2A's errors of ours; what is a bug is told to the log, not to strangers."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the SDK would show it to whoever asks
        raise to_a2a(error) from None


def to_a2a(error: Exception) -> A2AError:
    """Return what whoever asks is told of an error."""
    if isinstance(error, A2AError):
        return error
    if isinstance(error, InvalidObject):
        return InvalidParamsError(str(error))
    if isinstance(error, FairleadError):
        return InternalError(f"{error.reason}: {error}")
    _log.error("a2a_request_failed", exc_info=error)
    return InternalError("the gateway failed; its log says more")


class _NotOffered(RequestHandler):
    """What is not offered."""

    async def on_list_tasks(
        self, _params: wire.ListTasksRequest, _context: ServerCallContext
    ) -> wire.ListTasksResponse:
        """Say that runs are listed elsewhere."""
        raise UnsupportedOperationError("tasks are not listed here: kubectl get workflowruns -l fairlead.dev/a2a-agent")

    async def on_create_task_push_notification_config(self, _params: Any, _context: ServerCallContext) -> Any:
        """Say that nobody is called back."""
        raise PushNotificationNotSupportedError

    async def on_get_task_push_notification_config(self, _params: Any, _context: ServerCallContext) -> Any:
        """Say that nobody is called back."""
        raise PushNotificationNotSupportedError

    async def on_list_task_push_notification_configs(self, _params: Any, _context: ServerCallContext) -> Any:
        """Say that nobody is called back."""
        raise PushNotificationNotSupportedError

    async def on_delete_task_push_notification_config(self, _params: Any, _context: ServerCallContext) -> None:
        """Say that nobody is called back."""
        raise PushNotificationNotSupportedError

    async def on_get_extended_agent_card(self, _params: Any, _context: ServerCallContext) -> wire.AgentCard:
        """Say that there is one card only."""
        raise ExtendedAgentCardNotConfiguredError


class Handler(_NotOffered):
    """One for all agents: which one is meant is in the context of each request."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._waiting: Counter[str] = Counter()

    @validate_request_params
    async def on_message_send(
        self, params: wire.SendMessageRequest, context: ServerCallContext
    ) -> wire.Task | wire.Message:
        """Make a run of a message; wait for its end unless asked not to."""
        async with _translated():
            task = await self._send(params, context)
            if not params.configuration.return_immediately:
                task = await self._wait(task, context, _LONGEST_SECONDS)
            return apply_history_length(to_task(task), params.configuration)

    @validate_request_params
    async def on_message_send_stream(
        self, params: wire.SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Make a run of a message and tell what becomes of it."""
        async with _translated():
            async for event in self._events(await self._send(params, context), context):
                yield event

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: wire.SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Tell what becomes of a task from now on."""
        async with _translated():
            task = _active(await self._find(params.id, context), UnsupportedOperationError)
            async for event in self._events(task, context):
                yield event

    @validate_request_params
    async def on_get_task(self, params: wire.GetTaskRequest, context: ServerCallContext) -> wire.Task | None:
        """Tell a task as it is now."""
        async with _translated():
            return apply_history_length(to_task(await self._find(params.id, context)), params)

    @validate_request_params
    async def on_cancel_task(self, params: wire.CancelTaskRequest, context: ServerCallContext) -> wire.Task | None:
        """Stop the run of a task."""
        async with _translated():
            task = _active(await self._find(params.id, context), TaskNotCancelableError)
            await self._messages.cancel(task)
            return to_task(await self._wait(task, context, _CANCEL_SECONDS, to_its_end=True))

    async def _send(self, params: wire.SendMessageRequest, context: ServerCallContext) -> Conversation:
        if params.configuration.HasField("task_push_notification_config"):
            raise PushNotificationNotSupportedError
        caller = _caller(context)
        message = to_message(params.message)
        return await self._messages.send(caller.namespace, caller.agent, message, by=caller.username)

    async def _find(self, task: str, context: ServerCallContext) -> Conversation:
        caller = _caller(context)
        found = await self._messages.find(caller.namespace, caller.agent, task)
        if found is None:
            raise TaskNotFoundError
        return found

    async def _wait(
        self, task: Conversation, context: ServerCallContext, seconds: float, *, to_its_end: bool = False
    ) -> Conversation:
        """Return a task when there is nothing more to wait for, or as it is after a while; at once if too many wait."""
        latest = task
        if self._is_full(_caller(context).namespace):
            return task
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._follow(task, context, to_its_end=to_its_end) as changes:
                async for now in changes:
                    latest = now
        return latest

    @asynccontextmanager
    async def _follow(
        self, task: Conversation, context: ServerCallContext, *, to_its_end: bool = False
    ) -> AsyncGenerator[AsyncGenerator[Conversation]]:
        """Give what becomes of a task for as long as whoever asks may know it.

        Raises:
            Unavailable: too many wait in this namespace.
        """
        caller = _caller(context)
        with self._place(caller.namespace):
            async with aclosing(self._messages.follow(task, to_its_end=to_its_end, check=caller.check)) as changes:
                yield changes

    def _is_full(self, namespace: str) -> bool:
        return self._waiting[namespace] >= MOST_WAITING

    @contextmanager
    def _place(self, namespace: str) -> Iterator[None]:
        if self._is_full(namespace):
            raise Unavailable(
                f"{MOST_WAITING} requests wait for tasks in namespace {namespace} already: ask again later",
                retry_after=5,
            )
        self._waiting[namespace] += 1
        try:
            yield
        finally:
            self._waiting[namespace] -= 1
            self._waiting += Counter()  # forgets those of which nobody waits

    async def _events(self, task: Conversation, context: ServerCallContext) -> AsyncGenerator[Event]:
        """Yield the task, then what changes of it."""
        yield to_task(task)
        async with self._follow(task, context) as changes:
            async for now in changes:
                if now.state is task.state:
                    continue
                if now.state is State.COMPLETED:
                    yield wire.TaskArtifactUpdateEvent(
                        task_id=now.name, context_id=now.context, artifact=to_artifact(now), last_chunk=True
                    )
                yield wire.TaskStatusUpdateEvent(
                    task_id=now.name, context_id=now.context, status=to_status(now), metadata=to_metadata(now)
                )
                task = now


def _active(task: Conversation, error: type[A2AError]) -> Conversation:
    if task.state.final:
        raise error(f"the task has ended: {task.state}")
    return task


def _caller(context: ServerCallContext) -> Caller:
    caller: Caller = context.state[_CALLER]
    return caller
