"""The scheduler: a state machine folded over the journal. It says what follows from an entry, and what may run now."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fairlead_agent.expressions import ExpressionError, Scope, kind, render
from fairlead_agent.graph.items import Items
from fairlead_agent.graph.model import Graph, Node
from fairlead_agent.protocol import Entry, ErrorInfo, Kind, Progress, State

MAX_OUTPUT: Final = 1 << 20
"""The most bytes that an output may take, as JSON."""
MAX_CURRENT: Final = 10

STOPPED: Final = "Stopped"
TIMEOUT: Final = "Timeout"
_ENDINGS: Final = {
    STOPPED: (State.CANCELLED, "the run was stopped"),
    TIMEOUT: (State.FAILED, "the run took longer than its timeoutSeconds"),
}


@dataclass(frozen=True, slots=True)
class Work:
    """A try of a node, or of one of its items, that should be under way."""

    node: str
    item: str | None = None
    try_number: int = 1
    not_before: datetime | None = None

    @property
    def key(self) -> tuple[str, str | None]:
        """What it is a try of."""
        return self.node, self.item


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended: with an error, or with its output."""

    output: Any = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class _Ending:
    """Why the run ends before all nodes have run."""

    state: State
    reason: str
    error: ErrorInfo
    nodes: str
    """The reason of the nodes that it takes with it."""


class Schedule:
    """The state of one run. `apply` reads what was; `advance`, `outcome` and `end` say what is to be appended.

    What they return is applied already. The caller appends it to the journal, and starts `open` only when it is
    committed; if that fails, the whole schedule is dropped.
    """

    def __init__(self, graph: Graph, *, inputs: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        self.graph = graph
        self.outputs: dict[str, Any] = {}
        self.states: dict[str, State] = {}
        """Of the nodes that are finished."""
        self.started: set[str] = set()
        self.open: dict[tuple[str, str | None], Work] = {}
        """What should be under way now."""
        self.ended: Entry | None = None
        self._variables = {"inputs": inputs, "outputs": self.outputs, "run": run, "iteration": 1}
        self._scopes: dict[str, Scope] = {}
        self._items: dict[str, Items] = {}
        self._missing = {name: len(node.needs) for name, node in graph.nodes.items()}
        self._ready = deque(name for name, missing in self._missing.items() if not missing)
        self._fed: deque[str] = deque()
        self._ending: _Ending | None = None

    def apply(self, entry: Entry) -> None:
        """Take note of one entry of the journal."""
        key = (entry.node, entry.item)
        match entry.kind:
            case Kind.NODE_STARTED:
                self.started.add(entry.node)
                if self.graph.nodes[entry.node].for_each is None:
                    self.open[key] = Work(entry.node)
                else:
                    self._fed.append(entry.node)
            case Kind.ITEM_STARTED:
                self._items_of(entry.node).started.add(entry.item or "")
                self.open[key] = Work(entry.node, entry.item)
            case Kind.TRY_FAILED:
                self.open[key] = Work(entry.node, entry.item, entry.try_number + 1, entry.retry_at)
            case Kind.ITEM_FINISHED:
                self._apply_item(entry)
            case Kind.NODE_FINISHED:
                self._apply_node(entry)
            case Kind.RUN_FINISHED:
                self.ended = entry
                self.open.clear()

    def _apply_item(self, entry: Entry) -> None:
        self.open.pop((entry.node, entry.item), None)
        self._items_of(entry.node).finish(entry)
        self._fed.append(entry.node)
        self._note_ending(entry)

    def _apply_node(self, entry: Entry) -> None:
        name, state = entry.node, entry.state or State.SUCCEEDED
        self.open.pop((name, None), None)
        self._scopes.pop(name, None)
        self._items.pop(name, None)
        self.states[name] = state
        self.outputs[name] = entry.output
        for dependent in self.graph.dependents[name]:
            self._missing[dependent] -= 1
            if not self._missing[dependent]:
                self._ready.append(dependent)
        if state is State.FAILED and not self.graph.nodes[name].continue_on_error and self._ending is None:
            error = entry.error or ErrorInfo(reason="NodeFailed", message="it failed")
            named = error.model_copy(update={"message": f'node "{name}": {error.message}'})
            self._ending = _Ending(State.FAILED, "NodeFailed", named, "RunFailed")
        self._note_ending(entry)

    def _note_ending(self, entry: Entry) -> None:
        """Go on ending a run that an earlier attempt had begun to end."""
        if entry.state in (State.CANCELLED, State.SKIPPED) and entry.reason in _ENDINGS and self._ending is None:
            self._ending = _ending(entry.reason)

    def advance(self, at: datetime) -> list[Entry]:
        """Return the entries that follow from what is known."""
        return list(self._applied(self._following(at)))

    def _applied(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self.apply(entry)
            yield entry

    def _following(self, at: datetime) -> Iterator[Entry]:
        while self.ended is None:
            if self._ending is not None:
                yield from self._close(self._ending, at)
            elif self._ready:
                yield from self._begin(self._ready.popleft(), at)
            elif self._fed:
                yield from self._feed(self._fed.popleft(), at)
            elif len(self.states) == len(self.graph.nodes):
                yield self._finish(at)
            else:
                return

    def _begin(self, name: str, at: datetime) -> Iterator[Entry]:
        if name in self.started or name in self.states:
            return
        node = self.graph.nodes[name]
        if node.needs and all(self.states[need] is State.SKIPPED for need in node.needs):
            yield _skipped(name, "NeedsSkipped", at)
            return
        try:
            wanted = node.when is None or self._is_true(node)
            if wanted and node.for_each is not None:
                self._items_of(name).load(self.scope(name))
        except ExpressionError as error:
            yield self._failed(node, _expression_error(error), at)
            return
        yield Entry(kind=Kind.NODE_STARTED, node=name, at=at) if wanted else _skipped(name, "WhenFalse", at)

    def _is_true(self, node: Node) -> bool:
        if node.when is None:
            return True
        value = self.scope(node.name).evaluate(node.when)
        if not isinstance(value, bool):
            raise ExpressionError(f'when "{node.when.source}" gives {kind(value)}, not true or false')
        return value

    def _feed(self, name: str, at: datetime) -> Iterator[Entry]:
        """Start items as long as there is room, and finish the node when they are finished."""
        if name in self.states:
            return
        node, items = self.graph.nodes[name], self._items_of(name)
        try:
            items.load(self.scope(name))
        except ExpressionError as error:
            yield from self._cancel_items(name, "NodeFailed", at)
            yield self._failed(node, _expression_error(error), at)
            return
        if items.failed is not None:
            yield from self._cancel_items(name, "ItemFailed", at)
            yield self._failed(node, _item_error(items.failed), at)
            return
        while (key := items.take()) is not None:
            yield Entry(kind=Kind.ITEM_STARTED, node=name, item=key, at=at)
        if items.complete:
            yield self._succeeded(Work(name), items.output(), at)

    def _cancel_items(self, name: str, reason: str, at: datetime) -> Iterator[Entry]:
        waiting = sorted(self._items_of(name).started - self._items_of(name).finished.keys())
        for key in waiting:
            cancelled = Entry(kind=Kind.ITEM_FINISHED, node=name, item=key, at=at, state=State.CANCELLED, reason=reason)
            yield cancelled

    def outcome(self, work: Work, outcome: Outcome, at: datetime) -> list[Entry]:
        """Return what to append when a try has ended; nothing if nobody waits for it any more."""
        if self.open.get(work.key) != work:
            return []
        return list(self._applied([self._ended_try(work, outcome, at)]))

    def _ended_try(self, work: Work, outcome: Outcome, at: datetime) -> Entry:
        if outcome.error is None:
            return self._succeeded(work, outcome.output, at)
        error, retry = outcome.error, self.graph.nodes[work.node].retry
        if not retry.grants(work.try_number, error.reason, retryable=error.retryable):
            return self._failed(self.graph.nodes[work.node], error, at, work=work)
        asked = min(error.retry_after_seconds or 0.0, retry.max_backoff_seconds)
        return Entry(
            kind=Kind.TRY_FAILED,
            node=work.node,
            item=work.item,
            try_number=work.try_number,
            error=error,
            at=at,
            retry_at=at + timedelta(seconds=max(retry.delay(work.try_number), asked)),
        )

    def _succeeded(self, work: Work, output: Any, at: datetime) -> Entry:
        size = output_size(output)
        if size > MAX_OUTPUT:
            return self._failed(self.graph.nodes[work.node], _too_large(size), at, work=work)
        return Entry(
            kind=Kind.NODE_FINISHED if work.item is None else Kind.ITEM_FINISHED,
            node=work.node,
            item=work.item,
            try_number=work.try_number,
            at=at,
            state=State.SUCCEEDED,
            output=output,
        )

    def _failed(self, node: Node, error: ErrorInfo, at: datetime, *, work: Work | None = None) -> Entry:
        ended = work or Work(node.name)
        return Entry(
            kind=Kind.NODE_FINISHED if ended.item is None else Kind.ITEM_FINISHED,
            node=ended.node,
            item=ended.item,
            try_number=ended.try_number,
            at=at,
            state=State.FAILED,
            error=error,
            reason=error.reason,
            output={"reason": error.reason, "message": error.message} if node.continue_on_error else None,
        )

    def end(self, reason: str, at: datetime) -> list[Entry]:
        """End the run for `STOPPED` or `TIMEOUT`; return what to append."""
        if self._ending is None:
            self._ending = _ending(reason)
        return self.advance(at)

    def _close(self, ending: _Ending, at: datetime) -> Iterator[Entry]:
        downstream = self._downstream_of_failures()
        for name in self.graph.nodes:
            if name in self.states:
                continue
            yield from self._cancel_items(name, ending.nodes, at)
            if name in self.started:
                yield Entry(kind=Kind.NODE_FINISHED, node=name, at=at, state=State.CANCELLED, reason=ending.nodes)
            else:
                yield _skipped(name, "UpstreamFailed" if name in downstream else ending.nodes, at)
        yield Entry(kind=Kind.RUN_FINISHED, at=at, state=ending.state, reason=ending.reason, error=ending.error)

    def _downstream_of_failures(self) -> set[str]:
        nodes = self.graph.nodes
        failed = [n for n, state in self.states.items() if state is State.FAILED and not nodes[n].continue_on_error]
        reached: set[str] = set()
        while failed:
            new = set(self.graph.dependents[failed.pop()]) - reached
            reached |= new
            failed.extend(new)
        return reached

    def _finish(self, at: datetime) -> Entry:
        """End a run whose nodes have all run."""
        try:
            output = self._output()
        except ExpressionError as error:
            failure = _expression_error(error, "output: ")
        else:
            size = output_size(output)
            if size <= MAX_OUTPUT:
                reason = State.SUCCEEDED.value
                return Entry(kind=Kind.RUN_FINISHED, at=at, state=State.SUCCEEDED, reason=reason, output=output)
            failure = _too_large(size)
        return Entry(kind=Kind.RUN_FINISHED, at=at, state=State.FAILED, reason=failure.reason, error=failure)

    def _output(self) -> Any:
        if self.graph.output is None:
            return {name: self.outputs[name] for name in self.graph.leaves}
        return render(self.graph.output, self._variables)

    def scope(self, name: str, item: str | None = None) -> Scope:
        """Return the values that a node, or one of its items, sees."""
        if name not in self._scopes:
            self._scopes[name] = Scope(self._variables)
        if item is None:
            return self._scopes[name]
        items = self._items_of(name)
        items.load(self._scopes[name])
        return self._scopes[name].bind(**items.variables(item))

    def progress(self) -> Progress:
        """Return the summary for people."""
        current = [name for name in self.graph.nodes if name in self.started and name not in self.states]
        return Progress(done=len(self.states), total=len(self.graph.nodes), current=tuple(current[:MAX_CURRENT]))

    def _items_of(self, name: str) -> Items:
        if name not in self._items:
            self._items[name] = Items(self.graph.nodes[name])
        return self._items[name]


def step(
    graph: Graph, journal: Iterable[Entry], *, inputs: Mapping[str, Any], run: Mapping[str, Any], at: datetime
) -> tuple[list[Entry], list[Work]]:
    """Return what follows from *journal*: entries to append, and then what should be under way."""
    schedule = Schedule(graph, inputs=inputs, run=run)
    for entry in journal:
        schedule.apply(entry)
    return schedule.advance(at), list(schedule.open.values())


def output_size(output: Any) -> int:
    """Return how many bytes *output* takes as JSON."""
    text = json.dumps(output, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return len(text.encode(errors="surrogatepass"))


def _skipped(name: str, reason: str, at: datetime) -> Entry:
    return Entry(kind=Kind.NODE_FINISHED, node=name, at=at, state=State.SKIPPED, reason=reason)


def _ending(reason: str) -> _Ending:
    state, message = _ENDINGS[reason]
    return _Ending(state, reason, ErrorInfo(reason=reason, message=message, retryable=False), reason)


def _expression_error(error: ExpressionError, prefix: str = "") -> ErrorInfo:
    return ErrorInfo(reason="ExpressionError", message=f"{prefix}{error}", retryable=False)


def _item_error(entry: Entry) -> ErrorInfo:
    error = entry.error or ErrorInfo(reason="ItemFailed", message="it failed")
    return error.model_copy(update={"message": f"item {entry.item}: {error.message}"})


def _too_large(size: int) -> ErrorInfo:
    text = f"the output takes {size} bytes, at most {MAX_OUTPUT} are kept: return less, or a part of it"
    return ErrorInfo(reason="OutputTooLarge", message=text, retryable=False)
