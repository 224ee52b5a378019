from __future__ import annotations

from typing import Any

import pytest

from fairlead.testing.agentworld import ToolError
from fairlead_agent.graph import check
from fairlead_agent.protocol import Call, Entry, Kind, State

PROGRAM: dict[str, Any] = {"language": "python", "source": "output = inputs['x'] * 2"}

NO_MEMORY = ToolError("CodeOutOfMemory", retryable=False)


def code(name: str = "run", *, keys: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    return {"name": name, "code": {**PROGRAM, **given}, **(keys or {})}


class Sandbox:
    """Keeps the calls, and answers as a gateway does."""

    def __init__(self, *errors: ToolError) -> None:
        self.calls: list[Call] = []
        self._errors = list(errors)

    async def __call__(self, call: Call) -> Any:
        self.calls.append(call)
        if self._errors:
            raise self._errors.pop(0)
        assert call.code is not None
        return {"output": call.code.inputs, "stdout": "", "stderr": "", "files": {}, "notes": []}


def test_code_sends_what_the_program_works_on_and_never_the_program(simulation: Any) -> None:
    sandbox = Sandbox()
    binary = {"base64": "AAE="}
    files = {"a.txt": "{{ inputs.x }}!", "b.json": "{{ inputs.rows }}", "c.bin": "{{ inputs.picture }}"}
    world = simulation.finish(
        {
            "inputs": [{"name": "x"}, {"name": "rows", "type": "array"}, {"name": "picture", "type": "object"}],
            "nodes": [code(inputs={"x": "{{ inputs.x }}", "n": [1, "{{ inputs.rows }}"]}, files=files)],
            "output": "{{ outputs.run.output.x }}",
        },
        inputs={"x": "7", "rows": [1, 2], "picture": binary},
        handler=sandbox,
    )
    assert (world.end.state, world.end.output) == (State.SUCCEEDED, "7")
    (call,) = sandbox.calls
    sent = call.model_dump(mode="json", by_alias=True)
    assert (sent["action"], sent["llm"], sent["tool"]) == ("code", None, None)
    assert sent["code"] == {
        "inputs": {"x": "7", "n": [1, [1, 2]]},
        "files": {"a.txt": "7!", "b.json": "[1,2]", "c.bin": binary},
    }


@pytest.mark.parametrize(
    ("given", "keys", "seconds"),
    [
        pytest.param({}, {}, 660, id="as-long-as-it-may-take-and-wait"),
        pytest.param({"limits": {"timeoutSeconds": 1000}}, {}, 1600, id="its-own-limit"),
        pytest.param({"limits": {"timeoutSeconds": 1000}}, {"timeoutSeconds": 30}, 30, id="the-node-s-is-for-all"),
    ],
)
def test_code_is_given_its_time(simulation: Any, given: Any, keys: Any, seconds: float) -> None:
    sandbox = Sandbox()
    simulation.finish({"nodes": [code(keys=keys, **given)]}, handler=sandbox)
    assert sandbox.calls[0].timeout_seconds == seconds


def test_code_runs_for_each_item_in_a_repeat_and_in_handlers(simulation: Any) -> None:
    sandbox = Sandbox()
    world = simulation.finish(
        {
            "nodes": [
                code("each", keys={"forEach": "[1, 2]"}, inputs={"x": "{{ item }}"}),
                code(
                    "again",
                    keys={"repeat": {"from": "again", "until": "iteration == 2"}},
                    inputs={"round": "{{ iteration }}"},
                ),
                {"name": "bad", "needs": ["each", "again"], "tool": {"name": "t", "arguments": {}}},
            ],
            "onFailure": {"code": {**PROGRAM, "inputs": {"why": "{{ run.reason }}"}}},
            "finally": {"code": {**PROGRAM, "inputs": {"state": "{{ run.state }}"}}},
        },
        handler=_failing(sandbox, "bad"),
    )
    assert world.end.reason == "NodeFailed"
    sent = sorted((call.node, str(call.code.inputs)) for call in sandbox.calls if call.code)
    assert sent == [
        ("@finally", "{'state': 'Failed'}"),
        ("@onFailure", "{'why': 'NodeFailed'}"),
        ("again", "{'round': 1}"),
        ("again", "{'round': 2}"),
        ("each", "{'x': 1}"),
        ("each", "{'x': 2}"),
    ]


def _failing(sandbox: Sandbox, node: str) -> Any:
    async def handler(call: Call) -> Any:
        if call.node == node:
            raise ToolError("ToolFailed", retryable=False)
        return await sandbox(call)

    return handler


@pytest.mark.parametrize(
    ("error", "on", "tries"),
    [
        pytest.param(ToolError("CodeFailed"), None, 2, id="a-program-that-failed-is-tried-again"),
        pytest.param(ToolError("CodeOutOfMemory", retryable=False), None, 1, id="one-without-enough-memory-is-not"),
        pytest.param(
            ToolError("CodeOutOfMemory", retryable=False), ["CodeOutOfMemory"], 2, id="unless-it-is-asked-for"
        ),
        pytest.param(ToolError("SandboxUnavailable", retryable=False), None, 1, id="no-sandbox"),
    ],
)
def test_code_is_tried_again_as_retry_says(simulation: Any, error: ToolError, on: Any, tries: int) -> None:
    sandbox = Sandbox(error)
    retry = {"limit": 3, **({"on": on} if on else {})}
    world = simulation.finish({"nodes": [code(keys={"retry": retry})]}, handler=sandbox)
    assert len(sandbox.calls) == tries
    ended: Entry = world.of(Kind.NODE_FINISHED, "run")[0]
    assert ended.reason == ("" if tries > 1 else error.info.reason)


def test_code_that_failed_is_an_output_where_the_run_goes_on(simulation: Any) -> None:
    sandbox = Sandbox(ToolError("CodeFailed", retryable=False))
    spec = {"nodes": [code(keys={"onError": "Continue"})], "output": "{{ outputs.run.reason }}"}
    assert simulation.finish(spec, handler=sandbox).end.output == "CodeFailed"


@pytest.mark.parametrize(
    ("given", "path", "text"),
    [
        pytest.param({"language": "ruby"}, "code.language", "one of python, shell", id="language"),
        pytest.param({"source": ""}, "code.source", "is required", id="no-source"),
        pytest.param(
            {"source": "print('{{ inputs.name }}')"},
            "code.source",
            "never filled in, or what a model wrote would become a program: give {{ inputs.name }} as a value of "
            'code.inputs, and read inputs["x"]',
            id="template",
        ),
        pytest.param(
            {"language": "shell", "source": "echo {{outputs.a['b']}}"}, "code.source", 'and read "$x"', id="in-a-shell"
        ),
        pytest.param({"inputs": {"x": "{{ inputs. }}"}}, "code.inputs.x", "code.inputs.x", id="expression-of-inputs"),
        pytest.param({"files": {"x": "{{ outputs.no }}"}}, "code.files.x", "unknown node", id="expression-of-files"),
        pytest.param({"language": "shell", "inputs": {"a-b": 1}}, "code.inputs.a-b", "is a variable", id="variable"),
        pytest.param({"files": []}, "code.files", "is a map", id="no-map"),
        pytest.param({"files": {f"f{i}": "" for i in range(65)}}, "code.files", "at most 64", id="many"),
        pytest.param({"files": {"/etc/passwd": ""}}, "code.files", "relative", id="absolute"),
        pytest.param({"files": {"a/../../b": ""}}, "code.files", "relative", id="upwards"),
        pytest.param({"files": {"a//b": ""}}, "code.files", "relative", id="doubled"),
        pytest.param({"files": {"./a": ""}}, "code.files", "relative", id="dot"),
        pytest.param({"files": {"a\n": ""}}, "code.files", "plain characters", id="line"),
        pytest.param({"files": {"": ""}}, "code.files", "plain characters", id="empty"),
        pytest.param({"files": {"x" * 256: ""}}, "code.files", "255", id="long"),
        pytest.param({"files": {"out/a": ""}}, "code.files", "what the program writes", id="out"),
    ],
)
def test_check_finds_what_is_wrong_with_a_program(given: dict[str, Any], path: str, text: str) -> None:
    found = check({"nodes": [code(**given)]})
    assert [problem.path for problem in found] == [f"nodes[0].{path}"]
    assert text in found[0].message
    assert found[0].message.startswith('node "run": ')


def test_check_finds_the_same_in_a_handler() -> None:
    (found,) = check({"nodes": [code()], "finally": {"code": {**PROGRAM, "files": {"../x": ""}}}})
    assert found.path == "finally.code.files"


@pytest.mark.parametrize(
    "source", ["print(f'{{x}} {inputs}')", "d = {'a': {'b': {}}}", "'{{ not_ours }}'", "printf '%s' \"{{\""]
)
def test_check_leaves_other_braces_alone(source: str) -> None:
    assert check({"nodes": [code(source=source, files={"data/a.csv": "{{ run.name }}", "ö.txt": ""})]}) == []
