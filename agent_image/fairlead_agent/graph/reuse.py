"""What the run that is repeated has left, and where it may be used again."""

from __future__ import annotations

from fairlead_agent.graph.frame import Work
from fairlead_agent.protocol import Entry, Rerun


class Earlier:
    """Finds earlier results: that of the same place; of an item of a ``forEach``, also one of an equal item.

    Nodes inside an item are compared with those at the same place alone: one without values of its own is no evidence.
    """

    def __init__(self, rerun: Rerun | None) -> None:
        self.uid = rerun.uid if rerun else ""
        self._there: dict[tuple[str, str | None, int], Entry] = {}
        self._items: dict[tuple[str, int], dict[str, Entry]] = {}
        for entry in rerun.entries if rerun else ():
            self._there[entry.node, entry.item, entry.iteration] = entry
            if entry.item is not None:
                self._items.setdefault((entry.node, entry.iteration), {}).setdefault(entry.digest, entry)

    def knows(self, work: Work) -> bool:
        """Return whether there is anything to compare with."""
        in_place = (work.node, work.item, work.iteration) in self._there
        return in_place or (work.item is not None and (work.node, work.iteration) in self._items)

    def find(self, work: Work, digest: str) -> Entry | None:
        """Return the result of work with this digest, if there is one."""
        if not digest:
            return None
        there = self._there.get((work.node, work.item, work.iteration))
        if there is not None and there.digest == digest:
            return there
        return None if work.item is None else self._items.get((work.node, work.iteration), {}).get(digest)
