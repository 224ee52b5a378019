"""A workflow's graph as the scheduler and the engine use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead_agent.compiling import Expression

ACTIONS: Final = ("llm", "agent", "tool", "code", "workflow", "approval", "wait")
MAX_NODES: Final = 256
MAX_ITEMS: Final = 10_000
DEFAULT_PARALLEL: Final = 8


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
class Node:
    """One node."""

    name: str
    needs: tuple[str, ...]
    action: str
    config: Mapping[str, Any]
    """The fields of the action, as on the wire."""
    when: Expression | None = None
    for_each: Expression | None = None
    max_parallel: int = DEFAULT_PARALLEL
    retry: Retry = Retry()
    timeout_seconds: float | None = None
    continue_on_error: bool = False


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

    @property
    def leaves(self) -> tuple[str, ...]:
        """The nodes that nothing needs."""
        return tuple(name for name in self.nodes if not self.dependents[name])
