"""A chain of nodes on LangGraph: ``plain``, or with its SQLite checkpointer, each step durable before the next."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

LENGTH = 40


class State(TypedDict, total=False):
    """Each node writes a channel of its own, as the outputs of a workflow's nodes are."""

    text: str


def build(checkpointer: Any) -> Any:
    """Return the compiled chain."""
    names = [f"node_{number}" for number in range(LENGTH)]
    state = TypedDict("state", dict.fromkeys(names, str), total=False)
    graph = StateGraph(state)
    for name in names:
        graph.add_node(name, lambda _state, name=name: {name: "a short answer " * 20}, input_schema=state)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=checkpointer)


def main(mode: str, folder: str) -> None:
    """Run chains as asked for."""
    if mode == "plain":
        serve(build(None), {})
        return
    with SqliteSaver.from_conn_string(str(Path(folder) / "langgraph.db")) as saver:
        serve(build(saver), {"durability": "sync"})


def serve(graph: Any, options: dict[str, Any]) -> None:
    """Answer every line."""
    for line in sys.stdin:
        for _ in range(int(line) // LENGTH):
            config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": LENGTH + 10}
            graph.invoke({}, config, **options)
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
