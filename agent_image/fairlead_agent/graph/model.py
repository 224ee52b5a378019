"""A workflow's graph as the scheduler and the engine use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fairlead_agent.compiling import Expression
from fairlead_agent.graph.regions import Region

ACTIONS: Final = ("llm", "agent", "tool", "code", "workflow", "approval", "wait")
HANDLER_ACTIONS: Final = ("llm", "agent", "tool", "code", "workflow")
TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "llm": ("prompt", "system"),
    "agent": ("prompt",),
    "tool": ("arguments",),
    "code": ("inputs", "files"),
    "workflow": ("inputs",),
    "approval": ("message",),
    "wait": (),
}
"""The fields of each action that may hold ``{{ }}``."""
MAX_NODES: Final = 256
MAX_ITEMS: Final = 10_000
MAX_DEPTH: Final = 8
"""How deeply workflows may run each other, the run's own included."""
DEFAULT_PARALLEL: Final = 8
HANDLER_TIMEOUT: Final = 60.0
"""Seconds that a handler gets unless it says otherwise: it runs beyond the run's deadline."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, after which pause and for which reasons a try is repeated."""

    limit: int = 0
    backoff_seconds: float = 1.0
    factor: float = 2.0
    max_backoff_seconds: float = 60.0
    on: frozenset[str] = frozenset()
    """Empty: every reason that may pass."""

    def delay(self, failed_try: int) -> float:
        """Return the seconds to wait after try *failed_try* (from 1)."""
        exponent = min(failed_try - 1, 64)
        return min(self.backoff_seconds * self.factor**exponent, self.max_backoff_seconds)

    def grants(self, failed_try: int, reason: str, *, retryable: bool) -> bool:
        """Return whether another try follows one that failed for *reason*."""
        wanted = reason in self.on if self.on else retryable
        return failed_try <= self.limit and wanted


@dataclass(frozen=True, slots=True)
class Repeat:
    """When the region that ends with a node is gone through again."""

    until: Expression
    max_iterations: int = 5
    fail_when_exhausted: bool = True


@dataclass(frozen=True, slots=True)
class Cache:
    """How results of other runs are used."""

    ttl_seconds: int = 86_400
    key: Expression | None = None


@dataclass(frozen=True, slots=True)
class Uses:
    """What some expressions refer to, each in order."""

    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = ()
    """None: all of them."""
    variables: tuple[str, ...] = ()
    """The others."""

    @classmethod
    def of(cls, expressions: Iterable[Expression]) -> Uses:
        """Return what *expressions* refer to."""
        found = tuple(expressions)
        inputs = frozenset[str]().union(*(one.inputs for one in found))
        outputs = frozenset[str]().union(*(one.outputs for one in found))
        variables = frozenset[str]().union(*(one.variables for one in found)) - {"inputs", "outputs"}
        all_inputs = any(one.all_inputs for one in found)
        return cls(tuple(sorted(outputs)), None if all_inputs else tuple(sorted(inputs)), tuple(sorted(variables)))


@dataclass(frozen=True, slots=True)
class Node:
    """One node, or a handler (`fairlead_agent.graph.paths.HANDLERS`)."""

    name: str
    needs: tuple[str, ...]
    action: str
    config: Mapping[str, Any]
    """The fields of the action, as on the wire."""
    when: Expression | None = None
    for_each: Expression | None = None
    max_parallel: int = DEFAULT_PARALLEL
    repeat: Repeat | None = None
    retry: Retry = Retry()
    timeout_seconds: float | None = None
    continue_on_error: bool = False
    cache: Cache | None = None
    until: Expression | None = None
    """Of a ``wait``."""
    uses: Uses = Uses()
    """What the action is given."""
    uses_in_all: Uses = Uses()
    """With what ``forEach`` uses, too."""
    token: str = ""
    """The digest of what it does."""


@dataclass(frozen=True, slots=True)
class Graph:
    """All nodes, in the order in which they were declared."""

    nodes: Mapping[str, Node]
    dependents: Mapping[str, tuple[str, ...]]
    """For each node, those that name it in ``needs``."""
    output: Any = None
    """``spec.output``: None means the outputs of `leaves`."""
    model: str = ""
    """The Model of ``llm`` nodes that name none."""
    declared: Any = None
    """``spec.inputs``, as on the wire."""
    timeout_seconds: float | None = None
    """``spec.timeoutSeconds``."""
    handlers: Mapping[str, Node] = field(default_factory=dict)
    """By their path; ``@onFailure`` before ``@finally``."""
    ancestors: Mapping[str, frozenset[str]] = field(default_factory=dict)
    regions: Mapping[str, Region] = field(default_factory=dict)
    """What is repeated, by the node at its end."""
    innermost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each node in a region, the ends of the regions that it is in, the innermost first."""
    released: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each node, those that may be ready when it is done, and with a ``repeat``, when that is over."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """The nodes that nothing needs."""
        return tuple(name for name in self.nodes if not self.dependents[name])

    def node(self, name: str) -> Node:
        """Return a node or handler."""
        return self.nodes.get(name) or self.handlers[name]
