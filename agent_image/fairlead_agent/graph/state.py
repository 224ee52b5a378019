"""What is known of a run: the journal, folded. Nothing is concluded here."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from fairlead_agent.expressions import Scope, render
from fairlead_agent.graph.frame import Frame, Work
from fairlead_agent.graph.model import Graph, Node
from fairlead_agent.graph.parsing import parse_graph
from fairlead_agent.graph.paths import HANDLERS, names, split
from fairlead_agent.graph.tries import Tries
from fairlead_agent.inputs import check_inputs
from fairlead_agent.problems import GraphError
from fairlead_agent.protocol import Entry, Kind, Progress, Rerun

OWN: Final = frozenset({"wait", "workflow"})
"""Actions that need no engine."""
MAX_CURRENT: Final = 10


class RunState:
    """The state of one run and of everything in it."""

    def __init__(
        self,
        graph: Graph,
        *,
        inputs: Mapping[str, Any],
        run: Mapping[str, Any],
        workflows: Mapping[str, Mapping[str, Any]] | None = None,
        rerun: Rerun | None = None,
    ) -> None:
        self.graph = graph
        self.ended: Entry | None = None
        """How the run ended."""
        self._workflows = workflows or {}
        self._graphs: dict[str, Graph] = {}
        self._root = Frame(graph, inputs, run, forced=_forced(graph, rerun))
        self._frames = {"": self._root}
        self._doors: dict[str, Work] = {}
        """Tries of ``workflow`` nodes, by the prefix of what is inside."""
        self._own: dict[Work, None] = {}
        """Tries that the scheduler has to begin itself."""
        self._stirred: dict[Frame, None] = {self._root: None}
        """Where something may follow."""
        self._closing: dict[Frame, None] = {}
        """Where something has failed, or the end is settled, and what goes on has yet to be told."""
        self._tries = Tries()
        self._running: dict[str, None] = {}

    def apply(self, entry: Entry) -> None:
        """Take note of one entry of the journal."""
        match entry.kind:
            case Kind.RUN_ENDING:
                self._apply_ending(self._root, entry)
            case Kind.WORKFLOW_ENDING:
                work = Work(entry.node, entry.item, entry.iteration, entry.try_number)
                self._tries.forget_time(work)  # handlers have times of their own
                self._apply_ending(self._frame(work.prefix), entry)
            case Kind.RUN_FINISHED:
                self.ended = entry
                self._tries.clear()
            case _:
                frame, name = self._place(entry.node)
                self._stirred[frame] = None
                self._apply_within(frame, name, entry)

    def _apply_within(self, frame: Frame, name: str, entry: Entry) -> None:
        node = frame.graph.node(name)
        work = Work(entry.node, entry.item, entry.iteration, entry.try_number)
        match entry.kind:
            case Kind.NODE_STARTED:
                self._running[entry.node] = None
                frame.start(name)
                if node.for_each is None:
                    self._begin(node, work)
            case Kind.ITEM_STARTED:
                frame.items_of(name).start(entry.item or "")
                self._begin(node, work)
            case Kind.TRY_FAILED:
                self._leave(work.key)
                self._delay(node, work, entry)
            case Kind.WAITING:
                self._wait(node, entry)
            case Kind.ITEM_FINISHED:
                self._leave(work.key)
                frame.items_of(name).finish(entry)
                frame.fed.append(name)
            case Kind.NODE_FINISHED:
                self._apply_end(frame, name, entry)
            case Kind.REPEATED:
                frame.repeat(name)
            case _:
                raise ValueError(f"{entry.kind} is of no node")

    def _apply_ending(self, frame: Frame, entry: Entry) -> None:
        frame.ending = entry
        self._closing[frame] = None

    def _apply_end(self, frame: Frame, name: str, entry: Entry) -> None:
        self._running.pop(entry.node, None)
        self._leave((entry.node, None))
        if name in HANDLERS:
            frame.handled[name] = entry
            return
        for item in frame.items[name].looking if name in frame.items else ():
            self._leave((entry.node, item))
        frame.finish(entry, name)
        if frame.failure is not None:
            self._closing[frame] = None

    def _begin(self, node: Node, work: Work) -> None:
        self._leave(work.key)
        self._tries.begin(work, by_engine=node.action not in OWN)
        if node.action in OWN:
            self._own[work] = None
        self._add_door(node, work)

    def _add_door(self, node: Node, work: Work) -> None:
        if node.action == "workflow":
            self._doors[work.prefix] = work

    def _delay(self, node: Node, failed: Work, entry: Entry) -> None:
        work = Work(failed.node, failed.item, failed.iteration, failed.try_number + 1)
        self._tries.delay(work, entry.retry_at or entry.at)
        self._add_door(node, work)

    def _wait(self, node: Node, entry: Entry) -> None:
        work = self._tries.current[entry.node, entry.item]
        if work in self._tries.delayed:  # its pause is over: the journal has gone on
            self._begin(node, work)
        if entry.wait is None:
            return
        if node.action not in OWN:
            self._tries.wait(work, entry.wait)
        elif entry.wait.until is not None:
            self._tries.set_time(work, entry.wait.until)
            if node.action == "wait":
                self._own.pop(work, None)

    def _leave(self, key: tuple[str, str | None]) -> None:
        """Forget what is under way of a node or item, and what is inside it."""
        work = self._tries.close(key)
        if work is None:
            return
        prefix = work.prefix
        self._own.pop(work, None)
        self._doors.pop(prefix, None)
        frame = self._frames.pop(prefix, None)
        if frame is not None:
            self._stirred.pop(frame, None)
            self._closing.pop(frame, None)

    def _place(self, path: str) -> tuple[Frame, str]:
        """Return where a node is, and its name there."""
        prefix, name = split(path)
        return self._frame(prefix), name

    def _frame(self, prefix: str) -> Frame:
        return self._frames.get(prefix) or self._enter(self._doors[prefix])

    def _enter(self, work: Work) -> Frame:
        """Begin the workflow that a node runs.

        Raises:
            ExpressionError: an input could not be rendered.
            GraphError: the workflow or its inputs are wrong.
        """
        outer, name = self._place(work.node)
        node = outer.graph.node(name)
        if work in self._tries.delayed:
            self._begin(node, work)
        graph = self._graph_of(node.config["name"])
        given = render(node.config.get("inputs") or {}, self._scope_in(outer, name, work.item))
        inputs, problems = check_inputs(graph.declared, given)
        if problems:
            raise GraphError(problems)
        forced = None if outer.forced is None or name in outer.forced else frozenset[str]()
        frame = Frame(
            graph,
            inputs,
            outer.run,
            workflow=node.config["name"],
            prefix=work.prefix,
            work=work,
            depth=outer.depth + 1,
            forced=forced,
        )
        self._own.pop(work, None)
        self._frames[frame.prefix] = frame
        self._stirred[frame] = None
        return frame

    def _graph_of(self, name: str) -> Graph:
        if name not in self._graphs:
            self._graphs[name] = parse_graph(self._workflows.get(name, {}))
        return self._graphs[name]

    def _scope_in(self, frame: Frame, name: str, item: str | None) -> Scope:
        if name not in HANDLERS:
            return frame.scope(name, item)
        ending = frame.ending
        error = None if ending is None else ending.error
        state = "" if ending is None or ending.state is None else ending.state.value
        reason = "" if ending is None else ending.reason
        return frame.scope_of_all(state=state, reason=reason, message=error.message if error else "")

    def node(self, work: Work) -> Node:
        """Return the node that a try is of."""
        frame, name = self._place(work.node)
        return frame.graph.node(name)

    def scope(self, work: Work) -> Scope:
        """Return the values that a try sees."""
        frame, name = self._place(work.node)
        return self._scope_in(frame, name, work.item)

    def model(self, work: Work) -> str:
        """Return the Model of nodes that name none, where the try is."""
        return self._place(work.node)[0].graph.model

    @property
    def ending(self) -> Entry | None:
        """How the run will end; nodes and handlers have yet to."""
        return self._root.ending

    @property
    def open(self) -> Mapping[Work, None]:
        """What the engine should have under way, what waits included."""
        return self._tries.open

    def progress(self) -> Progress:
        """Return the summary for people."""
        current = tuple(islice(self._running, MAX_CURRENT))
        return Progress(done=len(self._root.states), total=len(self.graph.nodes), current=current)


def _forced(graph: Graph, rerun: Rerun | None) -> frozenset[str] | None:
    """Return the nodes whose earlier results must not be used; None: all."""
    if rerun is None or rerun.from_ == "Failed":
        return frozenset()
    if rerun.from_ == "Start":
        return None
    start = names(rerun.from_)[0]  # of a nested node, all of the workflow that it is in
    return frozenset(name for name in graph.nodes if start in (name, *graph.ancestors[name]))
