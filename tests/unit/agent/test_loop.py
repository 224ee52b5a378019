"""The loop of model and tools, in an `llm` node."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.testing.agentworld import EPOCH
from fairlead_agent.protocol import (
    AskApproval,
    Call,
    CallReply,
    Decision,
    Kind,
    Message,
    State,
    ToolInfo,
    ToolUse,
    Usage,
)

ADD = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
TOOLS = {
    "add": ToolInfo(name="add", parameters=ADD),
    "read": ToolInfo(name="read"),
    "send": ToolInfo(name="send", require_approval=True, approvers=("ann",)),
}


def node(**llm: Any) -> dict[str, Any]:
    keys = {key: llm.pop(key) for key in ("retry", "timeoutSeconds", "onError") if key in llm}
    return {"name": "a", "llm": {"prompt": "go", "tools": ["add", "read", "send"], **llm}, **keys}


def spec(**llm: Any) -> dict[str, Any]:
    return {"model": "m", "nodes": [node(**llm)], "output": "{{ outputs.a }}"}


def use(name: str, number: int = 0, **arguments: Any) -> ToolUse:
    return ToolUse(id=f"c{number}", name=name, arguments=arguments)


class Model:
    """Says one thing after the other, and remembers what it was told; tools give their arguments."""

    def __init__(self, *says: Any, usage: Usage | None = None, seconds: float = 1.0) -> None:
        self.says = says
        self.usage = usage or Usage()
        self.seconds = seconds
        self.asked: list[tuple[Message, ...]] = []
        self.used: list[Any] = []
        self.tools: dict[str, Any] = {}

    async def __call__(self, call: Call) -> Any:
        await asyncio.sleep(self.seconds)
        if call.tool is not None:
            self.used.append((call.tool.name, call.tool.arguments))
            result = self.tools.get(call.tool.name, call.tool.arguments)
            if isinstance(result, Exception):
                raise result
            return result
        assert call.llm is not None
        self.asked.append(call.llm.messages)
        turn = sum(message.role == "assistant" for message in call.llm.messages)
        said = self.says[min(turn, len(self.says) - 1)]
        if isinstance(said, str):
            return CallReply(result=said, usage=self.usage)
        return CallReply(result="", tool_calls=tuple(said), usage=self.usage, finish_reason="tool_calls")


def approve(_question: AskApproval) -> Decision:
    return Decision(approved=True, by="ann", at=EPOCH)


def reject(question: AskApproval) -> Decision:
    return Decision(approved=False, by="ann", at=EPOCH, comment=f"not {question.node}")


def test_loop_asks_uses_tools_and_asks_again(simulation: Any) -> None:
    model = Model([use("add", 1, a=1), use("read", 2)], "done")
    world = simulation.finish(spec(), handler=model, tools=TOOLS)
    assert world.end.output == "done"
    assert model.used == [("add", {"a": 1}), ("read", {})]
    roles = [message.role for message in model.asked[1]]
    assert roles == ["user", "assistant", "tool", "tool"]
    assert [message.tool_call_id for message in model.asked[1][2:]] == ["c1", "c2"]
    assert model.asked[1][2].content == '{"a":1}'
    assert sorted(world.sent) == [f"a/-/1/1/{number}" for number in range(4)]


def test_loop_uses_the_tools_of_one_answer_side_by_side(simulation: Any) -> None:
    model = Model([use("read", number) for number in range(10)], "done", seconds=10)
    simulation.finish(spec(), handler=model, tools=TOOLS)
    assert simulation.elapsed == pytest.approx(30)


def test_loop_tells_the_model_of_a_tool_that_failed(simulation: Any) -> None:
    model = Model([use("read")], "sorry")
    model.tools["read"] = simulation.tool_error("ToolFailed")
    world = simulation.finish(spec(), handler=model, tools=TOOLS)
    assert world.end.output == "sorry"
    assert model.asked[1][-1].content == "error: ToolFailed: no"


def test_loop_ends_when_nobody_knows_what_a_tool_did(simulation: Any) -> None:
    model = Model([use("read")], "sorry")
    model.tools["read"] = simulation.tool_error("OutcomeUnknown", retryable=False)
    world = simulation.finish(spec(), handler=model, tools=TOOLS)
    assert (world.end.state, world.node("a").reason) == (State.FAILED, "OutcomeUnknown")


def test_loop_gives_malformed_calls_back_three_times_in_a_row(simulation: Any) -> None:
    wrong = [
        [use("ad")],
        [use("add", a="one")],
        [ToolUse(id="c", name="add", raw="{a: 1")],
    ]
    model = Model(*wrong, "fine")
    world = simulation.finish(spec(), handler=model, tools=TOOLS)
    assert world.end.output == "fine"
    assert model.used == []
    told = [message.content for message in model.asked[-1] if message.role == "tool"]
    assert told[0] == 'error: there is no tool "ad"; did you mean "add"?'
    assert told[1].startswith("error: the arguments of add do not fit: a: ")
    assert told[2] == "error: the arguments of add are no JSON object: {a: 1"


def test_loop_fails_at_the_fourth_malformed_call(simulation: Any) -> None:
    model = Model([use("nothing")])
    world = simulation.finish(spec(maxTurns=20), handler=model, tools=TOOLS)
    assert world.node("a").reason == "ToolCallInvalid"
    assert len(model.asked) == 4


def test_loop_counts_malformed_calls_in_a_row_only(simulation: Any) -> None:
    bad, good = [use("nothing")], [use("read")]
    model = Model(bad, bad, bad, good, bad, bad, bad, "done")
    assert simulation.finish(spec(), handler=model, tools=TOOLS).end.output == "done"


@pytest.mark.parametrize(
    ("limits", "asked"), [pytest.param({"maxTurns": 3}, 3, id="given"), pytest.param({}, 10, id="ten-by-default")]
)
def test_loop_limits_turns(simulation: Any, limits: Any, asked: int) -> None:
    model = Model([use("read")])
    world = simulation.finish(spec(**limits), handler=model, tools=TOOLS)
    assert world.node("a").reason == "TurnLimitExceeded"
    assert len(model.asked) == asked


def test_loop_limits_tool_calls(simulation: Any) -> None:
    model = Model([use("read", number) for number in range(51)])
    world = simulation.finish(spec(), handler=model, tools=TOOLS)
    assert world.node("a").reason == "TurnLimitExceeded"
    assert model.used == []


def test_loop_ends_in_time(simulation: Any) -> None:
    model = Model([use("read")], seconds=10)
    world = simulation.finish(spec(timeoutSeconds=25), handler=model, tools=TOOLS)
    assert world.node("a").reason == "Timeout"
    assert simulation.elapsed == pytest.approx(25)


def test_loop_mends_an_answer_that_does_not_fit(simulation: Any) -> None:
    model = Model([use("read")], "no idea", '{"a": 1}')
    world = simulation.finish(spec(output=ADD), handler=model, tools=TOOLS)
    assert world.end.output == {"a": 1}
    assert "is not the JSON" in model.asked[-1][-1].content


def test_loop_fails_when_the_mended_answer_does_not_fit_either(simulation: Any) -> None:
    model = Model([use("read")], "no idea")
    world = simulation.finish(spec(output=ADD), handler=model, tools=TOOLS)
    assert world.node("a").reason == "OutputInvalid"
    assert len(model.asked) == 3


@pytest.mark.parametrize(("second", "reason"), [('{"a": 1}', ""), ("none", "OutputInvalid")])
def test_loop_mends_the_answer_of_the_last_turn(simulation: Any, second: str, reason: str) -> None:
    model = Model("no idea", second)
    world = simulation.finish(spec(output=ADD, maxTurns=1), handler=model, tools=TOOLS)
    assert world.node("a").reason == reason
    assert len(model.asked) == 2


def test_loop_uses_no_tools_after_the_last_turn_was_mended(simulation: Any) -> None:
    model = Model("no idea", [use("read")], '{"a": 1}')
    world = simulation.finish(spec(output=ADD, maxTurns=1), handler=model, tools=TOOLS)
    assert world.node("a").reason == "TurnLimitExceeded"
    assert len(model.asked) == 2


def test_loop_waits_for_approval_without_a_pod(simulation: Any) -> None:
    model = Model([use("read", 1), use("send", 2, to="bob")], "done")
    world = simulation.finish(spec(), handler=model, tools=TOOLS, decide=approve, decide_seconds=3600)
    assert world.end.output == "done"
    assert sorted(model.used) == [("read", {}), ("send", {"to": "bob"})]
    (question,) = world.approvals.values()
    assert (question.approvers, question.tool.arguments) == (("ann",), {"to": "bob"})
    assert [park.reason for park in world.parks] == ["Approval"]
    assert world.attempt == 3  # claimed, parked, claimed
    assert set(world.sent.values()) == {1}
    assert [entry.wait.key for entry in world.of(Kind.WAITING)] == ["a/-/1/1/2"]


def test_loop_asks_all_approvals_of_an_answer_at_once(simulation: Any) -> None:
    model = Model([use("send", number, to=number) for number in range(3)], "done")
    world = simulation.finish(spec(), handler=model, tools=TOOLS, decide=approve, decide_seconds=3600)
    assert world.end.output == "done"
    assert len(world.approvals) == 3
    assert simulation.elapsed == pytest.approx(3603)


def test_loop_tells_the_model_of_a_rejected_call(simulation: Any) -> None:
    model = Model([use("send", 1, to="bob")], "ok, not")
    world = simulation.finish(spec(), handler=model, tools=TOOLS, decide=reject)
    assert world.end.output == "ok, not"
    assert model.used == []
    assert model.asked[-1][-1].content == "error: this call was not approved: ann rejected it: not a"


def test_loop_time_of_a_person_does_not_count(simulation: Any) -> None:
    model = Model([use("send", 1, to="bob")], "done")
    keys = {"decide": approve, "decide_seconds": 7200}
    world = simulation.finish(spec(timeoutSeconds=60), handler=model, tools=TOOLS, **keys)
    assert world.end.output == "done"


def test_loop_ends_the_same_wherever_the_process_died(simulation: Any) -> None:
    says = [[use("read", 1), use("send", 2, to="bob")], [use("nothing")], "no", '{"a": 2}']
    keys = {"tools": TOOLS, "decide": approve}
    calm = simulation.finish(spec(output=ADD), handler=Model(*says), **keys)
    assert calm.end.output == {"a": 2}
    for boundary in range(0, calm.boundaries, 3):
        world = simulation.world(spec(output=ADD), handler=Model(*says), **keys)
        simulation.survive(world, lambda number, at=boundary: -1 if number else at)
        assert world.end.output == {"a": 2}, f"killed at boundary {boundary}"
        assert set(world.sent.values()) == {1}
        assert world.sent == calm.sent


def test_agent_imports_langgraph_only_when_a_turn_needs_it() -> None:
    code = "import sys, fairlead_agent.main; print([m for m in sys.modules if m.startswith('lang')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_turns_need_nothing_that_the_image_leaves_out() -> None:
    locking = (Path(__file__).parents[3] / "tools" / "lock.sh").read_text()
    (left_out,) = re.findall(r"^for name in (.*); do$", locking, re.MULTILINE)
    names = {name.removesuffix("-py").replace("-", "_") for name in left_out.split()}
    assert "zstandard" in names
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
import fairlead_agent.main, fairlead_agent.loop, fairlead_agent.owngraph
from fairlead_agent.expressions import evaluate
print(evaluate("1 + 1", {{}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")
