"""A LangGraph graph of your own for an Agent: two opinions at the same time, then a verdict.

The graph gets the prompt, asks models and uses tools through the gateway (`Runtime`), and puts its answer into
`output`. Every call and every step is in the journal of the turn: a pod that dies in the middle is replaced, and the
next one goes on from the last step without asking anything twice.
"""

from typing import TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from fairlead_agent.runtime import Runtime


class State(TypedDict, total=False):
    """What the graph knows. `prompt` is given to it, `output` is taken from it."""

    prompt: str
    pro: str
    contra: str
    output: str


async def _ask(text: str, config: RunnableConfig) -> str:
    runtime: Runtime = config["configurable"]["fairlead"]
    return str((await runtime.ask(text)).result)


async def pro(state: State, config: RunnableConfig) -> State:
    """Speak for it."""
    return {"pro": await _ask(f"Speak for it: {state['prompt']}", config)}


async def contra(state: State, config: RunnableConfig) -> State:
    """Speak against it."""
    return {"contra": await _ask(f"Speak against it: {state['prompt']}", config)}


async def judge(state: State, config: RunnableConfig) -> State:
    """Weigh both."""
    return {"output": await _ask(f"Weigh up. {state['pro']} {state['contra']}", config)}


graph = StateGraph(State)
graph.add_node("pro_", pro)
graph.add_node("contra_", contra)
graph.add_node("judge", judge)
graph.add_edge(START, "pro_")
graph.add_edge(START, "contra_")
graph.add_edge(["pro_", "contra_"], "judge")
graph.add_edge("judge", END)
