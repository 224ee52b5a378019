"""Checks workflows' graphs once for each spec: a check compiles every expression and costs up to a second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fairlead.core import names
from fairlead_agent.graph import Problem, check, check_nested

_KEPT: Final = 1000
Spec = Mapping[str, Any]


class GraphChecks:
    """Remembers what is wrong with the specs that were seen last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Sequence[Problem]] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def problems(
        self, spec: Spec, *, name: str = "", workflows: Mapping[str, Spec] | None = None
    ) -> Sequence[Problem]:
        """Return what is wrong with a workflow's spec, without holding up the event loop.

        Args:
            spec: as on the wire.
            name: of the workflow; empty: it is written into a run.
            workflows: those that it runs and that are there, with those that they run, by name.
        """
        inner = workflows or {}
        digest = names.digest([name, spec, inner] if inner else spec)
        async with self._one_at_a_time:  # a workflow and its run appear together: check once
            if digest not in self._known:
                self._known[digest] = tuple(await asyncio.to_thread(_check, spec, name, inner))
        self._known.move_to_end(digest)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return self._known[digest]


def _check(spec: Spec, name: str, workflows: Mapping[str, Spec]) -> list[Problem]:
    return check(spec) + (check_nested(spec, workflows, name=name) if workflows else [])
