"""Calls to the world outside: committed before they are sent, and before they are answered.

A call belongs to its task and its key, not to the attempt that asked for it: whoever asks again gets the answer that is
there, joins the call that is in flight, or waits for the gateway that made it. Only when that gateway has died with the
call is it sent again, and marked so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from fairlead.clock import Clock
from fairlead.errors import Conflict, FairleadError, InvalidObject, Refused, RetryableError, TerminalError, Unavailable
from fairlead.logs import get_logger
from fairlead.services.outcomes import Outcome, build_answer, build_span, describe_request, to_error_info
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.storage.base import CallIntent, CallRecord, CallState, Fence, Storage
from fairlead_agent.protocol import Call, CallReply, LlmRequest, ToolRequest, call_key

_log = get_logger(__name__)
BEAT_SECONDS: Final = 2.0
_DEAD_AFTER_SECONDS: Final = 3 * BEAT_SECONDS
_LOOK_SECONDS: Final = 0.25
_COMMIT_RETRY_SECONDS: Final = 1.0
_KEY_PARTS: Final = 5
_MAX_DIGITS: Final = 9
_Place = tuple[str, str]
"""A task and a call's key."""


class NonDeterministic(Conflict):
    """The same call was asked for with another request: the replay of a journal went another way."""

    reason = "NonDeterministic"


class ModelCaller(Protocol):
    """Asks models."""

    async def ask(self, context: TaskContext, request: LlmRequest, *, timeout_seconds: float) -> Outcome:
        """Return the answer of a Model of the run's revision, or raise."""


class ToolCaller(Protocol):
    """Uses tools."""

    async def use(self, context: TaskContext, request: ToolRequest, *, timeout_seconds: float) -> Outcome:
        """Return what the tool gave, or raise."""


class Calls:
    """Makes calls on behalf of agents."""

    def __init__(
        self, storage: Storage, clock: Clock, *, gateway: str, tasks: Tasks, models: ModelCaller, tools: ToolCaller
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._gateway = gateway
        self._tasks = tasks
        self._models = models
        self._tools = tools
        self._flights: dict[_Place, asyncio.Task[CallReply]] = {}
        self._locks: WeakValueDictionary[_Place, asyncio.Lock] = WeakValueDictionary()

    async def call(self, fence: Fence, request: Call) -> CallReply:
        """Return the answer of a call, from the record or from the world.

        Raises:
            Fenced: the claim is over.
            NonDeterministic: the key was used with another digest.
        """
        context = await self._tasks.context(fence)
        _check(context, request)
        async with self._lock((fence.task_id, request.key)):  # nobody takes a call over that has only just begun
            begun = await self._begin(fence, context, request)
        return begun if isinstance(begun, CallReply) else await self._join(begun)

    async def beat(self) -> None:
        """Say, until cancelled, that this gateway lives and that its calls are in good hands."""
        while True:
            try:
                await self._storage.beat_gateway(self._gateway, at=self._clock.now())
            except RetryableError as error:
                _log.warning("gateway_beat_missed", error=str(error))
            await self._clock.sleep(BEAT_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Let calls in flight finish for a while. What is then still under way stays an intent, to be repeated."""
        flights = list(self._flights.values())
        if not flights:
            return
        _, left = await asyncio.wait(flights, timeout=seconds)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _begin(self, fence: Fence, context: TaskContext, request: Call) -> CallReply | asyncio.Task[CallReply]:
        """Return the answer that is there, or the call in flight; start it where there is neither."""
        intent = self._intent(context, request)
        record = await self._storage.begin_call(fence, intent)
        if record is None:
            return self._launch(context, intent, request, repeats=0)
        if record.intent.digest != request.digest:
            raise NonDeterministic(f"call {request.key} was made with another request in an earlier attempt")
        flight = self._flights.get((intent.task_id, intent.key))
        if flight is not None:
            return flight
        return await self._take_over(context, replace(intent, started_at=record.intent.started_at), request)

    async def _take_over(
        self, context: TaskContext, intent: CallIntent, request: Call
    ) -> CallReply | asyncio.Task[CallReply]:
        """Wait for the answer that another gateway will commit; send the call again if that gateway is dead."""
        watch = _GatewayWatch(self._storage, self._clock)
        while True:
            found = await self._storage.get_call(intent.task_id, intent.key)
            if found is None:
                raise Unavailable(f"call {intent.key} is gone", retry_after=1)
            if found.state is CallState.DONE:
                return _replayed(found)
            owner = found.intent.gateway
            dead = owner == self._gateway or await watch.is_dead(owner)
            if dead and await self._storage.repeat_call(intent, lost=owner):
                _log.warning("call_repeated", task=intent.task_id, key=intent.key, lost=owner)
                return self._launch(context, intent, request, repeats=found.repeats + 1)
            await self._clock.sleep(_LOOK_SECONDS)

    def _lock(self, place: _Place) -> asyncio.Lock:
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        return lock

    def _launch(
        self, context: TaskContext, intent: CallIntent, request: Call, *, repeats: int
    ) -> asyncio.Task[CallReply]:
        flying = asyncio.create_task(self._fly(context, intent, request, repeats=repeats), name=f"call {intent.key}")
        place = (intent.task_id, intent.key)
        self._flights[place] = flying
        flying.add_done_callback(lambda done: self._landed(place, done))
        return flying

    def _landed(self, place: _Place, flight: asyncio.Task[CallReply]) -> None:
        self._flights.pop(place, None)
        if not flight.cancelled() and flight.exception() is not None:
            _log.error("call_lost", task=place[0], key=place[1], error=str(flight.exception()))

    async def _join(self, flight: asyncio.Task[CallReply]) -> CallReply:
        """Wait for a call; that the asker hangs up does not end it."""
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            if flight.cancelled():
                raise Unavailable("the gateway is ending: ask again", retry_after=1) from None
            raise

    async def _fly(self, context: TaskContext, intent: CallIntent, request: Call, *, repeats: int) -> CallReply:
        outcome = await self._perform(context, request)
        answer = build_answer(outcome, at=self._clock.now())
        span = build_span(context, intent, request, outcome=outcome, finished_at=answer.finished_at, repeats=repeats)
        while True:
            try:
                await self._storage.finish_call(intent.task_id, intent.key, answer, span=span)
            except RetryableError as error:  # the answer is paid for: it is kept until it can be committed
                _log.warning("call_not_committed", key=intent.key, error=str(error))
                await self._clock.sleep(_COMMIT_RETRY_SECONDS)
            else:
                return outcome.reply

    async def _perform(self, context: TaskContext, request: Call) -> Outcome:
        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await self._dispatch(context, request)
        except FairleadError as error:
            return Outcome.failed(to_error_info(error))
        except TimeoutError:
            late = RetryableError(f"no answer within {request.timeout_seconds:g} s", reason="Timeout")
            return Outcome.failed(to_error_info(late))
        except Exception as error:  # noqa: BLE001 - a bug here must not leave the agent without an answer
            _log.exception("call_failed", key=request.key, action=request.action)
            bug = TerminalError(f"the gateway failed ({type(error).__name__}); see its log", reason="InternalError")
            return Outcome.failed(to_error_info(bug))

    async def _dispatch(self, context: TaskContext, request: Call) -> Outcome:
        if request.llm is not None:
            return await self._models.ask(context, request.llm, timeout_seconds=request.timeout_seconds)
        if request.tool is not None:
            return await self._tools.use(context, request.tool, timeout_seconds=request.timeout_seconds)
        raise InvalidObject(f"a call of action {request.action} has no request")

    def _intent(self, context: TaskContext, request: Call) -> CallIntent:
        target = request.llm.model if request.llm else request.tool.name if request.tool else ""
        return CallIntent(
            task_id=context.task_id,
            run_uid=context.run_uid,
            key=request.key,
            digest=request.digest,
            action=request.action,
            node=request.node,
            item=request.item or "",
            gateway=self._gateway,
            target=target,
            request=describe_request(request),
            started_at=self._clock.now(),
        )


class _GatewayWatch:
    """Judges whether another gateway lives, by how long its beat has not changed on this process's own clock."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._seen: dict[str, tuple[Any, float]] = {}

    async def is_dead(self, gateway: str) -> bool:
        beat = await self._storage.gateway_seen(gateway)
        if beat is None:
            return True
        now = self._clock.monotonic()
        known, since = self._seen.get(gateway, (None, now))
        if known != beat:
            self._seen[gateway] = (beat, now)
            return False
        return now - since >= _DEAD_AFTER_SECONDS


def _replayed(record: CallRecord) -> CallReply:
    if record.answer is None:
        raise Unavailable(f"the answer of call {record.intent.key} is missing", retry_after=1)
    return CallReply.model_validate(record.answer.reply).model_copy(update={"replayed": True})


def _check(context: TaskContext, request: Call) -> None:
    """Refuse what the frozen workflow does not ask for, whatever the pod says."""
    if (request.llm is None) == (request.tool is None) or getattr(request, request.action) is None:
        raise InvalidObject("a call has exactly the request of its action", field="action")
    _check_key(request)
    node = context.nodes.get(request.node)
    action: Mapping[str, Any] | None = None if node is None else node.get(request.action)
    if action is None:
        raise Refused(f"the workflow has no node {request.node} with the action {request.action}")
    if request.tool is not None and request.tool.name != action.get("name"):
        raise Refused(f"node {request.node} uses the tool {action.get('name')}, not {request.tool.name}")
    model = action.get("model") or context.document["workflow"]["spec"].get("model")
    if request.llm is not None and request.llm.model != model:
        raise Refused(f"node {request.node} asks the model {model}, not {request.llm.model}")


def _check_key(request: Call) -> None:
    parts = request.key.split("/")
    numbers = parts[2:]
    well_formed = (
        len(parts) == _KEY_PARTS
        and all(number.isdecimal() and len(number) <= _MAX_DIGITS for number in numbers)
        and request.key == call_key(request.node, request.item, *(int(number) for number in numbers))
    )
    if not well_formed:
        raise InvalidObject(f"{request.key!r} is no key of a call of node {request.node}", field="key")
