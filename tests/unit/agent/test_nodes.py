from __future__ import annotations

from typing import Any

import pytest

from fairlead_agent.answers import parse_answer
from fairlead_agent.failures import NodeFailure
from fairlead_agent.protocol import Call, State

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
