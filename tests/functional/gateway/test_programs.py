"""Programs of nodes and of models, through a real gateway, in a real sandbox."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.storage.base import RunEnd, RunState
from fairlead.testing.storage import NOW
from fairlead.testing.world import Pod, World

pytestmark = pytest.mark.bubblewrap

PYTHON = """
import pathlib, sys
print("for", inputs["name"])
print("careful", file=sys.stderr)
rows = pathlib.Path("data/rows.csv").read_text().split()
pathlib.Path("out/report.txt").write_text("3 rows\\n")
pathlib.Path("out/raw.bin").write_bytes(bytes([0, 255]))
output = {"rows": len(rows), "cities": sorted(inputs["cities"])}
"""
NODES: list[dict[str, Any]] = [
    {"name": "count", "code": {"language": "python", "source": PYTHON}},
    {
        "name": "greet",
        "code": {"language": "shell", "source": 'echo "hello $name"; echo "$list" > out/list; exit $status'},
    },
    {"name": "loop", "code": {"language": "python", "source": "while True: pass", "limits": {"timeoutSeconds": 1}}},
    {"name": "eat", "code": {"language": "python", "source": "x = b'x' * (1 << 30)", "limits": {"memoryMiB": 64}}},
    {"name": "long", "code": {"language": "shell", "source": "sleep 600", "limits": {"timeoutSeconds": 600}}},
    {"name": "write", "llm": {"prompt": "x", "tools": ["python", "shell", "sums"]}},
]
TOOLS = {"sums": {"builtin": {"name": "python", "config": {"source": "output = sum(inputs['of'])"}}}}


async def started(world: World, *, pod: str = "agent-0") -> tuple[Any, Pod, dict[str, Any]]:
    run = await world.submit(nodes=NODES, tools=TOOLS)
    played = await world.pod(pod)
    (task,) = await played.claim()
    return run, played, task


async def execute(pod: Pod, task: dict[str, Any], node: str, **code: Any) -> Any:
    return (await pod.call(task, node, action="code", code=code)).raise_for_status().json()


async def test_python_node_gives_output_texts_and_files(world: World) -> None:
    run, pod, task = await started(world)
    given = {"inputs": {"name": "Ada", "cities": ["Kiel", "Bonn"]}, "files": {"data/rows.csv": "a\nb\nc\n"}}

    reply = await execute(pod, task, "count", **given)

    assert reply["result"] == {
        "output": {"rows": 3, "cities": ["Bonn", "Kiel"]},
        "stdout": "for Ada\n",
        "stderr": "careful\n",
        "files": {"report.txt": "3 rows\n", "raw.bin": {"base64": "AP8="}},
        "notes": [],
    }
    (call,) = await world.storage.calls_of_run(run.uid)
    assert (call.intent.action, call.intent.target, call.intent.request["source"]) == ("code", "python", PYTHON)
    (span,) = [one for one in await world.storage.spans_of_run(run.uid) if one.kind == "call"]
    assert (span.name, span.status, span.attributes["fairlead.sandbox"]) == ("execute_tool python", "ok", "bubblewrap")
    again = await execute(pod, task, "count", **given)
    assert (again["replayed"], again["result"]) == (True, reply["result"])


async def test_shell_node_that_fails_says_why(world: World) -> None:
    _, pod, task = await started(world)
    inputs = {"name": "Ada; rm -rf /", "list": [1, {"a": "b"}], "status": 3}
    reply = await execute(pod, task, "greet", inputs=inputs)
    assert reply["error"]["reason"] == "CodeFailed"
    assert "exit code 3" in reply["error"]["message"]
    assert reply["result"]["stdout"] == "hello Ada; rm -rf /\n"
    assert reply["result"]["files"] == {"list": '[1,{"a":"b"}]\n'} or reply["result"]["files"] == {
        "list": '[1, {"a": "b"}]\n'
    }


@pytest.mark.parametrize(
    ("node", "reason", "limit"),
    [("loop", "CodeTimeout", "limits.timeoutSeconds (1)"), ("eat", "CodeOutOfMemory", "limits.memoryMiB (64)")],
)
async def test_node_that_breaks_a_limit_is_told_which(world: World, node: str, reason: str, limit: str) -> None:
    _, pod, task = await started(world)
    error = (await execute(pod, task, node))["error"]
    assert error["reason"] == reason
    assert limit in error["message"]


async def test_pod_cannot_bring_a_program_a_network_or_limits(world: World) -> None:
    _, pod, task = await started(world)
    forged = {"source": "print('mine')", "language": "shell", "network": {"allow": ["evil.example"]}, "inputs": {}}
    reply = await execute(pod, task, "greet", **forged)
    assert "mine" not in str(reply)
    other = await pod.call(task, "write", action="code", code={})
    assert (other.status_code, other.json()["reason"]) == (403, "Refused")


async def test_model_is_answered_by_programs_that_fail_too(world: World) -> None:
    _, pod, task = await started(world)

    async def use(number: int, name: str, **arguments: Any) -> Any:
        tool = {"name": name, "arguments": arguments}
        return (await pod.call(task, "write", number=number, action="tool", tool=tool, digest=str(number))).json()

    good = await use(1, "python", source="print(1 + 1)\noutput = inputs", inputs={"a": 1})
    bad = await use(2, "python", source="1 / 0")
    fixed = await use(3, "sums", inputs={"of": [1, 2, 3]})
    reaching = await use(4, "shell", command="true", network={"allow": ["evil.example"]})

    assert (good["result"]["stdout"], good["result"]["output"], good["result"]["exitCode"]) == ("2\n", {"a": 1}, 0)
    assert bad["result"]["exitCode"] == 1
    assert "ZeroDivisionError" in bad["result"]["stderr"]
    assert fixed["result"]["output"] == 6
    assert reaching["error"]["reason"] == "InvalidArguments"


async def begun(world: World, run: Any, *, count: int) -> None:
    """Wait until so many calls of a run are under way."""
    for _ in range(600):
        if len(await world.storage.calls_of_run(run.uid)) == count:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the calls did not begin")


async def test_programs_of_a_stopped_run_leave_the_sandbox_to_others(world: World) -> None:
    run, pod, task = await started(world)
    waiting = [
        asyncio.create_task(pod.call(task, "long", number=number, action="code", code={}, digest=str(number)))
        for number in range(8)
    ]  # more than there are places
    await begun(world, run, count=len(waiting))
    await world.storage.end_run(run.uid, RunEnd(RunState.CANCELLED, "Stopped", "", None, NOW))

    replies = [(await one).raise_for_status().json() for one in waiting]

    assert {reply["error"]["reason"] for reply in replies} == {"Cancelled"}
    _, pod, task = await started(world, pod="agent-1")
    reply = await execute(pod, task, "greet", inputs={"name": "Ada", "list": [], "status": 0})
    assert reply["result"]["stdout"] == "hello Ada\n"
