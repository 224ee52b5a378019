"""The engine next to LangGraph, DBOS and Prefect: a chain of 40 nodes that do nothing; an operation is one node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.bench.contestants.fairlead_chain import Plain
from tests.bench.harness import Arm, Comparison
from tests.bench.rivals import Contestant, python_of
from tests.bench.runs import CHAIN as LENGTH
from tests.bench.runs import Runner, fairlead

from fairlead.clock import SystemClock
from fairlead_agent.engine import Execution
from fairlead_agent.protocol import Call, CallReply, RunInfo, Task

_Row = tuple[str, str, str, tuple[str, ...]]
"""A way: its name, whose packages it needs, its script and the script's arguments."""
_PLAIN: tuple[_Row, ...] = (
    ("LangGraph", "langgraph", "langgraph_chain", ("plain",)),
    ("Fairlead's engine", "fairlead", "fairlead_chain", ("plain",)),
)
_DURABLE: tuple[_Row, ...] = (
    ("LangGraph, SqliteSaver, durability=sync", "langgraph", "langgraph_chain", ("sqlite",)),
    ("DBOS, SQLite", "dbos", "dbos_chain", ()),
    ("Fairlead's engine and journal, SQLite", "fairlead", "fairlead_chain", ("journal",)),
)
_SERVED: tuple[_Row, ...] = (
    ("DBOS, SQLite, in one process", "dbos", "dbos_chain", ()),
    ("Prefect, its own server, SQLite", "prefect", "prefect_chain", ()),
)


_SECONDS = {"slow": 1.0, "a1": 0.2, "a2": 0.3, "b": 0.4, "cross": 0.3, "join": 0.2}
_NEEDS = {"a2": ["a1"], "cross": ["a1", "b"], "join": ["slow", "a2", "cross"]}
_LONGEST = 1.2
"""Seconds: ``slow``, then ``join``. The graph is not series-parallel: ``cross`` joins two branches half-way."""
_UNBALANCED = {
    "nodes": [
        {"name": name, "needs": _NEEDS.get(name, []), "tool": {"name": "json_query", "arguments": {}}}
        for name in _SECONDS
    ]
}


class _Sleeping(Plain):
    """Tools that take their time."""

    async def call(self, call: Call) -> CallReply:
        """Answer when the node's time is over."""
        await asyncio.sleep(_SECONDS[call.node])
        return CallReply(result=call.node)


async def _longest_path(count: int) -> Sequence[float]:
    for _ in range(count):
        await asyncio.sleep(_LONGEST)
    return ()


async def _unbalanced(count: int) -> Sequence[float]:
    info = RunInfo(uid="u", namespace="default", name="unbalanced", workflow="unbalanced")
    for _ in range(count):
        task = Task(id="u", attempt=1, run=info, spec=_UNBALANCED, inputs={})
        end = await Execution(task, port=_Sleeping(), now=SystemClock().now).run()
        if end is None or end.state != "Succeeded":
            raise RuntimeError(str(end))
    return ()


@asynccontextmanager
async def comparisons(folder: Path) -> AsyncIterator[list[Comparison]]:
    """Start every contestant and yield what to compare."""
    async with AsyncExitStack() as stack:

        async def arm(row: _Row, place: str) -> Arm:
            name, packages, script, arguments = row
            own = folder / place / packages
            own.mkdir(parents=True)
            contestant = Contestant(script, await python_of(packages), own, *arguments)
            await stack.enter_async_context(contestant)
            return Arm(name, contestant.work, contestant.processes)

        [_, _, chain] = await stack.enter_async_context(fairlead(folder / "home"))
        runner = Runner(chain)
        await runner.one_by_one(1)

        async def served(count: int) -> Sequence[float]:
            for _ in range(count // LENGTH):
                await runner.together(1)
            return ()

        whole = Arm(
            "Fairlead: kubectl to status, each node a model call through the gateway", served, lambda: chain.pids
        )
        yield [
            Comparison(
                "a run with branches of 1.0, 0.5 and 0.7 s before a join of 0.2 s",
                2,
                [Arm("its longest path, slept", _longest_path), Arm("Fairlead's engine", _unbalanced)],
            ),
            Comparison("a node, nothing kept", 5 * LENGTH, [await arm(row, "plain") for row in _PLAIN]),
            Comparison("a node, durable before the next", 2 * LENGTH, [await arm(row, "durable") for row in _DURABLE]),
            Comparison(
                "a node of a run from end to end", LENGTH, [*[await arm(row, "served") for row in _SERVED], whole]
            ),
        ]
