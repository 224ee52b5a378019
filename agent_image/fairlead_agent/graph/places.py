"""Where in a spec something is, and how a message names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_agent.graph.paths import HANDLERS
from fairlead_agent.problems import Problem


@dataclass(frozen=True, slots=True)
class Place:
    """A node or handler that is at least a map."""

    path: str
    label: str
    name: str
    """Empty for handlers, and for nodes without a usable one."""
    wire: Mapping[str, Any]
    is_handler: bool = False

    def problem(self, at: str, text: str) -> Problem:
        """Return a problem of one of its fields."""
        return Problem(f"{self.path}.{at}".strip("."), f"{self.label}: {text}", node=self.name)


def node_places(nodes: list[Any] | tuple[Any, ...]) -> list[Place]:
    """Return the nodes that are maps."""
    return [_node(i, wire) for i, wire in enumerate(nodes) if isinstance(wire, Mapping)]


def _node(index: int, wire: Mapping[str, Any]) -> Place:
    name = wire.get("name")
    name = name if isinstance(name, str) else ""
    return Place(f"nodes[{index}]", f'node "{name}"' if name else f"node {index}", name, wire)


def handler_places(spec: Mapping[str, Any]) -> list[Place]:
    """Return the handlers that are maps."""
    found = [(field, spec.get(field)) for field in HANDLERS.values()]
    return [Place(field, field, "", wire, is_handler=True) for field, wire in found if isinstance(wire, Mapping)]


def names_in(value: Any) -> list[str]:
    """Return the texts of a list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def is_number(value: Any) -> bool:
    """Return whether *value* is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
