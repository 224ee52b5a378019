"""Real agent processes that wait for people, agents and times, and run turns."""

from __future__ import annotations

from typing import Any

from fairlead_agent.protocol import Call, CallReply, HeartbeatReply, Kind, State, ToolInfo, TurnInfo

APPROVED = {"approved": True, "by": "ann", "at": "2026-01-01T00:00:00Z", "comment": "fine"}
ASKING = {
    "nodes": [
        {"name": "ok", "approval": {"message": "Go?"}},
        {"name": "b", "needs": ["ok"], "tool": {"name": "echo", "arguments": {}}},
    ],
    "output": "{{ outputs.ok.by }} {{ outputs.b }}",
}
ASKS_SMITH = {"nodes": [{"name": "a", "agent": {"name": "smith", "prompt": "go"}}], "output": "{{ outputs.a }}"}
OWN_GRAPH = """
import os
from typing import Any
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from typing import TypedDict

class State(TypedDict, total=False):
    prompt: str
    output: str

async def think(state: State, config: RunnableConfig) -> dict[str, Any]:
    fairlead = config["configurable"]["fairlead"]
    read = await fairlead.use("read", {"what": state["prompt"]})
    heard = (await fairlead.ask(read)).result
    return {"output": f"{heard} {os.environ['LANGSMITH_TRACING']} {os.environ['LANGGRAPH_STRICT_MSGPACK']}"}

graph = StateGraph(State)
graph.add_node("think", think)
graph.add_edge(START, "think")
"""


def test_agent_for_one_run_exits_when_it_is_parked_and_another_goes_on(gateway: Any, pod: Any) -> None:
    gateway.once = True
    gateway.submit(ASKING)
    assert pod.start().wait(30) == 0
    (question,) = gateway.approvals
    assert (question.message, gateway.parked["t1"].reason) == ("Go?", "Approval")
    assert pod.events()[-2]["event"] == "parked"
    gateway.signal("t1", question.key, APPROVED)
    assert pod.start().wait(30) == 0
    assert gateway.ended().output == "ann did b"
    started = [entry.node for entry in gateway.journals["t1"] if entry.kind in (Kind.NODE_STARTED, Kind.WAITING)]
    assert started == ["ok", "ok", "b"]


def test_agent_takes_turns_and_loops_over_tools(gateway: Any, pod: Any, wait: Any) -> None:
    def handler(call: Call) -> Any:
        if call.tool is not None:
            return {"rows": 3}
        assert call.llm is not None
        if call.llm.messages[-1].role == "user":
            return CallReply.model_validate({"toolCalls": [{"id": "1", "name": "read", "arguments": {}}]})
        return f"there are {call.llm.messages[-1].content}"

    gateway.handler = handler
    gateway.agents["smith"] = TurnInfo(agent="smith", prompt="", model="m", tools=("read",))
    gateway.submit(ASKS_SMITH, fields={"tools": {"read": ToolInfo(name="read")}})
    pod.start()
    assert wait(gateway.ended).output == 'there are {"rows":3}'
    assert gateway.ended_turns == ["t1-turn-0"]
    assert set(gateway.sent.values()) == {1}
    wait(lambda: [event for event in pod.events() if event["event"] == "run_finished"])
    assert [event for event in pod.events() if event["event"] == "turn_finished"]


def test_agent_runs_a_graph_of_its_own(gateway: Any, pod: Any, wait: Any, tmp_path: Any) -> None:
    (tmp_path / "own_graph_of_a_test.py").write_text(OWN_GRAPH)
    gateway.handler = lambda call: call.tool.arguments["what"] if call.tool else call.llm.messages[-1].content
    gateway.agents["smith"] = TurnInfo(agent="smith", prompt="", model="m", graph="own_graph_of_a_test:graph")
    gateway.submit(ASKS_SMITH, fields={"tools": {"read": ToolInfo(name="read")}})
    pod.start(PYTHONPATH=str(tmp_path), LANGSMITH_TRACING="true", LANGGRAPH_STRICT_MSGPACK="false")
    ended = wait(gateway.ended)
    assert (ended.error, ended.output) == (None, "go false true"), "whatever the environment of the pod says"
    assert {entry.kind for entry in gateway.journals["t1-turn-0"]} == {Kind.CHECKPOINT, Kind.TURN_FINISHED}


def test_agent_suspends_and_goes_on(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.reply = HeartbeatReply(suspend=("t1",))
    nodes = [{"name": name, "needs": needs, "tool": {"name": "echo"}} for name, needs in (("a", []), ("b", ["a"]))]
    gateway.handler = _slow(gateway, wait)
    gateway.submit({"nodes": nodes})
    pod.start()
    wait(lambda: "t1" in gateway.parked)
    assert gateway.parked["t1"].keys == ("$resume",)
    kinds = [(entry.kind, entry.node) for entry in gateway.journals["t1"]]
    assert kinds == [(Kind.NODE_STARTED, "a"), (Kind.NODE_FINISHED, "a")]
    gateway.reply = HeartbeatReply()
    gateway.signal("t1", "$resume", {})
    assert wait(gateway.ended).state is State.SUCCEEDED


def _slow(gateway: Any, wait: Any) -> Any:
    """Return a tool that answers when the pod has heard two heartbeats while it ran."""

    def handler(_call: Call) -> str:
        before = len(gateway.beats)
        wait(lambda: len(gateway.beats) > before + 2)
        return "ok"

    return handler


def test_agent_waits_for_a_decision_while_other_branches_run(gateway: Any, pod: Any, wait: Any) -> None:
    def handler(call: Call) -> str:
        if call.node == "slow":
            wait(lambda: gateway.approvals)
            gateway.signal("t1", gateway.approvals[0].key, APPROVED)
            wait(lambda: any(entry.node == "b" for entry in gateway.journals["t1"]))
        return f"did {call.node}"

    gateway.handler = handler
    gateway.submit({**ASKING, "nodes": [*ASKING["nodes"], {"name": "slow", "tool": {"name": "echo"}}]})
    pod.start()
    assert wait(gateway.ended).state is State.SUCCEEDED
    assert gateway.parked == {}
