"""Checks workflows' graphs once for each spec: a check compiles every expression and costs up to a second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fairlead.core import names
from fairlead_agent.graph import Problem, check

_KEPT: Final = 1000


class GraphChecks:
    """Remembers what is wrong with the specs that were seen last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Sequence[Problem]] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def problems(self, spec: Mapping[str, Any]) -> Sequence[Problem]:
        """Return what is wrong with a workflow's spec, without holding up the event loop."""
        digest = names.digest(spec)
        async with self._one_at_a_time:  # a workflow and its run appear together: check once
            if digest not in self._known:
                self._known[digest] = tuple(await asyncio.to_thread(check, spec))
        self._known.move_to_end(digest)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return self._known[digest]
