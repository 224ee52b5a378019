"""Calls to the world outside: committed before they are sent, and before they are answered.

A call belongs to its task and its key, not to the attempt that asked for it: whoever asks again gets the answer that is
there, joins the call that is in flight, or waits for the gateway that made it. Only when that gateway has died with the
call is it sent again, and marked so; a tool that may not be used twice is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import orjson

from fairlead.clock import Clock
from fairlead.errors import Conflict, FairleadError, InvalidObject, Refused, RetryableError, TerminalError, Unavailable
from fairlead.logs import get_logger
from fairlead.services.budgets import budget_exceeded
from fairlead.services.outcomes import Outcome, build_answer, build_span, describe_request, to_error_info
from fairlead.services.permits import check_call, tool_spec
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.services.wakeups import Wakeups
from fairlead.storage.base import (
    ApprovalState,
    Begun,
    CallIntent,
    CallRecord,
    CallState,
    Fence,
    OverBudget,
    Reservation,
    Storage,
)
from fairlead_agent.protocol import AgentRequest, Call, CallReply, CodeRequest, LlmRequest, ToolRequest

_log = get_logger(__name__)
BEAT_SECONDS: Final = 2.0
_DEAD_AFTER_SECONDS: Final = 3 * BEAT_SECONDS
_LOOK_SECONDS: Final = 0.25
_COMMIT_RETRY_SECONDS: Final = 1.0
_BUDGET_SECONDS: Final = 5.0
"""How long a call waits for its budget before it looks again without having been told to."""
BUDGET_TOPIC: Final = "budget"
_WHILE: Final = {"tool": "while the tool {} was used", "code": "while a {} program ran that may reach the network"}
_Place = tuple[str, str]
"""A task and a call's key."""


class NonDeterministic(Conflict):
    """The same call was asked for with another request: the replay of a journal went another way."""

    reason = "NonDeterministic"


class OutcomeUnknown(TerminalError):
    """A gateway died with a call of a tool that may not be used twice."""

    reason = "OutcomeUnknown"


class ModelCaller(Protocol):
    """Asks models."""

    def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation | None:
        """Return what the answer may cost at worst and what that counts against; None: no budget holds.

        Raises:
            TerminalError: the price is unknown, so that a budget cannot be kept.
        """

    async def ask(
        self, context: TaskContext, request: LlmRequest, *, timeout_seconds: float, max_output_tokens: int | None
    ) -> Outcome:
        """Return the answer of a Model of the run's revision, or raise."""


class ToolCaller(Protocol):
    """Uses tools."""

    def is_idempotent(self, context: TaskContext, request: ToolRequest) -> bool:
        """Whether the call may be made twice."""

    async def use(self, context: TaskContext, request: ToolRequest, *, timeout_seconds: float) -> Outcome:
        """Return what the tool gave, or raise."""


class ProgramRunner(Protocol):
    """Runs programs in the sandbox."""

    def may_repeat(self, context: TaskContext, node: str) -> bool:
        """Whether the program of a node may be run twice."""

    async def run(self, context: TaskContext, node: str, request: CodeRequest) -> Outcome:
        """Return what came of the program of a node, or raise."""


class AgentCaller(Protocol):
    """Asks agents that someone else runs."""

    def reserve(self, context: TaskContext, request: AgentRequest) -> Reservation | None:
        """Return what a call costs and what that counts against; None: no budget holds.

        Raises:
            TerminalError: the price is unknown, so that a budget cannot be kept.
        """

    async def ask(
        self, context: TaskContext, request: AgentRequest, *, intent: CallIntent, timeout_seconds: float
    ) -> Outcome:
        """Return what an agent answers. The same intent is the same message, however often it is sent."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """A call that is to be sent."""

    context: TaskContext
    intent: CallIntent
    request: Call
    deadline: float
    """By the monotonic clock."""
    granted: int | None = None
    """Tokens of output that the budgets leave."""
    repeats: int = 0


@dataclass(slots=True)
class _UnderWay:
    """A call that is being made, and can be ended when nobody wants its answer any more."""

    intent: CallIntent
    limit: asyncio.Timeout
    unwanted: bool = False

    def end(self) -> None:
        if not self.limit.expired():
            self.unwanted = True
            self.limit.reschedule(0)


class Calls:
    """Makes calls on behalf of agents."""

    def __init__(  # noqa: PLR0913 - everything that a call may touch
        self,
        storage: Storage,
        clock: Clock,
        *,
        gateway: str,
        tasks: Tasks,
        models: ModelCaller,
        tools: ToolCaller,
        programs: ProgramRunner,
        agents: AgentCaller,
        wakeups: Wakeups,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._gateway = gateway
        self._tasks = tasks
        self._models = models
        self._tools = tools
        self._programs = programs
        self._agents = agents
        self._wakeups = wakeups
        self._flights: dict[_Place, asyncio.Task[CallReply]] = {}
        self._under_way: dict[_Place, _UnderWay] = {}
        self._locks: WeakValueDictionary[_Place, asyncio.Lock] = WeakValueDictionary()

    async def call(self, fence: Fence, request: Call) -> CallReply:
        """Return the answer of a call, from the record or from the world.

        Raises:
            Fenced: the claim is over.
            NonDeterministic: the key was used with another digest.
            Refused: the frozen workflow does not ask for it, or nobody has approved it.
        """
        context = await self._tasks.context(fence)
        check_call(context, request)
        await self._check_approval(fence, context, request)
        deadline = self._clock.monotonic() + request.timeout_seconds
        try:
            intent = self._intent(context, request)
        except TerminalError as error:  # a budget that cannot be kept, a Model that is wrong
            known = await self._storage.get_call(fence.task_id, request.key)
            if known is None:
                return CallReply(error=to_error_info(error))
            intent = replace(known.intent, gateway=self._gateway)  # prices change; what was begun goes on as it began
        async with self._lock((fence.task_id, request.key)):  # nobody takes a call over that has only just begun
            begun = await self._begin(fence, _Flight(context, intent, request, deadline))
        return begun if isinstance(begun, CallReply) else await self._join(begun)

    async def beat(self) -> None:
        """Say, until cancelled, that this gateway lives and that its calls are in good hands; end those in vain."""
        while True:
            try:
                await self._storage.beat_gateway(self._gateway, at=self._clock.now())
                await self._end_unwanted()
            except RetryableError as error:
                _log.warning("gateway_beat_missed", error=str(error))
            await self._clock.sleep(BEAT_SECONDS)

    async def _end_unwanted(self) -> None:
        """End the calls whose run, node or item is over: a program would keep its sandbox, an agent go on working.

        What a model was asked is paid for anyway, and only its whole answer says how much: it is waited for.
        """
        if self._under_way:
            for place in await self._storage.unwanted_calls([call.intent for call in self._under_way.values()]):
                if (call := self._under_way.get(place)) is not None:
                    call.end()

    async def drain(self, seconds: float) -> None:
        """Let calls in flight finish for a while. What is then still under way stays an intent, to be repeated."""
        flights = list(self._flights.values())
        if not flights:
            return
        _, left = await asyncio.wait(flights, timeout=seconds)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _check_approval(self, fence: Fence, context: TaskContext, request: Call) -> None:
        """Let a call that requires an approval pass only if this very call was approved."""
        tool = request.tool
        if tool is None or not tool_spec(context.document, tool.name).get("requireApproval"):
            return
        found = await self._storage.get_approval(fence.task_id, request.key)
        asked = tool.model_dump(mode="json", by_alias=True)
        if found is None or found.state is not ApprovalState.APPROVED or not _same(found.tool, asked):
            raise Refused(f"nobody has approved this call of the tool {tool.name}", reason="ApprovalRequired")

    async def _begin(self, fence: Fence, flight: _Flight) -> CallReply | asyncio.Task[CallReply]:
        """Return the answer that is there, or the call in flight; start it where there is neither."""
        intent, request = flight.intent, flight.request
        begun = await self._admit(fence, intent, flight.deadline)
        if isinstance(begun, CallReply):
            return begun
        record = begun.known
        if record is None:
            return self._launch(replace(flight, granted=begun.granted_output_tokens))
        if record.intent.digest != request.digest:
            raise NonDeterministic(f"call {request.key} was made with another request in an earlier attempt")
        known = self._flights.get((intent.task_id, intent.key))
        if known is not None:
            return known
        again = replace(intent, started_at=record.intent.started_at, reservation=record.intent.reservation)
        return await self._take_over(replace(flight, intent=again, granted=record.granted_output_tokens))

    async def _admit(self, fence: Fence, intent: CallIntent, deadline: float) -> Begun | CallReply:
        """Commit an intent; wait while only calls in flight keep it from fitting into its budgets.

        What does not fit is a failure that nothing is kept of: nothing was sent.
        """
        while True:
            settled = self._wakeups.arm(BUDGET_TOPIC)
            try:
                return await self._storage.begin_call(fence, intent)
            except OverBudget as error:
                if intent.reservation is None:
                    raise
                left = deadline - self._clock.monotonic()
                if not error.later or left <= 0:
                    return CallReply(error=to_error_info(budget_exceeded(error, intent.reservation)))
                await asyncio.wait((settled,), timeout=min(left, _BUDGET_SECONDS))
            finally:
                self._wakeups.disarm(settled, BUDGET_TOPIC)

    async def _take_over(self, flight: _Flight) -> CallReply | asyncio.Task[CallReply]:
        """Wait for the answer that another gateway will commit; if that gateway is dead, send the call again."""
        intent = flight.intent
        watch = _GatewayWatch(self._storage, self._clock)
        while True:
            found = await self._storage.get_call(intent.task_id, intent.key)
            if found is None:
                raise Unavailable(f"call {intent.key} is gone", retry_after=1)
            if found.state is CallState.DONE:
                return _replayed(found)
            owner = found.intent.gateway
            if owner == self._gateway or await watch.is_dead(owner):
                if not self._may_repeat(flight):
                    await self._give_up(flight, owner)
                elif (begun := await self._repeat(flight, owner)) is not None:
                    again = replace(flight, granted=begun.granted_output_tokens, repeats=found.repeats + 1)
                    return self._launch(again)
            else:
                await self._clock.sleep(_LOOK_SECONDS)

    def _may_repeat(self, flight: _Flight) -> bool:
        """Whether a call that nobody knows the outcome of may be made again."""
        context, request = flight.context, flight.request
        if request.tool is not None:
            return self._tools.is_idempotent(context, request.tool)
        return request.code is None or self._programs.may_repeat(context, request.node)

    async def _repeat(self, flight: _Flight, lost: str) -> Begun | None:
        """Take a call over; end it where the budgets do not allow another one beside the one that was lost."""
        intent = flight.intent
        try:
            begun = await self._storage.repeat_call(intent, lost=lost)
        except OverBudget as error:
            if intent.reservation is None:
                raise
            _log.warning("call_not_repeated", task=intent.task_id, key=intent.key, lost=lost, error=str(error))
            await self._commit(flight, _unseen(flight, budget_exceeded(error, intent.reservation)))
            return None
        if begun is not None:
            _log.warning("call_repeated", task=intent.task_id, key=intent.key, lost=lost)
        return begun

    async def _give_up(self, flight: _Flight, lost: str) -> None:
        """Commit that nobody knows what became of a call, unless its answer was committed after all."""
        intent = flight.intent
        error = OutcomeUnknown(
            f"the gateway died {_WHILE[intent.action].format(intent.target)}: nobody knows whether it did its work, "
            "and it may not do it twice; look for yourself, then run again from here"
        )
        _log.warning("call_outcome_unknown", task=intent.task_id, key=intent.key, lost=lost)
        await self._commit(replace(flight, repeats=0), Outcome.failed(to_error_info(error)))

    def _lock(self, place: _Place) -> asyncio.Lock:
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        return lock

    def _launch(self, flight: _Flight) -> asyncio.Task[CallReply]:
        intent = flight.intent
        flying = asyncio.create_task(self._fly(flight), name=f"call {intent.key}")
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

    async def _fly(self, flight: _Flight) -> CallReply:
        outcome = await self._perform(flight)
        try:
            await self._commit(flight, outcome)
        except Exception as error:  # noqa: BLE001 - it was paid for, and cannot be kept: numbers beyond measure, say
            outcome = _without_answer(outcome, error)
            await self._commit(flight, outcome)
        return outcome.reply

    async def _commit(self, flight: _Flight, outcome: Outcome) -> None:
        intent = flight.intent
        answer = build_answer(outcome, at=self._clock.now())
        span = build_span(
            flight.context,
            intent,
            flight.request,
            outcome=outcome,
            finished_at=answer.finished_at,
            repeats=flight.repeats,
        )
        while True:
            try:
                await self._storage.finish_call(intent.task_id, intent.key, answer, span=span)
            except RetryableError as error:  # the answer is paid for: it is kept until it can be committed
                _log.warning("call_not_committed", key=intent.key, error=str(error))
                await self._clock.sleep(_COMMIT_RETRY_SECONDS)
            else:
                return

    async def _perform(self, flight: _Flight) -> Outcome:
        request, intent = flight.request, flight.intent
        left = max(flight.deadline - self._clock.monotonic(), 0.0)
        this = _UnderWay(intent, asyncio.timeout(left))
        place = (intent.task_id, intent.key)
        if request.llm is None:
            self._under_way[place] = this
        try:
            async with this.limit:
                return await self._dispatch(flight, left)
        except FairleadError as error:
            return Outcome.failed(to_error_info(error))
        except TimeoutError:
            if this.unwanted:
                return _unseen(flight, TerminalError("it was ended: its run or node was over", reason="Cancelled"))
            late = RetryableError(f"no answer within {request.timeout_seconds:g} s", reason="Timeout")
            return _unseen(flight, late) if left else Outcome.failed(to_error_info(late))
        except Exception as error:  # noqa: BLE001 - a bug here must not leave the agent without an answer
            _log.exception("call_failed", key=request.key, action=request.action)
            bug = TerminalError(f"the gateway failed ({type(error).__name__}); see its log", reason="InternalError")
            return _unseen(flight, bug)
        finally:
            self._under_way.pop(place, None)

    async def _dispatch(self, flight: _Flight, seconds: float) -> Outcome:
        context, request = flight.context, flight.request
        if request.llm is not None:
            return await self._models.ask(
                context, request.llm, timeout_seconds=seconds, max_output_tokens=flight.granted
            )
        if request.tool is not None:
            return await self._tools.use(context, request.tool, timeout_seconds=seconds)
        if request.code is not None:
            return await self._programs.run(context, request.node, request.code)
        if request.agent is not None:
            return await self._agents.ask(context, request.agent, intent=flight.intent, timeout_seconds=seconds)
        raise InvalidObject(f"a call of action {request.action} has no request")

    def _intent(self, context: TaskContext, request: Call) -> CallIntent:
        target, reservation = "", None
        program: Mapping[str, Any] = {}
        if request.llm is not None:
            target = request.llm.model
            reservation = self._models.reserve(context, request.llm)
        elif request.tool is not None:
            target = request.tool.name
        elif request.code is not None:
            program = (context.node(request.node) or {}).get("code") or {}
            target = program.get("language") or ""
        elif request.agent is not None:
            target = request.agent.name
            reservation = self._agents.reserve(context, request.agent)
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
            request=describe_request(request, program),
            started_at=self._clock.now(),
            agent=context.agent,
            reservation=reservation,
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


def _unseen(flight: _Flight, error: FairleadError) -> Outcome:
    """Return the outcome of a call that may have been sent, and paid for."""
    return Outcome.lost(to_error_info(error), flight.intent.reservation, flight.granted)


def _without_answer(outcome: Outcome, error: Exception) -> Outcome:
    """Return what is left of an outcome that cannot be kept: that it is paid for."""
    if not isinstance(error, TerminalError):
        _log.error("answer_not_kept", error=f"{type(error).__name__}: {error}")
        error = TerminalError(f"the answer cannot be kept ({type(error).__name__})", reason="InternalError")
    reply = CallReply(error=to_error_info(error), usage=outcome.reply.usage, cost=outcome.reply.cost)
    return replace(outcome, reply=reply, attributes={})


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON; to Python, 0 and False are equal."""
    written = (orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in (one, other))
    return len(set(written)) == 1


def _replayed(record: CallRecord) -> CallReply:
    if record.answer is None:
        raise Unavailable(f"the answer of call {record.intent.key} is missing", retry_after=1)
    return CallReply.model_validate(record.answer.reply).model_copy(update={"replayed": True})
