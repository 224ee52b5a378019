from __future__ import annotations

import json
from typing import Any

import pytest

from fairlead_agent.answers import parse_answer
from fairlead_agent.desk import Desk, Place
from fairlead_agent.failures import NodeFailure
from fairlead_agent.protocol import AgentRequest, Call, CallReply, State, Wait

SCHEMA = {
    "type": "object",
    "required": ["kind"],
    "properties": {"kind": {"enum": ["bug", "question"]}, "tags": {"type": "array", "items": {"type": "string"}}},
}


@pytest.mark.parametrize(
    "answer",
    [
        '{"kind": "bug"}',
        ' \n{"kind": "bug"}\n',
        '```json\n{"kind": "bug"}\n```',
        'Here it is:\n```JSON\n{"kind": "bug"}\n```\nDone.',
        '```\n{"kind": "bug"}\n```',
        'The answer is {"kind": "bug"}.',
        {"kind": "bug"},
    ],
)
def test_parse_answer_finds_the_object(answer: Any) -> None:
    assert parse_answer(answer, SCHEMA) == {"kind": "bug"}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            "no idea",
            'is not the JSON that `output` asks for: Expecting value: line 1 column 1 (char 0); it begins with "no',
        ),
        ('{"kind": "bug"', "is not the JSON"),
        ("", "is not the JSON"),
        ('{"kind": "other"}', 'kind: "other" is not one of'),
        ("{}", 'the answer: "kind" is a required property'),
        ('{"kind": "bug", "tags": ["a", 1]}', "tags[1]: 1 is not of type"),
        ("[1]", "the answer: [1] is not of type"),
    ],
)
def test_parse_answer_says_where_and_why(answer: Any, text: str) -> None:
    with pytest.raises(NodeFailure) as caught:
        parse_answer(answer, SCHEMA)
    assert (caught.value.error.reason, caught.value.error.retryable) == ("OutputInvalid", True)
    assert text in caught.value.error.message


UNKEPT = [
    pytest.param('{"score": NaN}', "NaN and infinity are no JSON values", id="nan"),
    pytest.param('{"score": -1e999}', "NaN and infinity are no JSON values", id="infinity"),
    pytest.param('{"t": ["\\ud83d"]}', "'\\ud83d' is half a character", id="surrogate"),
    pytest.param('{"\\ude00": 1}', "'\\ude00' is half a character", id="surrogate-as-key"),
    pytest.param(f'{{"id": {1 << 64}}}', "18446744073709551616 has more than 64 bits", id="too-long"),
    pytest.param(f'{{"id": [{-(1 << 63) - 1}]}}', "-9223372036854775809 has more than 64 bits", id="too-negative"),
    pytest.param('{"a":' * 129 + "1" + "}" * 129, "in each other more than 128 deep", id="too-deep"),
    pytest.param('{"a":' * 5000 + "1" + "}" * 5000, "recursion", id="too-deep-to-read"),
]
"""What Python reads as JSON and nothing keeps."""


@pytest.mark.parametrize(("answer", "text"), UNKEPT)
def test_parse_answer_refuses_what_cannot_be_kept(answer: str, text: str) -> None:
    with pytest.raises(NodeFailure) as caught:
        parse_answer(answer, {"type": "object"})
    assert (caught.value.error.reason, caught.value.error.retryable) == ("OutputInvalid", True)
    assert text in caught.value.error.message


def test_parse_answer_takes_what_can_just_be_kept() -> None:
    numbers = {"numbers": [(1 << 64) - 1, -(1 << 63), 1e308, True], "text": "\U0001f600"}
    assert parse_answer(json.dumps(numbers), {"type": "object"}) == numbers
    assert parse_answer("[" * 128 + "]" * 128, {"type": "array"})


@pytest.mark.parametrize(("answer", "text"), UNKEPT)
def test_llm_tells_the_model_what_cannot_be_kept(simulation: Any, answer: str, text: str) -> None:
    asked: list[str] = []

    async def handler(call: Call) -> Any:
        asked.append(call.llm.messages[-1].content if call.llm else "")
        return answer if call.key.endswith("/0") else '{"t": "well"}'

    spec = {"model": "m", "nodes": [{"name": "a", "llm": {"prompt": "x", "output": {"type": "object"}}}]}
    assert simulation.finish(spec, handler=handler).end.output == {"a": {"t": "well"}}
    assert text in asked[1]


def test_llm_sends_messages_model_schema_and_parameters(simulation: Any) -> None:
    calls: list[Call] = []

    async def handler(call: Call) -> Any:
        calls.append(call)
        return '{"kind": "bug"}' if call.node == "sort" else "fine"

    spec = {
        "model": "default",
        "inputs": [{"name": "m"}],
        "nodes": [
            {
                "name": "sort",
                "llm": {
                    "system": "Sort {{ run.name }}.",
                    "prompt": "{{ inputs.m }}",
                    "output": SCHEMA,
                    "parameters": {"temperature": 0},
                },
            },
            {
                "name": "say",
                "needs": ["sort"],
                "llm": {"model": "other", "prompt": "{{ outputs.sort }}"},
                "timeoutSeconds": 7,
            },
        ],
    }
    world = simulation.finish(spec, inputs={"m": [1]}, handler=handler)
    assert world.end.output == {"say": "fine"}
    first, second = calls
    assert first.llm
    assert [(m.role, m.content) for m in first.llm.messages] == [("system", "Sort r."), ("user", "[1]")]
    assert (first.llm.model, first.llm.output, first.llm.parameters) == ("default", SCHEMA, {"temperature": 0})
    assert (first.key, first.action, first.node, first.timeout_seconds) == ("sort/-/1/1/0", "llm", "sort", 600)
    assert second.llm
    assert (second.llm.model, second.llm.messages[0].content) == ("other", '{"kind":"bug"}')
    assert second.timeout_seconds == 7


def test_llm_tells_the_model_once_what_is_wrong_before_the_try_fails(simulation: Any) -> None:
    asked = []

    async def handler(call: Call) -> Any:
        asked.append([(message.role, message.content) for message in call.llm.messages] if call.llm else [])
        return "no" if call.key in ("a/-/1/1/0", "a/-/1/1/1", "a/-/1/2/0") else '{"kind": "bug"}'

    retry = {"limit": 1, "on": ["OutputInvalid"]}
    spec = {"model": "m", "nodes": [{"name": "a", "retry": retry, "llm": {"prompt": "x", "output": SCHEMA}}]}
    world = simulation.finish(spec, handler=handler)
    assert world.end.output == {"a": {"kind": "bug"}}
    assert sorted(world.sent) == ["a/-/1/1/0", "a/-/1/1/1", "a/-/1/2/0", "a/-/1/2/1"]
    assert asked[1][:2] == [("user", "x"), ("assistant", "no")]
    assert "is not the JSON that `output` asks for" in asked[1][2][1]


def test_tool_renders_arguments_through_json(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        return call.tool.arguments if call.tool else None

    arguments = {"rows": "{{ inputs.rows }}", "deep": [{"q": "n={{ size(inputs.rows) }}"}], "plain": 5}
    node = {"name": "a", "tool": {"name": "sql", "arguments": arguments}}
    spec = {"inputs": [{"name": "rows", "type": "array"}], "nodes": [node]}
    world = simulation.finish(spec, inputs={"rows": [{"b": 1, "a": 2}]}, handler=handler)
    assert world.end.state is State.SUCCEEDED
    assert world.end.output == {"a": {"rows": [{"a": 2, "b": 1}], "deep": [{"q": "n=1"}], "plain": 5}}


class _Gateway:
    """Answers calls of one desk."""

    def __init__(self, reply: CallReply) -> None:
        self.reply = reply
        self.asked: list[Call] = []

    async def call(self, call: Call) -> CallReply:
        self.asked.append(call)
        return self.reply


def _desk(gateway: Any) -> Desk:
    async def wait(_: Wait) -> Any:
        raise AssertionError

    return Desk(port=gateway, attempt=1, place=Place("ask"), tools={}, wait=wait, external=("theirs",))


async def test_abroad_asks_the_gateway_for_an_agent_that_someone_else_runs() -> None:
    gateway = _Gateway(CallReply(result='Here: {"kind": "bug"}'))
    assert await _desk(gateway).abroad("theirs", "What is it?", output=SCHEMA) == {"kind": "bug"}
    asked = gateway.asked[0]
    assert (asked.action, asked.key) == ("agent", "ask/-/1/1/0")
    assert asked.agent == AgentRequest(name="theirs", prompt="What is it?", output=SCHEMA)


async def test_abroad_takes_text_as_it_is_where_no_schema_is_given() -> None:
    assert await _desk(_Gateway(CallReply(result="It is a bug."))).abroad("theirs", "?") == "It is a bug."


async def test_abroad_does_not_take_an_answer_of_another_shape() -> None:
    with pytest.raises(NodeFailure) as caught:
        await _desk(_Gateway(CallReply(result={"kind": "other"}))).abroad("theirs", "?", output=SCHEMA)
    assert caught.value.error.reason == "OutputInvalid"
