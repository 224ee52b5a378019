"""The regions of ``repeat``: which nodes go round together, and who waits for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Needs = Mapping[str, Iterable[str]]
Ancestors = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Region:
    """The nodes on a path from *first* to *end*, both included."""

    first: str
    end: str
    members: frozenset[str]


def ancestors_of(needs: Needs, order: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return everything that each node needs, directly or not. *order* has needs before those that need them."""
    found: dict[str, frozenset[str]] = {}
    for name in order:
        found[name] = frozenset(needs[name]).union(*(found[need] for need in needs[name]))
    return found


def region(first: str, end: str, ancestors: Ancestors) -> Region | None:
    """Return the region from *first* to *end*, or None if there is no path."""
    if first != end and first not in ancestors.get(end, frozenset()):
        return None
    between = {name for name in ancestors.get(end, ()) if first in ancestors.get(name, ())}
    return Region(first, end, frozenset(between | {first, end}))


def enclosing(name: str, regions: Mapping[str, Region]) -> tuple[str, ...]:
    """Return the ends of the regions that *name* is in, the innermost first."""
    around = [one for one in regions.values() if name in one.members]
    return tuple(one.end for one in sorted(around, key=lambda one: len(one.members)))


def gate(need: str, name: str, regions: Mapping[str, Region], innermost: Mapping[str, tuple[str, ...]]) -> str:
    """Return whose end *name* waits for when it needs *need*: of the outermost region that only *need* is in."""
    outer = [end for end in innermost.get(need, ()) if name not in regions[end].members]
    return outer[-1] if outer else need


def released(
    needs: Needs, regions: Mapping[str, Region], innermost: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return for each node who waits for it; a node that waits for it through two needs is there twice."""
    found: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for need in wanted:
            found[gate(need, name, regions, innermost)].append(name)
    return {name: tuple(waiting) for name, waiting in found.items()}
