from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fairlead_agent.engine import Fenced, batches, digest
from fairlead_agent.protocol import Call, Entry, Kind, State, ToolRequest


def tool(name: str, **keys: Any) -> dict[str, Any]:
    arguments = keys.pop("arguments", {})
    return {"name": name, "tool": {"name": "echo", "arguments": arguments}, **keys}


def llm(name: str, prompt: str = "hi", **keys: Any) -> dict[str, Any]:
    return {"name": name, "llm": {"prompt": prompt, **keys.pop("llm", {})}, **keys}


async def echo(call: Call) -> Any:
    """Give back what came: a tool's arguments, a model's last message."""
    return call.tool.arguments if call.tool else call.llm.messages[-1].content if call.llm else None


def timed(seconds: dict[str, float]) -> Any:
    async def handler(call: Call) -> Any:
        await asyncio.sleep(seconds.get(call.node, 0.0))
        return await echo(call)

    return handler


def test_run_gives_outputs_of_leaves_when_there_is_no_output(simulation: Any) -> None:
    spec = {"nodes": [tool("a", arguments={"x": 1}), tool("b", needs=["a"], arguments={"y": "{{ outputs.a.x }}"})]}
    world = simulation.finish(spec, handler=echo)
    assert world.end.state is State.SUCCEEDED
    assert world.end.output == {"b": {"y": 1}}


def test_run_renders_output_and_run_variable(simulation: Any) -> None:
    spec = {"nodes": [tool("a", arguments={"x": [1]})], "output": {"n": "{{ run.name }}", "v": "{{ outputs.a.x }}"}}
    assert simulation.finish(spec, handler=echo).end.output == {"n": "r", "v": [1]}


def test_run_takes_as_long_as_its_longest_path(simulation: Any) -> None:
    nodes = [tool("a"), tool("b"), tool("c", needs=["a"]), tool("d", needs=["b"]), tool("e", needs=["c", "d"])]
    times = {"a": 1, "b": 10, "c": 20, "d": 2, "e": 3}
    simulation.finish({"nodes": nodes}, handler=timed(times))
    assert simulation.elapsed == pytest.approx(24)  # a, c, e; no barrier makes c wait for b


def test_run_slow_branch_holds_up_nobody(simulation: Any) -> None:
    nodes = [tool("slow"), *(tool(f"f{i}", needs=[f"f{i - 1}"] if i else []) for i in range(10))]
    world = simulation.finish({"nodes": nodes}, handler=timed({"slow": 100, **{f"f{i}": 5 for i in range(10)}}))
    assert world.node("f9").at == simulation.epoch.replace(second=50)
    assert simulation.elapsed == pytest.approx(100)


def test_run_skips_when_false_and_what_needs_only_skipped(simulation: Any) -> None:
    nodes = [
        tool("a"),
        tool("no", needs=["a"], when="1 > 2"),
        tool("after", needs=["no"]),
        tool("join", needs=["a", "after"], arguments={"v": "<{{ outputs.after }}>", "null": "{{ outputs.no }}"}),
    ]
    world = simulation.finish({"nodes": nodes}, handler=echo)
    assert (world.node("no").state, world.node("no").reason) == (State.SKIPPED, "WhenFalse")
    assert (world.node("after").state, world.node("after").reason) == (State.SKIPPED, "NeedsSkipped")
    assert world.end.output == {"join": {"v": "<>", "null": None}}


def test_run_fails_and_names_what_it_took_with_it(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        if call.node == "bad":
            await asyncio.sleep(1)
            raise simulation.tool_error("ToolFailed")
        await asyncio.sleep(100)

    nodes = [tool("bad"), tool("slow"), tool("down", needs=["bad"]), tool("deep", needs=["down"])]
    world = simulation.finish({"nodes": [*nodes, tool("other", needs=["slow"])]}, handler=handler)
    assert world.end.state is State.FAILED
    assert world.end.reason == "NodeFailed"
    assert world.end.error
    assert world.end.error.message == 'node "bad": no'
    found = {
        name: (world.node(name).state.value, world.node(name).reason) for name in ("slow", "down", "deep", "other")
    }
    assert found == {
        "slow": ("Cancelled", "RunFailed"),
        "down": ("Skipped", "UpstreamFailed"),
        "deep": ("Skipped", "UpstreamFailed"),
        "other": ("Skipped", "RunFailed"),
    }
    assert simulation.elapsed == pytest.approx(1)


def test_run_continue_makes_the_error_the_output(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        if call.node == "bad":
            raise simulation.tool_error("ToolFailed")
        return await echo(call)

    nodes = [
        tool("bad", onError="Continue"),
        tool("next", needs=["bad"], arguments={"why": "{{ outputs.bad.reason }}"}),
    ]
    world = simulation.finish({"nodes": nodes}, handler=handler)
    assert world.node("bad").state is State.FAILED
    assert world.node("bad").output == {"reason": "ToolFailed", "message": "no"}
    assert world.end.output == {"next": {"why": "ToolFailed"}}


def test_run_retries_with_growing_pauses_that_hold_up_nobody(simulation: Any) -> None:
    tries: list[float] = []

    async def handler(call: Call) -> Any:
        if call.node == "flaky":
            tries.append(asyncio.get_running_loop().time())
            raise simulation.tool_error("ToolFailed")

    retry = {"limit": 4, "backoffSeconds": 1, "factor": 3, "maxBackoffSeconds": 5}
    nodes = [tool("flaky", retry=retry, onError="Continue"), tool("a"), tool("b", needs=["a"])]
    world = simulation.finish({"nodes": nodes}, handler=handler)
    assert tries == pytest.approx([0, 1, 4, 9, 14])
    assert world.node("b").at == simulation.epoch
    assert world.node("flaky").try_number == 5
    assert len(world.of(Kind.TRY_FAILED)) == 4


@pytest.mark.parametrize(
    ("retry", "error", "calls"),
    [
        pytest.param({"limit": 2}, ("ToolFailed", False), 1, id="what-must-fail-again-is-not-tried-again"),
        pytest.param({"limit": 2, "on": ["Other"]}, ("ToolFailed", True), 1, id="only-the-listed-reasons"),
        pytest.param({"limit": 2, "on": ["ToolFailed"]}, ("ToolFailed", False), 3, id="a-listed-reason-counts"),
        pytest.param(None, ("ToolFailed", True), 1, id="without-retry-once"),
        pytest.param({}, ("ToolFailed", True), 4, id="defaults"),
    ],
)
def test_run_retries_for_the_right_reasons(simulation: Any, retry: Any, error: Any, calls: int) -> None:
    async def handler(_call: Call) -> Any:
        raise simulation.tool_error(error[0], retryable=error[1])

    world = simulation.finish({"nodes": [tool("a", **({} if retry is None else {"retry": retry}))]}, handler=handler)
    assert sum(world.sent.values()) == calls
    assert set(world.sent.values()) == {1}


def test_run_waits_as_long_as_the_provider_asks_but_not_longer_than_the_node_allows(simulation: Any) -> None:
    async def handler(_call: Call) -> Any:
        raise simulation.tool_error("RateLimited", retry_after=1000)

    retry = {"limit": 1, "backoffSeconds": 1, "maxBackoffSeconds": 30}
    simulation.finish({"nodes": [tool("a", retry=retry)]}, handler=handler)
    assert simulation.elapsed == pytest.approx(30)


def test_run_times_out_a_try_and_tries_again(simulation: Any) -> None:
    slow = {"a/-/1/1/0": 60.0}

    async def handler(call: Call) -> Any:
        await asyncio.sleep(slow.get(call.key, 1.0))
        return "ok"

    nodes = [tool("a", timeoutSeconds=5, retry={"limit": 1, "backoffSeconds": 2, "on": ["Timeout"]})]
    world = simulation.finish({"nodes": nodes}, handler=handler)
    assert world.end.output == {"a": "ok"}
    assert simulation.elapsed == pytest.approx(8)


def test_run_over_its_time_fails_with_timeout(simulation: Any) -> None:
    nodes = [tool("a"), tool("b", needs=["a"])]
    world = simulation.finish({"nodes": nodes}, handler=timed({"a": 100}), remaining=7.0)
    assert (world.end.state, world.end.reason) == (State.FAILED, "Timeout")
    assert (world.node("a").state, world.node("a").reason) == (State.CANCELLED, "Timeout")
    assert (world.node("b").state, world.node("b").reason) == (State.SKIPPED, "Timeout")
    assert simulation.elapsed == pytest.approx(7)


def test_stop_cancels_what_runs(simulation: Any) -> None:
    world = simulation.world({"nodes": [tool("a"), tool("b", needs=["a"])]}, handler=timed({"a": 100}))

    async def main() -> None:
        execution = world.execution()
        running = asyncio.create_task(execution.run())
        await asyncio.sleep(3)
        execution.stop()
        await running

    simulation.run(main)
    assert (world.end.state, world.end.reason) == (State.CANCELLED, "Stopped")
    assert world.node("a").state is State.CANCELLED
    assert simulation.elapsed == pytest.approx(3)


def test_run_is_dropped_silently_when_fenced(simulation: Any) -> None:
    world = simulation.world({"nodes": [tool("a")]}, handler=echo, fenced=True)
    with pytest.raises(Fenced):
        simulation.resume(world)
    assert world.journal == []


def test_run_is_dropped_when_a_call_is_fenced(simulation: Any) -> None:
    world = simulation.world({"nodes": [tool("a"), tool("b")]})

    async def handler(call: Call) -> Any:
        await asyncio.sleep(1 if call.node == "a" else 50)
        raise Fenced

    world.handler = handler
    with pytest.raises(Fenced):
        simulation.resume(world)
    assert simulation.elapsed == pytest.approx(1)


def test_run_for_each_keeps_order_and_bounds_parallelism(simulation: Any) -> None:
    now = top = 0

    async def handler(call: Call) -> Any:
        nonlocal now, top
        now += 1
        top = max(top, now)
        await asyncio.sleep(10 - int(call.item or 0) % 7)
        now -= 1
        return call.tool.arguments["v"] if call.tool else None

    node = tool("each", forEach="inputs.list", maxParallel=3, arguments={"v": "{{ index }}:{{ item.n }}"})
    inputs = {"list": [{"n": i * i} for i in range(12)]}
    spec = {"inputs": [{"name": "list", "type": "array"}], "nodes": [node]}
    world = simulation.finish(spec, inputs=inputs, handler=handler)
    assert world.end.output == {"each": [f"{i}:{i * i}" for i in range(12)]}
    assert top == 3


def test_run_for_each_over_a_map_goes_by_sorted_key(simulation: Any) -> None:
    node = tool("each", forEach="{'b': 1, 'a': 2}", arguments={"k": "{{ index }}", "v": "{{ item }}"})
    world = simulation.finish({"nodes": [node]}, handler=echo)
    assert list(world.end.output["each"].items()) == [("a", {"k": "a", "v": 2}), ("b", {"k": "b", "v": 1})]


@pytest.mark.parametrize(("source", "expected"), [("[]", []), ("{}", {})])
def test_run_for_each_over_nothing_counts_as_ran(simulation: Any, source: str, expected: Any) -> None:
    nodes = [tool("each", forEach=source), tool("next", needs=["each"], arguments={"v": "{{ outputs.each }}"})]
    world = simulation.finish({"nodes": nodes}, handler=echo)
    assert world.end.output == {"next": {"v": expected}}


@pytest.mark.parametrize("source", ["1", "null", "'text'", "true"])
def test_run_for_each_over_something_else_fails_clearly(simulation: Any, source: str) -> None:
    world = simulation.finish({"nodes": [tool("each", forEach=source)]})
    assert world.node("each").error.reason == "ExpressionError"
    assert "not a list or a map" in world.node("each").error.message


def test_run_for_each_item_failure_fails_the_node(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        await asyncio.sleep(1 if call.item == "1" else 50)
        raise simulation.tool_error("ToolFailed")

    world = simulation.finish({"nodes": [tool("each", forEach="[1, 2, 3]")]}, handler=handler)
    assert world.node("each").error.message == "item 1: no"
    states = {entry.item: entry.state.value for entry in world.of(Kind.ITEM_FINISHED)}
    assert states == {"0": "Cancelled", "1": "Failed", "2": "Cancelled"}


def test_run_for_each_item_continues_and_retries_by_itself(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        if call.item == "1" or call.key == "each/=2/1/1/0":
            raise simulation.tool_error("ToolFailed")
        return call.item

    node = tool("each", forEach="['a', 'b', 'c']", onError="Continue", retry={"limit": 1, "backoffSeconds": 1})
    world = simulation.finish({"nodes": [node]}, handler=handler)
    assert world.end.output == {"each": ["0", {"reason": "ToolFailed", "message": "no"}, "2"]}
    assert world.node("each").state is State.SUCCEEDED


def test_run_for_each_takes_ten_thousand_items_and_no_more(simulation: Any) -> None:
    spec = {
        "inputs": [{"name": "list", "type": "array"}],
        "nodes": [tool("each", forEach="inputs.list", maxParallel=500)],
    }
    world = simulation.finish(spec, inputs={"list": [0] * 10_000}, handler=lambda call: _give(call.item))
    assert world.end.output == {"each": [str(i) for i in range(10_000)]}
    over = simulation.finish(spec, inputs={"list": [0] * 10_001})
    assert "at most 10000" in over.node("each").error.message


async def _give(value: Any) -> Any:
    return value


def test_run_refuses_an_output_over_a_mebibyte(simulation: Any) -> None:
    world = simulation.finish({"nodes": [tool("a")]}, handler=lambda _call: _give("x" * (1 << 20)))
    assert world.node("a").error.reason == "OutputTooLarge"
    assert world.node("a").output is None


@pytest.mark.parametrize(
    "output",
    [{"n": float("nan")}, [float("inf")], {"t": "\ud83d"}, {"id": 1 << 70}, json.loads("[" * 150 + "]" * 150)],
    ids=["nan", "infinity", "surrogate", "integer", "deep"],
)
def test_run_fails_a_node_whose_output_cannot_be_kept(simulation: Any, output: Any) -> None:
    node = tool("a", onError="Continue")
    spec = {"nodes": [node, tool("b", needs=["a"], arguments={"why": "{{ outputs.a.reason }}"})]}
    world = simulation.finish(spec, handler=lambda call: _give(output) if call.node == "a" else echo(call))
    assert world.node("a").error.message.startswith("the output cannot be kept: ")
    assert world.end.output == {"b": {"why": "OutputInvalid"}}


def test_run_whose_own_output_cannot_be_kept_fails_and_runs_finally(simulation: Any) -> None:
    finally_ = {"tool": {"name": "echo", "arguments": {"why": "{{ run.reason }}"}}}
    spec = {"nodes": [tool("a")], "output": {"id": 1 << 70}, "finally": finally_}
    world = simulation.finish(spec, handler=echo)
    assert (world.end.state, world.end.reason, world.end.output) == (State.FAILED, "OutputInvalid", None)
    assert world.node("@finally").output == {"why": "OutputInvalid"}


def test_run_refuses_a_run_output_over_a_mebibyte(simulation: Any) -> None:
    spec = {"nodes": [tool("a"), tool("b")]}
    world = simulation.finish(spec, handler=lambda _call: _give("x" * 600_000))
    assert (world.end.state, world.end.reason) == (State.FAILED, "OutputTooLarge")


@pytest.mark.parametrize(
    ("node", "text"),
    [
        pytest.param(tool("a", when="inputs.n.x"), 'a": "inputs.n.x" failed', id="when"),
        pytest.param(tool("a", when="inputs.n"), "gives null, not true or false", id="when-no-boolean"),
        pytest.param(tool("a", forEach="inputs.n.x"), "inputs.n is null", id="for-each"),
        pytest.param(tool("a", arguments={"q": "{{ inputs.n.x }}"}), "inputs.n is null", id="arguments"),
        pytest.param(llm("a", prompt="{{ inputs.n.x }}"), "inputs.n is null", id="prompt"),
    ],
)
def test_run_fails_the_node_whose_expression_fails(simulation: Any, node: Any, text: str) -> None:
    spec = {"model": "m", "inputs": [{"name": "n"}], "nodes": [node]}
    world = simulation.finish(spec, inputs={"n": None}, handler=echo)
    assert world.node("a").error.reason == "ExpressionError"
    assert text in world.end.error.message
    assert sum(world.sent.values()) == 0


def test_run_fails_when_its_output_fails(simulation: Any) -> None:
    world = simulation.finish({"nodes": [tool("a")], "output": "{{ outputs.a.b.c }}"}, handler=echo)
    assert (world.end.state, world.end.reason) == (State.FAILED, "ExpressionError")


def test_run_ends_a_run_whose_graph_is_wrong(simulation: Any) -> None:
    world = simulation.finish({"nodes": [tool("a", needs=["b"])]})
    assert world.end.reason == "InvalidGraph"
    assert 'unknown node "b"' in world.end.error.message


def test_run_ends_a_run_whose_journal_is_refused(simulation: Any) -> None:
    def refuse(entries: Any) -> str:
        return "TooLarge" if any(entry.state is State.SUCCEEDED for entry in entries) else ""

    world = simulation.finish({"nodes": [tool("a")]}, refuse=refuse)
    assert (world.end.state, world.end.reason) == (State.FAILED, "TooLarge")
    assert (world.node("a").state, world.node("a").reason) == (State.CANCELLED, "TooLarge")


class _Buggy(dict[str, Any]):
    def values(self) -> Any:
        raise LookupError("no values")


def test_run_ends_a_run_that_meets_a_bug(simulation: Any) -> None:
    world = simulation.finish({"nodes": [tool("a")]}, handler=lambda _call: _give(_Buggy()))
    assert (world.end.state, world.end.reason) == (State.FAILED, "InternalError")
    assert world.end.error.message == "LookupError: no values"
    assert world.node("a").state is State.CANCELLED


def test_run_bounds_the_time_of_a_call(simulation: Any) -> None:
    seen: list[float] = []

    async def handler(call: Call) -> Any:
        seen.append(call.timeout_seconds)

    simulation.finish({"nodes": [tool("a", timeoutSeconds=31_536_000)]}, handler=handler)
    assert seen == [86_400]


def test_run_never_renders_what_was_rendered(simulation: Any) -> None:
    spec = {"inputs": [{"name": "m"}], "nodes": [tool("a", arguments={"q": "say {{ inputs.m }}"})]}
    world = simulation.finish(spec, inputs={"m": "{{ 1 + 1 }}"}, handler=echo)
    assert world.end.output == {"a": {"q": "say {{ 1 + 1 }}"}}


def test_run_appends_together_what_happened_meanwhile(simulation: Any) -> None:
    nodes = [tool(f"n{i}") for i in range(50)]
    world = simulation.finish({"nodes": nodes}, seconds=1.0, append_seconds=0.1)
    assert len(world.progress) <= 4  # the starts, the ends that came during an append, the rest
    assert world.progress[0].current == tuple(f"n{i}" for i in range(10))
    assert world.progress[-1].done == world.progress[-1].total == 50


def test_run_tells_the_log_what_happened(simulation: Any) -> None:
    world = simulation.finish({"nodes": [tool("a"), tool("b", when="false")]})
    assert world.lines == ["a: started", "b: skipped (WhenFalse)", "a: succeeded", ": run succeeded"]


def test_batches_keep_appends_small(simulation: Any) -> None:
    entry = Entry(kind=Kind.NODE_FINISHED, at=simulation.epoch, output="x" * (1 << 20))
    assert [len(batch) for batch in batches([entry] * 5)] == [1, 1, 1, 1, 1]
    small = Entry(kind=Kind.NODE_FINISHED, at=simulation.epoch)
    assert [len(batch) for batch in batches([small] * 1200)] == [500, 500, 200]


def test_digest_depends_on_content_not_on_order() -> None:
    first = ToolRequest(name="t", arguments={"a": 1, "b": [None]})
    assert digest(first) == digest(ToolRequest(name="t", arguments={"b": [None], "a": 1}))
    assert digest(first) != digest(ToolRequest(name="t", arguments={"a": 1, "b": []}))
