"""How tries, nodes and workflows end: what follows in the journal, until the last handler has run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fairlead_agent.graph import entries as make
from fairlead_agent.graph import rules
from fairlead_agent.graph.digests import Digests
from fairlead_agent.graph.frame import Frame, Work
from fairlead_agent.graph.model import Graph
from fairlead_agent.graph.nesting import has_handlers, workflow_names
from fairlead_agent.graph.paths import FINALLY, HANDLERS
from fairlead_agent.graph.state import RunState
from fairlead_agent.protocol import Entry, ErrorInfo, Kind, Rerun, State


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended: with an error, or with its output."""

    output: Any = None
    error: ErrorInfo | None = None


class Endings(RunState):
    """The part of a `fairlead_agent.graph.Schedule` that ends what is under way.

    A workflow with handlers ends in steps, the run's own and those inside alike: an entry settles how it will end; then
    its nodes end, those that run workflows with handlers when these have run; then its own handlers run; then it ends.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        inputs: Mapping[str, Any],
        run: Mapping[str, Any],
        workflows: Mapping[str, Mapping[str, Any]] | None,
        definitions: Mapping[str, str] | None,
        rerun: Rerun | None,
    ) -> None:
        super().__init__(graph, inputs=inputs, run=run, workflows=workflows, rerun=rerun)
        self._digests = Digests(definitions or {}, self._workflows)
        self._suspended = False
        self._handled_inside: dict[str, bool] = {}
        """By the name of a workflow: whether there are handlers in those that it runs."""
        self._asked = ""
        """Why the run is to end, if somebody wants it."""

    @property
    def _is_held(self) -> bool:
        return self._suspended and self.ending is None

    def _ended_try(self, work: Work, outcome: Outcome, at: datetime) -> Entry:
        if outcome.error is None:
            return self._succeeded(work, outcome.output, at)
        return self._failed_try(work, outcome.error, at)

    def _failed_try(self, work: Work, error: ErrorInfo, at: datetime) -> Entry:
        frame, name = self._place(work.node)
        node = frame.graph.node(name)
        if not node.retry.grants(work.try_number, error.reason, retryable=error.retryable):
            return make.failed(work, error, at, goes_on=node.continue_on_error)
        if reason := self._taken_along(frame, name, work):
            return make.finished(work, State.CANCELLED, at, reason=reason)
        asked = min(error.retry_after_seconds or 0.0, node.retry.max_backoff_seconds)
        pause = timedelta(seconds=max(node.retry.delay(work.try_number), asked))
        return make.try_failed(work, error, at, retry_at=at + pause)

    @staticmethod
    def _taken_along(frame: Frame, name: str, work: Work) -> str:
        """Return why there is no other try: what it is part of ends; empty if it does not."""
        if frame.ending is not None and name not in HANDLERS:
            return make.taken_along(frame.ending)
        failed = work.item is not None and frame.items_of(name).failed is not None
        return make.ITEM_FAILED if failed else ""

    def _succeeded(self, work: Work, output: Any, at: datetime, **used: Any) -> Entry:
        frame, name = self._place(work.node)
        node = frame.graph.node(name)
        is_try = node.for_each is None or work.item is not None
        unkept = None if used else make.output_error(output)
        if unkept is not None and is_try:
            return self._failed_try(work, unkept, at)
        error = unkept or rules.repeat_error(frame, node, work, output)
        if error is not None:
            return make.failed(work, error, at, goes_on=node.continue_on_error)
        if not used:
            used = {"digest": self._digests.of(frame, node, work.item)}
            if node.cache is not None and is_try:
                used["cache_seconds"] = node.cache.ttl_seconds
        return make.finished(work, State.SUCCEEDED, at, output=output, **used)

    def _complete(self, frame: Frame, at: datetime) -> Iterator[Entry]:
        """End a workflow whose nodes have all run, or begin to."""
        output, error = rules.result(frame)
        end = make.ending(frame.work, State.SUCCEEDED if error is None else State.FAILED, at, error=error)
        if rules.wanted(frame, end.state):
            yield end
        elif frame.work is not None:
            yield self._ended_try(frame.work, Outcome(output, error), at)
        else:
            yield end.model_copy(update={"kind": Kind.RUN_FINISHED, "output": output})

    def _fail(self, frame: Frame, failure: Entry, at: datetime) -> Iterator[Entry]:
        """Begin to end a workflow because one of its nodes failed."""
        reason, error = make.node_failed(failure, failure.node.removeprefix(frame.prefix))
        if frame.work is None:
            yield make.ending(None, State.FAILED, at, reason=reason, error=error)
        else:
            yield from self._fail_within(frame.work, reason, error, at)

    def _fail_within(self, work: Work, reason: str, error: ErrorInfo, at: datetime) -> Iterator[Entry]:
        """End a try of a ``workflow`` node that failed, or begin to."""
        end = make.ending(work, State.FAILED, at, reason=reason, error=error)
        inner = self._frames.get(work.prefix)
        if inner is not None and self._lingers(inner, State.FAILED):
            yield end
            return
        if inner is not None:
            yield from self._close(inner, make.taken_along(end), at)
        yield self._ended_try(work, Outcome(error=error), at)

    def _lingers(self, frame: Frame, state: State) -> bool:
        """Whether handlers may have to run, there or inside, before a workflow is over that ends so."""
        name = frame.workflow
        if name not in self._handled_inside:
            inside = workflow_names(self._workflows[name])
            self._handled_inside[name] = has_handlers(inside, self._workflows)
        return self._handled_inside[name] or bool(rules.wanted(frame, state))

    def _wind_up(self, frame: Frame, ending: Entry, at: datetime) -> Iterator[Entry]:
        """Do the next thing that ends a workflow: first its nodes, then its handlers, then itself."""
        self._closing.pop(frame, None)
        self._stirred.pop(frame, None)
        yield from self._close(frame, make.taken_along(ending), at)
        if len(frame.states) < len(frame.graph.nodes):
            return  # handlers inside have their turn first
        for path in rules.wanted(frame, ending.state):
            if path in frame.handled:
                continue
            if path not in frame.started and not self._is_held:
                yield make.started(Work(frame.prefix + path), at)
            return
        yield self._last(frame, ending, at)

    def _last(self, frame: Frame, ending: Entry, at: datetime) -> Entry:
        """Return the entry that ends a workflow whose handlers have run."""
        state, reason, error = ending.state, ending.reason, ending.error
        last = frame.handled.get(FINALLY)
        if state is State.SUCCEEDED and last is not None and last.state is State.FAILED:
            state, reason, error = State.FAILED, make.FINALLY_FAILED, make.node_failed(last, FINALLY)[1]
        output = rules.result(frame)[0] if state is State.SUCCEEDED else None
        if frame.work is None:
            end = {"kind": Kind.RUN_FINISHED, "at": at, "state": state, "reason": reason, "error": error}
            return ending.model_copy(update={**end, "output": output})
        if state is State.CANCELLED:
            return make.finished(frame.work, State.CANCELLED, at, reason=reason)
        if error is not None and reason == make.FINALLY_FAILED:
            error = error.model_copy(update={"reason": reason})
        return self._ended_try(frame.work, Outcome(output, error), at)

    def _close(self, frame: Frame, reason: str, at: datetime) -> Iterator[Entry]:
        """End the nodes of a workflow that are not finished, but for those inside which handlers run first."""
        downstream = rules.downstream_of_failures(frame)
        for name in frame.graph.nodes:
            if name in frame.states:
                continue
            work = Work(frame.prefix + name, None, frame.iteration(name))
            if name not in frame.started:
                why = "UpstreamFailed" if name in downstream else reason
                yield make.finished(work, State.SKIPPED, at, reason=why)
                continue
            yield from self._cancel_items(frame, name, reason, at)
            if name not in frame.items or not frame.items[name].started:
                yield from self._cancel(self._tries.current.get(work.key, work), reason, at)

    def _cancel(self, work: Work, reason: str, at: datetime) -> Iterator[Entry]:
        """End a node or item that has started, or begin to."""
        inner = self._frames.get(work.prefix)
        if inner is not None:
            if inner.ending is not None:
                return
            if self._lingers(inner, State.CANCELLED):
                yield make.cancelling(work, reason, at)
                return
            yield from self._close(inner, reason, at)
        yield make.finished(work, State.CANCELLED, at, reason=reason)

    def _cancel_items(self, frame: Frame, name: str, reason: str, at: datetime) -> Iterator[Entry]:
        if name not in frame.items:
            return
        items = frame.items[name]
        if items.cancelled:  # what still runs ends by itself
            return
        items.cancelled = True
        for key in sorted(items.looking):
            self._leave((frame.prefix + name, key))
        items.looking.clear()
        for key in sorted(items.started):
            yield from self._cancel(self._tries.current[frame.prefix + name, key], reason, at)

    def _fail_items(self, frame: Frame, work: Work, error: ErrorInfo, at: datetime, *, reason: str) -> Iterator[Entry]:
        """End a node with ``forEach`` that failed, when its items are over."""
        name = work.node.removeprefix(frame.prefix)
        yield from self._cancel_items(frame, name, reason, at)
        if not frame.items_of(name).started:
            yield make.failed(work, error, at, goes_on=frame.graph.nodes[name].continue_on_error)
