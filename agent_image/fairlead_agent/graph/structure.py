"""How the nodes of a spec hang together: names, needs, cycles, the regions of ``repeat``; and what is wrong there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import chain, combinations
from typing import Any, Final

from fairlead_agent.compiling import KEYWORDS
from fairlead_agent.expressions import kind
from fairlead_agent.graph.places import Place, names_in, node_places
from fairlead_agent.graph.regions import Region, ancestors_of, region
from fairlead_agent.problems import Problem, did_you_mean

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MAX_CYCLES: Final = 10


@dataclass(slots=True)
class Structure:
    """What can be understood of the nodes."""

    places: list[Place]
    shapeless: list[Problem]
    needs: dict[str, list[str]] = field(default_factory=dict)
    cycles: list[list[str]] = field(default_factory=list)
    ancestors: dict[str, frozenset[str]] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    """By the node at the end."""

    @classmethod
    def read(cls, nodes: list[Any] | tuple[Any, ...]) -> Structure:
        """Take what can be understood of *nodes*; the rest becomes problems."""
        shapeless = [
            Problem(f"nodes[{i}]", f"node {i} is a map, not {kind(node)}")
            for i, node in enumerate(nodes)
            if not isinstance(node, Mapping)
        ]
        structure = cls(node_places(nodes), shapeless)
        names = {place.name for place in structure.places if place.name}
        for place in structure.places:
            if place.name and place.name not in structure.needs:
                structure.needs[place.name] = [need for need in names_in(place.wire.get("needs")) if need in names]
        structure._order()
        structure._find_regions()
        return structure

    def _order(self) -> None:
        """Find cycles, cutting each to find the next, and then everyone's ancestors."""
        edges = {name: list(dict.fromkeys(needs)) for name, needs in self.needs.items()}
        while True:
            sorter = TopologicalSorter(edges)
            try:
                order = list(sorter.static_order())
            except CycleError as error:
                cycle = list(reversed(error.args[1]))
                self.cycles.append(cycle)
                edges[cycle[0]].remove(cycle[1])
                continue
            break
        self.ancestors = ancestors_of(edges, order)

    def _find_regions(self) -> None:
        for place in self.places:
            first = _first(place)
            found = region(first, place.name, self.ancestors) if first in self.needs and place.name else None
            if found is not None and place.name not in self.regions:
                self.regions[place.name] = found

    def around(self, name: str) -> frozenset[str]:
        """Return the nodes that go round together with *name*."""
        return frozenset(chain.from_iterable(one.members for one in self.regions.values() if name in one.members))

    def problems(self) -> Iterator[Problem]:
        """Yield everything that is wrong."""
        yield from self.shapeless
        yield from self._name_problems()
        for place in self.places:
            yield from self._needs_problems(place)
        yield from self._cycle_problems()
        if not self.cycles:
            yield from self._region_problems()

    def _name_problems(self) -> Iterator[Problem]:
        seen: dict[str, str] = {}
        for place in self.places:
            name = place.wire.get("name")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                shown = f'"{name}"' if isinstance(name, str) else kind(name)
                yield place.problem(
                    "name", f"a name begins with a-z, goes on with a-z, 0-9 and _ (63 at most): not {shown}"
                )
            elif name in KEYWORDS:
                yield place.problem("name", f'"{name}" is a word of CEL: choose another name')
            elif name in seen:
                yield place.problem("name", f"the name is taken by {seen[name]}: rename one of them")
            else:
                seen[name] = place.path

    def _needs_problems(self, place: Place) -> Iterator[Problem]:
        needs = place.wire.get("needs")
        if needs is not None and not isinstance(needs, list | tuple):
            yield place.problem("needs", f"needs is a list of node names, not {kind(needs)}")
            return
        for i, need in enumerate(needs or ()):
            if not isinstance(need, str):
                yield place.problem(f"needs[{i}]", f"needs is a list of node names, not of {kind(need)}")
            elif need not in self.needs:
                others = [name for name in self.needs if name != place.name]
                yield place.problem(f"needs[{i}]", f'needs unknown node "{need}"{did_you_mean(need, others)}')

    def _cycle_problems(self) -> Iterator[Problem]:
        for cycle in self.cycles[:_MAX_CYCLES]:
            alone = len(set(cycle)) == 1
            text = "it needs itself: remove it" if alone else "the nodes need each other in a cycle"
            fix = "" if alone else ": remove one of these needs, or go back with repeat"
            yield self._place(cycle[0]).problem("needs", f"{text} ({' -> '.join(cycle)}){fix}")

    def _region_problems(self) -> Iterator[Problem]:
        for place in self.places:
            first = _first(place)
            if not first or not place.name:
                continue
            if first not in self.needs:
                yield place.problem("repeat.from", f'unknown node "{first}"{did_you_mean(first, self.needs)}')
            elif place.name not in self.regions:
                text = f'repeat.from is the node itself or one that it needs: "{first}" is neither'
                yield place.problem("repeat.from", text)
        for one in self.regions.values():
            yield from self._entry_problems(one)
        for one, other in combinations(self.regions.values(), 2):
            yield from self._overlap_problems(one, other)

    def _entry_problems(self, one: Region) -> Iterator[Problem]:
        for name in sorted(one.members - {one.first}):
            for need in self.needs[name]:
                if need not in one.members:
                    text = (
                        f'what is repeated from "{one.first}" is entered only through it, but "{name}" needs "{need}" '
                        f'from outside: let "{one.first}" need "{need}" instead'
                    )
                    yield self._place(one.end).problem("repeat.from", text)

    def _overlap_problems(self, one: Region, other: Region) -> Iterator[Problem]:
        shared = one.members & other.members
        if not shared or one.members <= other.members or other.members <= one.members:
            return
        text = (
            f'what it repeats overlaps with what "{other.end}" repeats (both have "{min(shared)}"): '
            "let one of them be inside the other"
        )
        yield self._place(one.end).problem("repeat.from", text)

    def _place(self, name: str) -> Place:
        return next(place for place in self.places if place.name == name)


def _first(place: Place) -> str:
    repeat = place.wire.get("repeat")
    first = repeat.get("from") if isinstance(repeat, Mapping) else None
    return first if isinstance(first, str) else ""
