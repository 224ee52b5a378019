"""Names of nodes within a run. Engine, gateway and readers share them.

A node of the workflow itself is ``b``; one of the sub-workflow that the node ``a`` runs is ``a/b``. Where ``a`` ran
more than once, its item, and its iteration and try but for the first, tell them apart: ``a[item]#2.1/b``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

ON_FAILURE: Final = "@onFailure"
FINALLY: Final = "@finally"
HANDLERS: Final[Mapping[str, str]] = {ON_FAILURE: "onFailure", FINALLY: "finally"}
"""The field of the spec that each handler comes from."""
_ESCAPES: Final = str.maketrans({char: f"%{ord(char):02X}" for char in "%/[]#"})
_PART: Final = re.compile(r"([^\[\]#/]*)(?:\[([^\[\]/#]*)\])?(?:#(\d+)\.(\d+))?")


def escape(item: str) -> str:
    """Return the key of an item so that it cannot forge a path."""
    return item.translate(_ESCAPES)


def inside(node: str, item: str | None = None, iteration: int = 1, try_number: int = 1) -> str:
    """Return what the paths of the nodes begin with that one execution of the ``workflow`` node *node* runs."""
    of_item = "" if item is None else f"[{escape(item)}]"
    again = "" if (iteration, try_number) == (1, 1) else f"#{iteration}.{try_number}"
    return f"{node}{of_item}{again}/"


def split(path: str) -> tuple[str, str]:
    """Return the prefix that `inside` gave, empty for a node of the workflow itself, and the node's own name."""
    before, slash, name = path.rpartition("/")
    return before + slash, name


def names(path: str) -> tuple[str, ...]:
    """Return the names of the nodes along *path*, without items, iterations and tries."""
    return tuple(re.split(r"[\[#]", part, maxsplit=1)[0] for part in path.split("/"))


def in_handler(path: str) -> bool:
    """Whether *path* is a handler, or lies inside one."""
    return not HANDLERS.keys().isdisjoint(names(path))


def parent(path: str) -> tuple[str, str | None, int] | None:
    """Return path, item and iteration of the execution that *path* lies in; None: the run itself."""
    prefix, _ = split(path)
    if not prefix:
        return None
    outer, last = split(prefix[:-1])
    found = _PART.fullmatch(last)
    if found is None:
        return None
    name, item, iteration, _try = found.groups()
    return outer + name, None if item is None else unquote(item), int(iteration or 1)


def around(path: str, item: str | None, iteration: int) -> Iterator[tuple[str, str | None, int]]:
    """Yield the executions that one lies in, the innermost first: of an item its node, and the node outside of it."""
    place: tuple[str, str | None, int] | None = (path, item, iteration)
    while place is not None:
        node, item, iteration = place
        if item is not None:
            yield node, None, iteration
        place = parent(node)
        if place is not None:
            yield place


def definition(document: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """Return the frozen node or handler that *path* names, if there is one.

    Args:
        document: a frozen revision: ``workflow.spec``, and in ``workflows`` the specs of nested ones by name.
        path: of a node.
    """
    workflow = scope(document, path)
    return None if workflow is None else _node(workflow, names(path)[-1])


def scope(document: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """Return the frozen spec of the workflow that the node at *path* is part of, if there is one."""
    spec: Mapping[str, Any] | None = document.get("workflow", {}).get("spec")
    for name in names(path)[:-1]:
        node = None if spec is None else _node(spec, name)
        if node is None:
            return None
        spec = document.get("workflows", {}).get((node.get("workflow") or {}).get("name"))
    return spec


def _node(spec: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    if name in HANDLERS:
        return spec.get(HANDLERS[name])
    return next((node for node in spec.get("nodes", ()) if node.get("name") == name), None)
