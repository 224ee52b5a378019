"""The items of a ``forEach``: what there is to do, what is done, and the result in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead_agent.expressions import ExpressionError, Scope, kind
from fairlead_agent.graph.model import MAX_ITEMS, Node
from fairlead_agent.protocol import Entry, State


class TooManyItems(ExpressionError):
    """A ``forEach`` that gives more than `MAX_ITEMS`."""

    reason = "TooManyItems"


class Items:
    """One node's items. The values are looked up when they are needed first, not while a journal is read."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.started: set[str] = set()
        """Those that have started and not finished."""
        self.looking: set[str] = set()
        """Those that the cache is asked about."""
        self.finished: dict[str, Entry] = {}
        self.failed: Entry | None = None
        self.cancelled = False
        """Whether those that run were told to end."""
        self._values: Mapping[str, Any] | None = None
        self._is_map = False
        self._unstarted: list[str] = []

    def load(self, scope: Scope) -> None:
        """Evaluate ``forEach``.

        Raises:
            ExpressionError: it failed, gave neither list nor map, or too much.
        """
        if self._values is not None or self.node.for_each is None:
            return
        given = scope.evaluate(self.node.for_each)
        if not isinstance(given, Mapping | list):
            raise ExpressionError(f'forEach "{self.node.for_each.source}" gives {kind(given)}, not a list or a map')
        if len(given) > MAX_ITEMS:
            raise TooManyItems(f"forEach gives {len(given)} items, at most {MAX_ITEMS} are allowed")
        self._is_map = isinstance(given, Mapping)
        self._values = dict(sorted(given.items())) if isinstance(given, Mapping) else dict(_numbered(given))
        self._unstarted = list(reversed(self._values))

    @property
    def running(self) -> int:
        """How many are under way."""
        return len(self.started) + len(self.looking)

    @property
    def complete(self) -> bool:
        """Whether every item is finished."""
        return len(self.finished) == len(self._values or ())

    def take(self) -> str | None:
        """Return the item to start next, if there is room for one."""
        if self.running >= self.node.max_parallel:
            return None
        while self._unstarted:
            key = self._unstarted.pop()
            if key not in self.started and key not in self.finished:  # a journal may have gone on since `load`
                return key
        return None

    def put_back(self, key: str) -> None:
        """Let an item be taken again."""
        self.looking.discard(key)
        self._unstarted.append(key)

    def start(self, key: str) -> None:
        """Take note that an item has started."""
        self.looking.discard(key)
        self.started.add(key)

    def finish(self, entry: Entry) -> None:
        """Keep how an item ended."""
        key = entry.item or ""
        self.looking.discard(key)
        self.started.discard(key)
        self.finished[key] = entry
        if entry.state is State.FAILED and not self.node.continue_on_error and self.failed is None:
            self.failed = entry

    def variables(self, key: str) -> dict[str, Any]:
        """Return ``item`` and ``index`` of one item."""
        value = None if self._values is None else self._values[key]
        return {"item": value, "index": key if self._is_map else int(key)}

    def output(self) -> Any:
        """Return the results: a list in order, or a map."""
        results = {key: self.finished[key].output for key in self._values or ()}
        return results if self._is_map else list(results.values())


def _numbered(values: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(str(index), value) for index, value in enumerate(values)]
