"""The turn of an agent: its loop, and a graph of its own with checkpoints in the journal."""

from __future__ import annotations

import asyncio
import base64
import sys
from dataclasses import dataclass
from operator import add
from types import ModuleType
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send, interrupt

from fairlead.testing.agentworld import EPOCH, RUN
from fairlead_agent.checkpointer import JournalSaver
from fairlead_agent.failures import NodeFailure
from fairlead_agent.protocol import (
    AskApproval,
    Call,
    CallReply,
    Decision,
    Kind,
    State,
    ToolInfo,
    ToolUse,
    TurnInfo,
    Usage,
)
from fairlead_agent.runtime import Runtime

HOUR = 3600.0
TOOLS = {"read": ToolInfo(name="read"), "send": ToolInfo(name="send", require_approval=True)}
SPEC = {"nodes": [{"name": "a", "agent": {"name": "smith", "prompt": "go"}}], "output": "{{ outputs.a }}"}


def smith(**keys: Any) -> dict[str, Any]:
    return {"agents": {"smith": TurnInfo(agent="", prompt="", model="m", **keys)}, "tools": TOOLS}


def yes(_question: AskApproval) -> Decision:
    return Decision(approved=True, by="ann", at=EPOCH, comment="fine")


def turn_of(world: Any) -> Any:
    (job,) = (job for job in world.jobs.values() if job.id != RUN)
    return job


async def echo(call: Call) -> Any:
    """Answer after a second: a tool gives its arguments, a model repeats the last message."""
    await asyncio.sleep(1)
    if call.tool:
        return call.tool.arguments
    assert call.llm is not None
    return CallReply(result=f"heard {call.llm.messages[-1].content}", usage=Usage(input_tokens=40, output_tokens=2))


def script(*says: Any) -> Any:
    """Return a model that says one thing after the other."""

    async def handler(call: Call) -> Any:
        if call.llm is None:
            return await echo(call)
        await asyncio.sleep(1)
        said = says[sum(message.role == "assistant" for message in call.llm.messages)]
        usage = Usage(input_tokens=40, output_tokens=2)
        return CallReply(result=said, usage=usage) if isinstance(said, str) else CallReply(tool_calls=said, usage=usage)

    return handler


READ = (ToolUse(id="1", name="read", arguments={}),)
SEND = (ToolUse(id="1", name="send", arguments={"to": "bob"}),)


def test_turn_loops_over_the_agents_tools(simulation: Any) -> None:
    world = simulation.finish(SPEC, handler=script(READ, "done"), **smith(tools=("read",)))
    assert world.end.output == "done"
    assert [entry.kind for entry in turn_of(world).journal] == [Kind.TURN_FINISHED]


@pytest.mark.parametrize("tools", [(), ("read",)])
def test_turn_tells_its_model_what_cannot_be_kept_and_fails_with_it(simulation: Any, tools: tuple[str, ...]) -> None:
    says = [r'{"t": "\ud83d"}', r'{"t": "\ud83d\ude00"}']
    asks = {"name": "smith", "prompt": "go", "output": {"type": "object"}}
    for answers, output in ((says, {"a": {"t": "\U0001f600"}}), (says[:1] * 2, None)):
        spec = {"nodes": [{"name": "a", "agent": asks}]}
        world = simulation.finish(spec, handler=script(*answers), **smith(tools=tools))
        assert world.end.output == output
    error = turn_of(world).journal[-1].error
    assert (error.reason, "half a character" in error.message) == ("OutputInvalid", True)


def test_turn_is_parked_while_a_person_decides(simulation: Any) -> None:
    keys = smith(tools=("read", "send"))
    world = simulation.finish(SPEC, handler=script(SEND, "done"), decide=yes, decide_seconds=HOUR, **keys)
    assert world.end.output == "done"
    assert [park.reason for park in world.parks] == ["Turn", "Approval"]
    assert [entry.kind for entry in turn_of(world).journal] == [Kind.WAITING, Kind.TURN_FINISHED]
    assert set(world.sent.values()) == {1}


def test_turn_ends_at_its_limit_of_tokens(simulation: Any) -> None:
    says = [READ] * 5
    world = simulation.finish(SPEC, handler=script(*says), **smith(tools=("read",), max_tokens=100))
    assert world.node("a").reason == "TurnLimitExceeded"
    assert "100 (maxTokens)" in world.node("a").error.message


def test_turn_ends_in_time(simulation: Any) -> None:
    spec = {"nodes": [{**SPEC["nodes"][0], "timeoutSeconds": 3}]}  # type: ignore[dict-item]
    world = simulation.finish(spec, handler=script(*[READ] * 9), **smith(tools=("read",)))
    assert world.node("a").error.reason == "Timeout"


def test_turn_that_is_stopped_ends_as_cancelled(simulation: Any) -> None:
    world = simulation.world(SPEC, handler=script(*[READ] * 9), **smith(tools=("read",)))

    async def main() -> None:
        living = asyncio.create_task(world.live())
        await asyncio.sleep(2.5)
        world.executions[turn_of(world).id].stop()
        await living

    simulation.run(main)
    assert turn_of(world).journal[-1].state is State.CANCELLED
    assert world.node("a").error.reason == "Stopped"


def test_turn_of_a_suspended_run_sends_nothing_more(simulation: Any) -> None:
    world = simulation.world(SPEC, handler=script(READ, READ, "done"), **smith(tools=("read",)))

    async def main() -> None:
        living = asyncio.create_task(world.live())
        await asyncio.sleep(1.5)
        world.suspend()
        await asyncio.sleep(HOUR)
        assert sum(world.sent.values()) == 2
        world.resume()
        await living

    simulation.run(main)
    assert world.end.output == "done"
    assert [park.reason for park in world.parks] == ["Turn", "Suspended"]
    assert set(world.sent.values()) == {1}


def test_turn_ends_the_same_wherever_the_process_died(simulation: Any) -> None:
    keys = {"handler": script(READ, SEND, "done"), "decide": yes, **smith(tools=("read", "send"))}
    calm = simulation.finish(SPEC, **keys)
    for boundary in range(0, calm.boundaries, 5):
        world = simulation.world(SPEC, **keys)
        simulation.survive(world, lambda number, at=boundary: -1 if number else at)
        assert (world.end.output, world.sent) == ("done", calm.sent), f"killed at boundary {boundary}"


# -- a graph of its own ------------------------------------------------------------------------------------------------


class Research(TypedDict, total=False):
    prompt: str
    topics: list[str]
    topic: str
    found: Annotated[list[str], add]
    output: dict[str, Any]


async def plan(state: Research, config: RunnableConfig) -> Research:
    fairlead: Runtime = config["configurable"]["fairlead"]
    first, second = await asyncio.gather(fairlead.ask("one"), fairlead.ask("two"))
    return {"topics": [first.result, second.result, state["prompt"]]}


def spread(state: Research) -> list[Send]:
    return [Send("look", {"topic": topic}) for topic in state["topics"]]


async def look(state: Research, config: RunnableConfig) -> Research:
    fairlead: Runtime = config["configurable"]["fairlead"]
    read = await fairlead.use("read", {"topic": state["topic"]})
    if state["topic"] == "go":
        await fairlead.use("send", {"to": "bob"})
    return {"found": [read["topic"]]}


def conclude(state: Research) -> Research:
    answer = interrupt({"message": f"Is {len(state['found'])} enough?"})
    return {"output": {"found": sorted(state["found"]), "by": answer["by"]}}


def research() -> StateGraph[Any]:
    graph = StateGraph(Research)
    graph.add_node("plan", plan)
    graph.add_node("look", look)
    graph.add_node("conclude", conclude)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", spread, ["look"])
    graph.add_edge("look", "conclude")
    graph.add_edge("conclude", END)
    return graph


@dataclass
class Strange:
    """A type that no checkpoint may name."""

    value: int = 1


class Odd(TypedDict, total=False):
    prompt: str
    thing: Any
    output: str


def odd() -> StateGraph[Any]:
    graph = StateGraph(Odd)
    graph.add_node("a", lambda _state: {"thing": Strange()})
    graph.add_node("b", lambda _state: {"output": "done"})
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    return graph


async def chat_once(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
    fairlead: Runtime = config["configurable"]["fairlead"]
    told = [{"role": {"human": "user"}.get(one.type, one.type), "content": one.text} for one in state["messages"]]
    reply = await fairlead.ask(told)
    return {"messages": [{"role": "assistant", "content": reply.result}]}


def chat() -> StateGraph[Any]:
    graph = StateGraph(MessagesState)
    graph.add_node("chat", chat_once)
    graph.add_edge(START, "chat")
    return graph


async def go_round(state: Odd, config: RunnableConfig) -> Odd:
    fairlead: Runtime = config["configurable"]["fairlead"]
    if state.get("thing") == "tools":
        await fairlead.use("read")
    else:
        await fairlead.ask("again")
    return {"thing": state.get("thing")}


def loop() -> StateGraph[Any]:
    graph = StateGraph(Odd)
    graph.add_node("start", lambda state: {"thing": state["prompt"]})
    graph.add_node("round", go_round)
    graph.add_edge(START, "start")
    graph.add_edge("start", "round")
    graph.add_edge("round", "round")
    return graph


async def ask_and_doubt(state: Odd, config: RunnableConfig) -> Odd:
    fairlead: Runtime = config["configurable"]["fairlead"]
    reply = await fairlead.ask(state["prompt"])
    first, second = interrupt("Sure?"), interrupt("Sure?")
    return {"output": f"{reply.result}, {first['comment']}, {second['comment']}"}


def doubt() -> StateGraph[Any]:
    graph = StateGraph(Odd)
    graph.add_node("doubt", ask_and_doubt)
    graph.add_edge(START, "doubt")
    return graph


def raise_halves(_state: Odd) -> Odd:
    raise RuntimeError("no \ud83d")


def halves() -> StateGraph[Any]:
    graph = StateGraph(Odd)
    graph.add_node("a", raise_halves)
    graph.add_edge(START, "a")
    return graph


def boom() -> StateGraph[Any]:
    graph = StateGraph(Odd)
    graph.add_node("a", lambda state: {"output": state["no"]})
    graph.add_edge(START, "a")
    return graph


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide the graphs as an importable module, as an agent's image would."""
    module = ModuleType("own_graphs")
    found = {"research": research(), "compiled": research().compile(), "odd": odd(), "chat": chat(), "boom": boom()}
    module.__dict__.update(found, text="no graph", loop=loop(), doubt=doubt(), halves=halves())
    monkeypatch.setitem(sys.modules, "own_graphs", module)


def graph(name: str, **keys: Any) -> dict[str, Any]:
    return {"handler": echo, "decide": yes, **smith(graph=f"own_graphs:{name}", **keys)}


EXPECTED = {"found": ["go", "heard one", "heard two"], "by": "ann"}


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("name", ["research", "compiled"])
def test_own_graph_calls_models_tools_and_people(simulation: Any, name: str) -> None:
    world = simulation.finish(SPEC, **graph(name))
    assert world.end.output == EXPECTED
    assert {question.message for question in world.approvals.values()} == {"Use the tool send?", "Is 3 enough?"}
    assert len(world.sent) == 6
    assert set(world.sent.values()) == {1}


@pytest.mark.usefixtures("graphs")
def test_own_graph_ends_the_same_wherever_the_process_died(simulation: Any) -> None:
    calm = simulation.finish(SPEC, **graph("research"))
    for boundary in range(0, calm.boundaries, 5):
        world = simulation.world(SPEC, **graph("research"))
        simulation.survive(world, lambda number, at=boundary: -1 if number else at)
        assert world.end.output == EXPECTED, f"killed at boundary {boundary}"
        requests = sorted(digest for digest, _ in world.calls.values())
        assert requests == sorted(digest for digest, _ in calm.calls.values())
        assert set(world.sent.values()) == {1}


@pytest.mark.usefixtures("graphs")
def test_own_graph_of_messages_answers_with_its_last_one(simulation: Any) -> None:
    assert simulation.finish(SPEC, **graph("chat", instructions="You are Smith.")).end.output == "heard go"


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("own_graphs:odd", "holds a ", id="a-type-that-is-not-kept"),
        pytest.param("own_graphs:boom", "own_graphs:boom failed: KeyError: 'no'", id="it-raises"),
        pytest.param("own_graphs:halves", "own_graphs:halves failed: RuntimeError: no ?", id="it-raises-no-text"),
        pytest.param("own_graphs:text", "is a str: it has to be a StateGraph or a compiled graph", id="no-graph"),
        pytest.param("own_graphs:none", "cannot be loaded: AttributeError", id="no-attribute"),
        pytest.param("no_such_module:x", "cannot be loaded: ModuleNotFoundError", id="no-module"),
    ],
)
def test_own_graph_that_fails_says_why(simulation: Any, name: str, message: str) -> None:
    world = simulation.finish(SPEC, handler=echo, **smith(graph=name))
    error = world.node("a").error
    assert (world.end.state, error.reason) == (State.FAILED, "TurnFailed")
    assert message in error.message


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize(
    ("prompt", "limits", "sent"),
    [
        pytest.param("models", {}, 10, id="turns"),
        pytest.param("tools", {"max_tool_calls": 7}, 7, id="tool-calls"),
        pytest.param("models", {"max_tokens": 100}, 3, id="tokens"),
    ],
)
def test_own_graph_keeps_the_agents_limits_through_crashes(
    simulation: Any, prompt: str, limits: Any, sent: int
) -> None:
    spec = {"nodes": [{"name": "a", "agent": {"name": "smith", "prompt": prompt}}]}
    world = simulation.world(spec, **graph("loop", **limits))
    simulation.survive(world, lambda number: 9 + number if number < 4 else -1)
    assert world.node("a").reason == "TurnLimitExceeded"
    assert sum(world.sent.values()) == sent


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("dies", [False, True])
def test_own_graph_counts_a_call_once_when_its_node_is_run_again(simulation: Any, dies: bool) -> None:
    world = simulation.world(SPEC, **graph("doubt", max_turns=1))
    simulation.survive(world, lambda number: 12 + number if dies and number < 4 else -1)
    assert world.end.output == "heard go, fine, fine"
    assert set(world.sent.values()) == {1}
    assert [question.message for question in world.approvals.values()] == ["Sure?", "Sure?"], "each is asked"


def test_checkpoint_that_names_a_callable_calls_nothing() -> None:
    evil = ormsgpack.packb(["os", "system", "false"])
    place = {"thread_id": "turn", "checkpoint_ns": "", "checkpoint_id": "1"}
    data = ormsgpack.packb([place, [["x", ormsgpack.Ext(0, evil)]], "task", ""])
    saved = {"what": "writes", "data": base64.b64encode(data).decode()}

    async def save(_entry: Any) -> None:
        raise AssertionError

    with pytest.raises(NodeFailure, match=r"holds a os\.system"):
        JournalSaver([saved], save=save)
