"""The scheduler: it says what follows from the journal so far, and what may run now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from fairlead_agent.expressions import ExpressionError
from fairlead_agent.graph import entries as make
from fairlead_agent.graph import rules
from fairlead_agent.graph.endings import Endings, Outcome
from fairlead_agent.graph.frame import Frame, Lookup, Work
from fairlead_agent.graph.model import MAX_DEPTH, Graph, Node
from fairlead_agent.graph.parsing import parse_graph
from fairlead_agent.graph.paths import in_handler
from fairlead_agent.graph.reuse import Earlier
from fairlead_agent.graph.tries import Changes
from fairlead_agent.problems import GraphError, Problem
from fairlead_agent.protocol import (
    RESUME,
    CacheAnswer,
    Entry,
    ErrorInfo,
    Kind,
    Rerun,
    State,
    Task,
    Wait,
    WaitFor,
)

_REASONS: Final = (WaitFor.APPROVAL, WaitFor.TURN, WaitFor.TIME)
"""What people care for most comes first."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What everything waits for."""

    keys: tuple[str, ...]
    """Of signals; any of them lets something go on."""
    wake_at: datetime | None
    reason: str
    """``Approval``, ``Turn``, ``Time`` or ``Suspended``."""


class Schedule(Endings):
    """A run as its engine drives it. `apply` reads what was; the other methods say what is to be appended.

    What they return is applied already. The caller appends it to the journal, and follows `changes` only when it is
    committed; if that fails, the whole schedule is dropped. All times are the scheduler's: it has to be told at
    `wake_at` that they have come.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        inputs: Mapping[str, Any],
        run: Mapping[str, Any],
        workflows: Mapping[str, Mapping[str, Any]] | None = None,
        definitions: Mapping[str, str] | None = None,
        rerun: Rerun | None = None,
    ) -> None:
        super().__init__(graph, inputs=inputs, run=run, workflows=workflows, definitions=definitions, rerun=rerun)
        self._earlier = Earlier(rerun)
        self._held: list[tuple[Work, datetime]] = []
        """Pauses that ended while the run was suspended."""

    @classmethod
    def of(cls, task: Task) -> Self:
        """Return the schedule of a task, its journal and signals read.

        Raises:
            GraphError: the workflow is wrong.
        """
        schedule = cls(
            parse_graph(task.spec),
            inputs=task.inputs,
            run=task.run.model_dump(by_alias=True),
            workflows=task.workflows,
            definitions=task.definitions,
            rerun=task.rerun,
        )
        for entry in task.journal:
            schedule.apply(entry)
        for signal in task.signals:
            schedule.woken(signal.key)
        schedule.suspended = task.suspended
        return schedule

    @property
    def waits(self) -> Mapping[Work, Wait]:
        """What open tries wait for."""
        return self._tries.waits

    @property
    def wake_at(self) -> datetime | None:
        """When to call `advance`, whatever else happens."""
        return self._tries.wake_at

    @property
    def suspended(self) -> bool:
        """Whether nothing new may start. Call `advance` after it was set to False."""
        return self._suspended

    @suspended.setter
    def suspended(self, suspended: bool) -> None:
        self._suspended = suspended
        if not suspended:
            self._resume()

    def _apply_ending(self, frame: Frame, entry: Entry) -> None:
        super()._apply_ending(frame, entry)
        if frame is self._root:  # from here on handlers run, also in a suspended run
            self._resume()

    def _resume(self) -> None:
        """Let go on what a suspension held back."""
        for work, when in self._held:
            if work in self._tries.delayed:
                self._tries.set_time(work, when)
        self._held.clear()
        for frame in self._frames.values():
            frame.fed.extend(frame.items)
            self._stirred[frame] = None

    def changes(self) -> Changes:
        """Return which tries to begin and to end since the last call."""
        return self._tries.changes()

    def idle(self) -> Idle | None:
        """Return what everything waits for; None while something goes on or may go on.

        Raises:
            RuntimeError: nothing could ever go on. That is a bug.
        """
        tries = self._tries
        if self.ended is not None or len(tries.open) > len(tries.waits) or self._stirred or self._closing or self._own:
            return None
        if self._is_held:
            return Idle((RESUME,), None, "Suspended")
        kinds = {wait.kind for wait in tries.waits.values()}
        if not kinds and tries.wake_at is None:
            raise RuntimeError("nothing runs, and the run has not ended")
        reason = next((one for one in _REASONS if one in kinds), WaitFor.TIME)
        return Idle(tuple(wait.key for wait in tries.waits.values()), tries.wake_at, reason.value)

    def advance(self, at: datetime) -> list[Entry]:
        """Return the entries that follow from what is known, and from what the time has come for."""
        return self._applied(self._following(at))

    def outcome(self, work: Work, outcome: Outcome, at: datetime) -> list[Entry]:
        """Return what to append when a try has ended; nothing if nobody waits for it any more."""
        if work.lookup is not None or work not in self._tries.open:
            return []
        self._tries.reported(work)
        return self._applied([self._ended_try(work, outcome, at)])

    def waiting(self, work: Work, wait: Wait, at: datetime) -> list[Entry]:
        """Return what to append when a try begins to wait; nothing if that is known or nobody cares."""
        known = self._tries.waits.get(work)
        if work not in self._tries.open or (known is not None and known.key == wait.key):
            return []
        entry = make.started(work, at).model_copy(
            update={"kind": Kind.WAITING, "try_number": work.try_number, "wait": wait}
        )
        return self._applied([entry])

    def woken(self, key: str) -> None:
        """Let the try that waits for the signal *key* count as running again."""
        self._tries.woken(key)

    def looked_up(self, work: Work, answer: CacheAnswer, at: datetime) -> list[Entry]:
        """Return what to append when the cache has answered."""
        if work.lookup is None or work not in self._tries.open:
            return []
        self._tries.reported(work)
        self._tries.close(work.key)
        frame, name = self._place(work.node)
        tried = Work(work.node, work.item, work.iteration)
        if answer.found:
            used = {"reason": "Cached", "reused": answer.run, "digest": work.lookup.digest}
            return self._applied([self._succeeded(tried, answer.output, at, **used)])
        if not self._is_held:
            return self._applied([make.started(tried, at)])
        if work.item is None:
            frame.ready.append(name)
        else:
            frame.items_of(name).put_back(work.item)
        return []

    def end(self, reason: str, at: datetime) -> list[Entry]:
        """End the run for `STOPPED` or `TIMEOUT`, unless it ends already; return what to append."""
        self._asked = self._asked or reason
        return self.advance(at)

    def _applied(self, entries: Iterable[Entry]) -> list[Entry]:
        done = []
        for entry in entries:
            self.apply(entry)
            done.append(entry)
        return done

    def _following(self, at: datetime) -> Iterator[Entry]:
        while self.ended is None:
            if self._own:
                yield from self._begin_own(next(iter(self._own)), at)
            elif self._asked and self.ending is None:
                yield make.ending_for(self._asked, at)
            elif self._closing:  # before anything begins that would only be cancelled
                yield from self._within(next(iter(self._closing)), at)
            elif (due := self._tries.take_due(at)) is not None:
                yield from self._come(*due, at)
            elif self._stirred:
                frame = next(iter(self._stirred))
                yield from self._within(frame, at)
            else:
                return

    def _come(self, work: Work, when: datetime, at: datetime) -> Iterator[Entry]:
        """Do what the time has come for."""
        node = self.node(work)
        if work in self._tries.delayed:
            if self._is_held:
                self._held.append((work, when))
            else:
                self._begin(node, work)
        elif node.action == "wait":
            yield self._succeeded(work, {"until": when.isoformat().replace("+00:00", "Z")}, at)
        else:
            limits = [node.timeout_seconds, *self._limits_inside(node)]
            error = make.timed_out(min((limit for limit in limits if limit), default=None))
            yield from self._fail_within(work, make.TIMEOUT, error, at)

    def _limits_inside(self, node: Node) -> list[float | None]:
        return [self._graph_of(node.config["name"]).timeout_seconds] if node.action == "workflow" else []

    def _begin_own(self, work: Work, at: datetime) -> Iterator[Entry]:
        """Begin a try that needs no engine."""
        frame, name = self._place(work.node)
        node = frame.graph.node(name)
        try:
            if node.action == "wait":
                until: datetime | None = rules.wait_until(node, frame.scope(name, work.item), at)
            else:
                until = self._deadline(frame, node, work, at)
        except ExpressionError as error:
            yield self._ended_try(work, Outcome(error=make.expression_error(error)), at)
            return
        except GraphError as error:
            info = ErrorInfo(reason=error.problems[0].reason, message=str(error), retryable=False)
            yield self._ended_try(work, Outcome(error=info), at)
            return
        if until is not None:
            wait = Wait(kind=WaitFor.TIME, until=until)
            started = make.started(work, at)
            yield started.model_copy(update={"kind": Kind.WAITING, "try_number": work.try_number, "wait": wait})

    def _deadline(self, frame: Frame, node: Node, work: Work, at: datetime) -> datetime | None:
        """Enter the workflow of a node; return when it must be over, if that is to be fixed now.

        Raises:
            ExpressionError: an input could not be rendered.
            GraphError: the workflow or its inputs are wrong.
        """
        if frame.depth >= MAX_DEPTH:
            raise GraphError([Problem("workflow.name", f"workflows run each other more than {MAX_DEPTH} deep")])
        inner = self._enter(work)
        if self._tries.has_time(work):
            return None
        return rules.deadline(at, node.timeout_seconds, inner.graph.timeout_seconds)

    def _within(self, frame: Frame, at: datetime) -> Iterator[Entry]:
        """Do the next thing that follows in a workflow, if there is one."""
        if frame.ending is not None:
            yield from self._wind_up(frame, frame.ending, at)
        elif frame.failure is not None:
            yield from self._fail(frame, frame.failure, at)
        elif frame.undecided:
            yield from self._decide(frame, next(iter(frame.undecided)), at)
        elif frame.ready and not self._is_held:
            yield from self._begin_node(frame, frame.ready.popleft(), at)
        elif frame.fed:
            yield from self._feed(frame, frame.fed.popleft(), at)
        elif frame.complete:
            yield from self._complete(frame, at)
        else:
            self._stirred.pop(frame, None)

    def _begin_node(self, frame: Frame, name: str, at: datetime) -> Iterator[Entry]:
        node = frame.graph.nodes[name]
        work = Work(frame.prefix + name, None, frame.iteration(name))
        if not frame.may_begin(name) or work.key in self._tries.current:
            return
        if node.needs and all(frame.states[need] is State.SKIPPED for need in node.needs):
            yield make.finished(work, State.SKIPPED, at, reason="NeedsSkipped")
            return
        try:
            if not rules.holds(node.when, frame.scope(name), "when"):
                yield make.finished(work, State.SKIPPED, at, reason="WhenFalse")
                return
            if node.for_each is not None:
                frame.items_of(name).load(frame.scope(name))
            entry = self._first(frame, node, work, at)
        except ExpressionError as error:
            yield make.failed(work, make.expression_error(error), at, goes_on=node.continue_on_error)
            return
        if entry is not None:
            yield entry

    def _first(self, frame: Frame, node: Node, work: Work, at: datetime) -> Entry | None:
        """Return how a node or item begins: it is used again, it is looked up (None), or it starts.

        Raises:
            ExpressionError: ``cache.key`` failed.
        """
        looks_up = node.cache is not None and (node.for_each is None or work.item is not None)
        forced = frame.forced is None or node.name in frame.forced
        acts_on_end = in_handler(work.node)
        compares = not forced and not acts_on_end and self._earlier.knows(work)
        digest = self._digests.of(frame, node, work.item) if compares or looks_up else ""
        earlier = self._earlier.find(work, digest) if compares else None
        if earlier is not None:
            return self._succeeded(work, earlier.output, at, reason="Reused", reused=self._earlier.uid, digest=digest)
        if node.cache is None or forced or not digest:
            return make.started(work, at)
        lookup = Lookup(digest, node.cache.ttl_seconds)
        self._tries.begin(Work(work.node, work.item, work.iteration, lookup=lookup), by_engine=True)
        if work.item is not None:
            frame.items_of(node.name).looking.add(work.item)
        return None

    def _feed(self, frame: Frame, name: str, at: datetime) -> Iterator[Entry]:
        """Start items as long as there is room, and finish the node when they are finished."""
        if name in frame.states or name not in frame.started:
            return
        node, items = frame.graph.nodes[name], frame.items_of(name)
        work = Work(frame.prefix + name, None, frame.iteration(name))
        try:
            items.load(frame.scope(name))
        except ExpressionError as error:
            yield from self._fail_items(frame, work, make.expression_error(error), at, reason="NodeFailed")
            return
        while items.failed is None and not self._is_held and (key := items.take()) is not None:
            yield from self._begin_item(frame, node, Work(work.node, key, work.iteration), at)
        if items.failed is not None:
            yield from self._fail_items(frame, work, make.item_error(items.failed), at, reason=make.ITEM_FAILED)
        elif items.complete:
            yield self._succeeded(work, items.output(), at)

    def _begin_item(self, frame: Frame, node: Node, work: Work, at: datetime) -> Iterator[Entry]:
        try:
            entry = self._first(frame, node, work, at)
        except ExpressionError as error:
            yield make.failed(work, make.expression_error(error), at, goes_on=node.continue_on_error)
            return
        if entry is not None:
            yield entry

    def _decide(self, frame: Frame, end: str, at: datetime) -> Iterator[Entry]:
        """Go back to where a ``repeat`` begins, or let those go on who wait for its end."""
        node = frame.graph.nodes[end]
        if frame.states[end] is State.SUCCEEDED and rules.goes_back(frame, node):
            yield Entry(kind=Kind.REPEATED, node=frame.prefix + end, iteration=frame.iteration(end) + 1, at=at)
        else:
            frame.settle(end)


def step(
    graph: Graph, journal: Iterable[Entry], *, inputs: Mapping[str, Any], run: Mapping[str, Any], at: datetime
) -> tuple[list[Entry], list[Work]]:
    """Return what follows from *journal*: entries to append, and then what should be under way."""
    schedule = Schedule(graph, inputs=inputs, run=run)
    for entry in journal:
        schedule.apply(entry)
    return schedule.advance(at), list(schedule.open)
