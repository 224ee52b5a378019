"""The state of one workflow on its way: the run's own, or that of a ``workflow`` node. No entry is made here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fairlead_agent.expressions import Scope
from fairlead_agent.graph.items import Items
from fairlead_agent.graph.model import Graph
from fairlead_agent.graph.paths import inside
from fairlead_agent.protocol import Entry, State


@dataclass(frozen=True, slots=True)
class Lookup:
    """A question to the cache."""

    digest: str
    max_age_seconds: int


class Work(NamedTuple):
    """A try of a node, or of one of its items. A tuple, for it is looked up all the time."""

    node: str
    """The path, as in the journal."""
    item: str | None = None
    iteration: int = 1
    try_number: int = 1
    lookup: Lookup | None = None
    """Set: nothing is to be run yet, but to be asked."""

    @property
    def key(self) -> tuple[str, str | None]:
        """What it is a try of."""
        return self.node, self.item

    @property
    def prefix(self) -> str:
        """What the paths of the nodes inside begin with, if it runs a workflow."""
        return inside(self.node, self.item, self.iteration, self.try_number)


class _View(Mapping[str, Any]):
    """The outputs as one member of a region sees them.

    What it needs is of this round; of the others it sees what they gave before the round, whoever is faster now.
    """

    def __init__(self, frame: Frame, name: str, own: Mapping[str, Any] | None = None) -> None:
        self._frame = frame
        self._name = name
        self._own = own or {}

    def __getitem__(self, other: str) -> Any:
        if other in self._own:
            return self._own[other]
        before = self._frame.round_before(self._name, other)
        return self._frame.outputs[other] if before is None else before.get(other)

    def __iter__(self) -> Iterator[str]:
        return iter(self._frame.outputs)

    def __len__(self) -> int:
        return len(self._frame.outputs)


@dataclass(eq=False)
class Frame:
    """What is known of the nodes of one workflow."""

    graph: Graph
    inputs: Mapping[str, Any]
    run: Mapping[str, Any]
    workflow: str = ""
    """The name of its spec; empty for the run's own."""
    prefix: str = ""
    work: Work | None = None
    """The try of a ``workflow`` node that it is."""
    depth: int = 1
    forced: frozenset[str] | None = frozenset()
    """The nodes that a rerun does again, whatever results there are; None: all."""
    outputs: dict[str, Any] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    """Of the nodes that are finished, in this round."""
    started: set[str] = field(default_factory=set)
    items: dict[str, Items] = field(default_factory=dict)
    failure: Entry | None = None
    """The first end of a node that fails the workflow."""
    ending: Entry | None = None
    """How it will end; nodes and handlers have yet to."""
    handled: dict[str, Entry] = field(default_factory=dict)
    """How its handlers ended."""
    ready: deque[str] = field(default_factory=deque)
    fed: deque[str] = field(default_factory=deque)
    """Nodes with items to start, or to conclude from."""
    undecided: dict[str, None] = field(default_factory=dict)
    """Nodes with ``repeat`` that are finished; whether they go back is not decided."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Digests of inputs and outputs (`fairlead_agent.graph.digests`)."""

    def __post_init__(self) -> None:
        """Make what has no needs ready."""
        self.outputs |= dict.fromkeys(self.graph.innermost)
        self._iterations: dict[str, int] = {}
        self._rounds: dict[str, int] = {}
        self._before: dict[str, dict[str, Any]] = {}
        self._variables = {"inputs": self.inputs, "outputs": self.outputs, "run": self.run, "iteration": 1}
        self._scopes: dict[str, Scope] = {}
        self._missing = {name: len(node.needs) for name, node in self.graph.nodes.items()}
        self.ready.extend(name for name, missing in self._missing.items() if not missing)

    @property
    def complete(self) -> bool:
        """Whether all nodes have run."""
        return len(self.states) == len(self.graph.nodes) and not self.undecided

    @property
    def stirred(self) -> bool:
        """Whether something may follow from what is known."""
        return bool(self.ready or self.fed or self.undecided or self.failure) or self.complete

    def may_begin(self, name: str) -> bool:
        """Return whether a node is ready and neither started nor finished."""
        return not (self._missing[name] or name in self.started or name in self.states)

    def iteration(self, name: str) -> int:
        """Return how often the node has had its turn, this one included."""
        return self._iterations.get(name, 1)

    def round(self, name: str) -> int:
        """Return the round of the innermost region that the node is in: the variable ``iteration``."""
        ends = self.graph.innermost.get(name)
        return self._rounds.get(ends[0], 1) if ends else 1

    def round_before(self, name: str, other: str) -> Mapping[str, Any] | None:
        """Return the outputs before this round, if *name* does not see those of this round of *other*."""
        if other in self.graph.ancestors[name]:
            return None
        common = next((end for end in self.graph.innermost[name] if other in self.graph.regions[end].members), None)
        return None if common is None else self._before.get(common, {})

    def start(self, name: str) -> None:
        """Take note that a node has started."""
        self.started.add(name)
        if self.graph.node(name).for_each is not None:
            self.fed.append(name)

    def finish(self, entry: Entry, name: str) -> None:
        """Take note of how a node ended."""
        state = entry.state or State.SUCCEEDED
        self.forget(name)
        self.states[name] = state
        self.outputs[name] = entry.output
        self.tokens.pop(f"outputs.{name}", None)
        if state is State.FAILED and not self.graph.nodes[name].continue_on_error and self.failure is None:
            self.failure = entry
        if name in self.graph.regions:
            self.undecided[name] = None
        else:
            self.settle(name)

    def forget(self, name: str) -> None:
        """Drop what only a running node needs."""
        self._scopes.pop(name, None)
        self.items.pop(name, None)

    def settle(self, name: str) -> None:
        """Let go on who waits for a node, or for the end of what it repeats."""
        self.undecided.pop(name, None)
        for waiting in self.graph.released[name]:
            if self._missing[waiting]:  # none, if by the journal it has gone on already
                self._missing[waiting] -= 1
                if not self._missing[waiting]:
                    self.ready.append(waiting)

    def repeat(self, end: str) -> None:
        """Begin the next round of a region."""
        region = self.graph.regions[end]
        inner = [other for other in region.members if other != end and other in self.graph.regions]
        before = {name: self.outputs[name] for name in region.members}
        self._rounds[end] = self._rounds.get(end, 1) + 1
        for other in inner:
            self._rounds.pop(other, None)
        for repeated in (end, *inner):
            self._before[repeated] = before
        for name in region.members:
            self.forget(name)
            self.states.pop(name, None)
            self.started.discard(name)
            self.undecided.pop(name, None)
            self._iterations[name] = self.iteration(name) + 1
            self._missing[name] = 0 if name == region.first else len(self.graph.nodes[name].needs)
        self.ready.append(region.first)

    def scope(self, name: str, item: str | None = None) -> Scope:
        """Return the values that a node, or one of its items, sees."""
        if name not in self._scopes:
            variables: Mapping[str, Any] = self._variables
            if name in self.graph.innermost:
                variables = {**variables, "outputs": _View(self, name), "iteration": self.round(name)}
            self._scopes[name] = Scope(variables)
        if item is None:
            return self._scopes[name]
        return self._scopes[name].bind(**self.item_variables(name, item))

    def scope_at_end(self, name: str, output: Any) -> Scope:
        """Return what the ``until`` of *name* sees when the node has given *output*."""
        outputs = _View(self, name, {name: output})
        return Scope({**self._variables, "outputs": outputs, "iteration": self.round_of(name)})

    def scope_of_all(self, **run: Any) -> Scope:
        """Return what handlers and ``spec.output`` see: all nodes, null for those that did not finish."""
        outputs = {**dict.fromkeys(self.graph.nodes), **self.outputs}
        return Scope({"inputs": self.inputs, "outputs": outputs, "run": {**self.run, **run}})

    def item_variables(self, name: str, item: str) -> Mapping[str, Any]:
        """Return ``item`` and ``index`` of one item."""
        items = self.items_of(name)
        items.load(self.scope(name))
        return items.variables(item)

    def items_of(self, name: str) -> Items:
        """Return the items of a node with ``forEach``."""
        if name not in self.items:
            self.items[name] = Items(self.graph.nodes[name])
        return self.items[name]

    def round_of(self, end: str) -> int:
        """Return the round of the region that *end* ends."""
        return self._rounds.get(end, 1)
