from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_agent.graph import Graph, GraphError, Schedule, check, check_nested, parse_graph, workflow_names
from fairlead_agent.inputs import check_inputs


def llm(name: str, prompt: str = "x", **keys: Any) -> dict[str, Any]:
    return {"name": name, "llm": {"prompt": prompt, **keys.pop("llm", {})}, **keys}


def spec(*nodes: Any, **keys: Any) -> dict[str, Any]:
    return {"model": "m", "nodes": list(nodes), **keys}


def loop(first: str) -> dict[str, Any]:
    return {"from": first, "until": "true"}


def test_check_finds_nothing_in_a_good_workflow() -> None:
    good = spec(
        llm("a", "{{ inputs.topic }}"),
        llm("b", "{{ outputs.a }} {{ item }} {{ index }}", needs=["a"], forEach="outputs.a", maxParallel=2),
        {"name": "c", "needs": ["b"], "when": "size(outputs.a) > 1", "tool": {"name": "t", "arguments": {"x": 1}}},
        inputs=[{"name": "topic", "type": "string", "enum": ["x"], "default": "x"}],
        output={"all": ["{{ outputs.b }}", "{{ run.name }}"]},
    )
    assert check(good) == []


@pytest.mark.parametrize(
    ("wrong", "path", "text"),
    [
        pytest.param(
            spec(llm("draft", needs=["reviw"]), llm("review")),
            "nodes[0].needs[0]",
            'node "draft": needs unknown node "reviw"; did you mean "review"?',
            id="unknown-need",
        ),
        pytest.param(
            spec(llm("a", needs=["c"]), llm("b", needs=["a"]), llm("c", needs=["b"])),
            "nodes[0].needs",
            "cycle (a -> c -> b -> a)",
            id="cycle",
        ),
        pytest.param(spec(llm("a", needs=["a"])), "nodes[0].needs", "it needs itself: remove it", id="self-need"),
        pytest.param(spec(llm("a"), llm("a")), "nodes[1].name", "is taken by nodes[0]", id="duplicate"),
        pytest.param(spec(llm("in")), "nodes[0].name", '"in" is a word of CEL', id="keyword"),
        pytest.param(spec(llm("A-b")), "nodes[0].name", 'not "A-b"', id="bad-name"),
        pytest.param(
            spec({"name": "a", "llm": {"prompt": "x"}, "tool": {"name": "t"}}),
            "nodes[0]",
            "this one has llm and tool",
            id="two-actions",
        ),
        pytest.param(spec({"name": "a"}), "nodes[0]", "this one has none", id="no-action"),
        pytest.param({"nodes": [llm("a")]}, "nodes[0].llm.model", "set spec.model", id="no-model"),
        pytest.param(
            spec(llm("a"), llm("b", "{{ outputs.a }}")),
            "nodes[1].llm.prompt",
            'refers to outputs.a, but "a" is no ancestor: add it to needs',
            id="no-ancestor",
        ),
        pytest.param(
            spec(llm("abc"), llm("b", when="outputs.abd == 1", needs=["abc"])),
            "nodes[1].when",
            'unknown node "abd"; did you mean "abc"?',
            id="unknown-node",
        ),
        pytest.param(spec(llm("a", "{{ outputs.a }}")), "nodes[0].llm.prompt", "own output", id="own-output"),
        pytest.param(
            spec(
                {"name": "a", "tool": {"name": "t", "arguments": {"q": [{"z": "{{ inputs.mesage }}"}]}}},
                inputs=[{"name": "message"}],
            ),
            "nodes[0].tool.arguments.q[0].z",
            'unknown input "mesage"; did you mean "message"?',
            id="unknown-input",
        ),
        pytest.param(spec(llm("a", when="inputs.x")), "nodes[0].when", "declare it in spec.inputs", id="no-inputs"),
        pytest.param(spec(llm("a", when="1 +")), "nodes[0].when", "is no CEL expression", id="bad-cel"),
        pytest.param(spec(llm("a", when="{{ true }}")), "nodes[0].when", "leave out the {{ }}", id="template-in-when"),
        pytest.param(spec(llm("a", when=True)), "nodes[0].when", "not boolean: put it in quotes", id="yaml-boolean"),
        pytest.param(spec(llm("a", "{{ x")), "nodes[0].llm.prompt", "that ends it", id="unclosed"),
        pytest.param(spec(llm("a", "{{ item }}")), "nodes[0].llm.prompt", "node with forEach", id="item-alone"),
        pytest.param(
            spec(llm("a", when="item", forEach="[1]")), "nodes[0].when", "node with forEach", id="item-in-when"
        ),
        pytest.param(
            spec(llm("a", forEach="[1]", repeat={"from": "a", "until": "true"})),
            "nodes[0].repeat",
            "do not go together",
            id="for-each-and-repeat",
        ),
        pytest.param(spec(llm("a", llm={"output": {"type": "strin"}})), "nodes[0].llm.output", '"strin"', id="schema"),
        pytest.param(
            spec(llm("a", llm={"output": {"$ref": "https://example.com/x"}})),
            "nodes[0].llm.output",
            "JSON Schema",
            id="remote",
        ),
        pytest.param(spec(llm("a", retry={"limit": -1})), "nodes[0].retry.limit", "0 or more", id="retry"),
        pytest.param(spec(llm("a", retry={"on": "Timeout"})), "nodes[0].retry.on", "list of reasons", id="retry-on"),
        pytest.param(spec(llm("a", maxParallel=3)), "nodes[0].maxParallel", "remove it", id="max-parallel"),
        pytest.param(spec(llm("a", timeoutSeconds=0)), "nodes[0].timeoutSeconds", "over 0", id="timeout"),
        pytest.param(spec(llm("a", onError="Ignore")), "nodes[0].onError", "Fail or Continue", id="on-error"),
        pytest.param(spec(llm("a"), output="{{ outputs.b }}"), "output", 'unknown node "b"', id="output"),
        pytest.param(spec(llm("a"), output="{{ item }}"), "output", "only in nodes", id="output-item"),
        pytest.param(spec(*(llm(f"n{i}") for i in range(257))), "nodes", "at most 256", id="too-many"),
        pytest.param(
            spec(llm("a"), inputs=[{"name": "x", "type": "int"}]), "inputs[0].type", "one of string", id="type"
        ),
        pytest.param(
            spec(llm("a"), inputs=[{"name": "x", "type": "integer", "default": "1"}]),
            "inputs[0].default",
            "must be of type integer, but is string",
            id="default",
        ),
        pytest.param(
            spec(llm("a"), inputs=[{"name": "x"}, {"name": "x"}]), "inputs[1].name", "twice", id="input-twice"
        ),
        pytest.param(spec(llm("a"), inputs=[{"name": "in"}]), "inputs[0].name", "a word of CEL", id="input-keyword"),
        pytest.param({}, "nodes", "at least one node", id="empty"),
        pytest.param(
            spec(llm("a"), llm("b", needs=["a"], repeat=loop("x"))),
            "nodes[1].repeat.from",
            'unknown node "x"',
            id="repeat-unknown",
        ),
        pytest.param(
            spec(llm("a"), llm("b", repeat=loop("a"))),
            "nodes[1].repeat.from",
            'the node itself or one that it needs: "a" is neither',
            id="repeat-no-ancestor",
        ),
        pytest.param(
            spec(llm("x"), llm("a"), llm("b", needs=["a", "x"], repeat=loop("a"))),
            "nodes[2].repeat.from",
            'entered only through it, but "b" needs "x" from outside: let "a" need "x" instead',
            id="repeat-entered-aside",
        ),
        pytest.param(
            spec(
                llm("a"),
                llm("b", needs=["a"], repeat=loop("a")),
                llm("c", needs=["b"]),
                llm("d", needs=["c"], repeat=loop("b")),
            ),
            "nodes[1].repeat.from",
            'overlaps with what "d" repeats (both have "b")',
            id="repeat-overlap",
        ),
        pytest.param(spec(llm("a", repeat={"from": "a"})), "nodes[0].repeat.until", "is required", id="no-until"),
        pytest.param(spec(llm("a", repeat={"until": "true"})), "nodes[0].repeat.from", "is required", id="no-from"),
        pytest.param(
            spec(llm("a", repeat=loop("a") | {"maxIterations": 0})),
            "nodes[0].repeat.maxIterations",
            "whole number over 0",
            id="iterations",
        ),
        pytest.param(
            spec(llm("a", repeat=loop("a") | {"onExhausted": "Stop"})),
            "nodes[0].repeat.onExhausted",
            "Fail or Continue",
            id="exhausted",
        ),
        pytest.param(spec({"name": "a", "wait": {}}), "nodes[0].wait", "exactly one of", id="wait-nothing"),
        pytest.param(spec({"name": "a", "wait": {"seconds": -1}}), "nodes[0].wait.seconds", "from 0", id="wait-past"),
        pytest.param(
            spec({"name": "a", "wait": {"until": "1 +"}}), "nodes[0].wait.until", "no CEL expression", id="wait-cel"
        ),
        pytest.param(
            spec({"name": "a", "wait": {"seconds": 1}, "timeoutSeconds": 5}),
            "nodes[0].timeoutSeconds",
            "remove timeoutSeconds",
            id="wait-timeout",
        ),
        pytest.param(
            spec({"name": "a", "approval": {"message": "?"}, "cache": {}}),
            "nodes[0].cache",
            "never used again",
            id="cached-approval",
        ),
        pytest.param(
            spec({"name": "a", "approval": {"onTimeout": "Maybe", "approvers": "me", "timeoutSeconds": 0}}),
            "nodes[0].approval.onTimeout",
            "Reject or Approve",
            id="approval-on-timeout",
        ),
        pytest.param(
            spec(llm("a", cache={"key": "outputs.b"})), "nodes[0].cache.key", 'unknown node "b"', id="cache-key"
        ),
        pytest.param(spec(llm("a", cache={"key": "item"})), "nodes[0].cache.key", "with forEach", id="cache-key-item"),
        pytest.param(spec(llm("a", llm={"tools": "sql"})), "nodes[0].llm.tools", "list of names", id="tools"),
        pytest.param(spec(llm("a", llm={"maxTurns": 0.5})), "nodes[0].llm.maxTurns", "whole number", id="turns"),
        pytest.param(spec(llm("a", "{{ memory.x }}")), "nodes[0].llm.prompt", "not supported yet", id="memory"),
        pytest.param(spec({"name": "a", "agent": {"name": "x"}}), "nodes[0].agent.prompt", "is required", id="agent"),
        pytest.param(spec({"name": "a", "workflow": {}}), "nodes[0].workflow.name", "is required", id="workflow"),
        pytest.param(
            spec(llm("a"), onFailure={"tool": {"name": "t", "arguments": {"x": "{{ outputs.b }}"}}}),
            "onFailure.tool.arguments.x",
            'unknown node "b"',
            id="handler-reference",
        ),
        pytest.param(
            spec(llm("a"), **{"finally": {"approval": {"message": "?"}, "when": "true"}}),
            "finally",
            "a handler has exactly one of llm, agent, tool, code, workflow; this one has none",
            id="handler-action",
        ),
        pytest.param(spec(llm("a"), onFailure=[]), "onFailure", "is a map, not array", id="handler-shape"),
        pytest.param(spec(llm("a"), timeoutSeconds="1h"), "timeoutSeconds", "number over 0", id="spec-timeout"),
        pytest.param([], "", "the spec is a map, not array", id="no-map"),
    ],
)
def test_check_names_node_field_and_fix(wrong: Any, path: str, text: str) -> None:
    found = {problem.path: problem.message for problem in check(wrong)}
    assert text in found.get(path, f"nothing at {path}, but {found}")
    with pytest.raises(GraphError) as caught:
        parse_graph(wrong)
    assert caught.value.problems == tuple(check(wrong))


def test_check_finds_everything_at_once() -> None:
    wrong = spec(llm("a", needs=["b", "x"]), llm("b", needs=["a"], when="outputs.y"), llm("c", needs=["c"]), 5, {})
    paths = [problem.path for problem in check(wrong)]
    for path in ("nodes[0].needs[1]", "nodes[0].needs", "nodes[1].when", "nodes[2].needs", "nodes[3]", "nodes[4]"):
        assert path in paths


def test_check_allows_every_construct() -> None:
    good = spec(
        llm("draft", "{{ outputs.review }} {{ iteration }}", llm={"tools": ["sql"], "maxTurns": 3}),
        llm("facts", "{{ outputs.draft }}", needs=["draft"], cache={"ttlSeconds": 60, "key": "outputs.draft"}),
        llm("review", "{{ outputs.review }}", needs=["facts"], repeat=loop("draft") | {"until": "outputs.review > 8"}),
        {"name": "pause", "needs": ["review"], "wait": {"until": 'timestamp("2026-01-01T00:00:00Z")'}},
        {"name": "ask", "needs": ["pause"], "approval": {"message": "{{ outputs.draft }}?", "approvers": ["x"]}},
        {"name": "each", "forEach": "[1]", "workflow": {"name": "w", "inputs": {"x": "{{ item }}"}}},
        {"name": "turn", "agent": {"name": "x", "prompt": "?", "output": {"type": "object"}}},
        {"name": "run", "code": {"language": "python", "source": "1"}},
        onFailure={"tool": {"name": "t", "arguments": {"why": "{{ run.reason }} {{ outputs.ask }}"}}, "retry": {}},
        **{"finally": {"workflow": {"name": "w"}, "timeoutSeconds": 5}},
    )
    assert check(good) == []
    graph = parse_graph(good)
    assert graph.regions["review"].members == {"draft", "facts", "review"}
    assert graph.innermost["facts"] == ("review",)
    assert graph.released["review"] == ("pause",)
    assert {path: node.timeout_seconds for path, node in graph.handlers.items()} == {"@onFailure": 60, "@finally": 5}


@given(st.integers(2, 6), st.data())
def test_check_accepts_a_region_that_is_entered_through_its_first_node_only(size: int, data: st.DataObject) -> None:
    needs = {i: data.draw(st.sets(st.integers(0, i - 1), max_size=2)) if i else set() for i in range(size)}
    first, end = sorted(data.draw(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))))
    nodes = [{"name": f"n{i}", "needs": [f"n{need}" for need in needs[i]], "tool": {"name": "t"}} for i in needs]
    nodes[end]["repeat"] = loop(f"n{first}")

    def paths(to: int) -> list[set[int]]:
        further = [path | {to} for need in needs[to] for path in paths(need)]
        return [*further, {to}] if to == first else further

    members = set().union(*paths(end))
    entered = any(need not in members for member in members - {first} for need in needs[member])
    assert bool(check({"nodes": nodes})) == (not members or entered)


def nested(*names: str, **keys: Any) -> dict[str, Any]:
    return spec(*({"name": f"run_{name}", "workflow": {"name": name}} for name in names), **keys)


@pytest.mark.parametrize(
    ("outer", "workflows", "path", "text"),
    [
        pytest.param(nested("a"), {"a": nested("a")}, "nodes[0].workflow.name", "(a -> a)", id="itself"),
        pytest.param(
            nested("a"), {"a": nested("b"), "b": nested("a")}, "nodes[0].workflow.name", "(a -> b -> a)", id="cycle"
        ),
        pytest.param(nested("me"), {"me": nested("me")}, "nodes[0].workflow.name", "(me -> me)", id="the-run-s-own"),
        pytest.param(
            nested("w0"),
            {f"w{i}": nested(f"w{i + 1}") for i in range(8)},
            "nodes[0].workflow.name",
            "more than 8 deep",
            id="deep",
        ),
        pytest.param(
            nested("a"),
            {"a": spec(llm("x", needs=["y"]))},
            "nodes",
            'workflow "a": node "x": needs unknown',
            id="wrong",
        ),
        pytest.param(
            nested("a"),
            {"a": spec(llm("x"), onFailure={"workflow": {"name": "b", "inputs": {"x": 1}}}), "b": spec(llm("x"))},
            "onFailure.workflow.inputs.x",
            'workflow "a": node "onFailure": workflow "b" has no input "x"',
            id="handler",
        ),
        pytest.param(
            spec({"name": "n", "workflow": {"name": "a", "inputs": {"mesage": 1}}}),
            {"a": spec(llm("x"), inputs=[{"name": "message"}])},
            "nodes[0].workflow.inputs.mesage",
            'no input "mesage"; did you mean "message"?',
            id="unknown-input",
        ),
        pytest.param(
            spec(llm("x"), **{"finally": {"workflow": {"name": "a"}}}),
            {"a": spec(llm("x"), inputs=[{"name": "message", "required": True}])},
            "finally.workflow.inputs",
            'requires input "message"',
            id="missing-input-of-a-handler",
        ),
    ],
)
def test_check_nested_names_what_is_wrong(outer: Any, workflows: dict[str, Any], path: str, text: str) -> None:
    found = {problem.path: problem.message for problem in check_nested(outer, workflows, name="me")}
    assert text in found.get(path, f"nothing at {path}, but {found}")


def test_check_nested_takes_many_ways_to_the_same_workflow() -> None:
    layers = {f"w{i}": nested(*[f"w{i + 1}"] * 20) if i < 6 else spec(llm("x")) for i in range(7)}
    for layer in layers.values():
        for i, node in enumerate(layer["nodes"]):
            node["name"] = f"n{i}"
    assert check_nested(nested("w0", "later"), layers) == []
    assert workflow_names(nested("b", "a", "b", onFailure={"workflow": {"name": "c"}})) == ["b", "a", "c"]


def test_parse_graph_fills_in_what_is_left_out() -> None:
    graph = parse_graph(spec(llm("a"), llm("b", needs=["a", "a"], retry={}, forEach="[1]")))
    assert isinstance(graph, Graph)
    assert graph.dependents == {"a": ("b",), "b": ()}
    assert graph.leaves == ("b",)
    assert graph.nodes["b"].needs == ("a",)
    assert graph.nodes["b"].max_parallel == 8
    assert (graph.nodes["a"].retry.limit, graph.nodes["b"].retry.limit) == (0, 3)
    assert [graph.nodes["b"].retry.delay(n) for n in (1, 2, 3, 100)] == [1, 2, 4, 60]


GARBAGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a", "b", "{{ x", "outputs.a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NODE = st.dictionaries(
    st.sampled_from(
        [
            "name",
            "needs",
            "when",
            "forEach",
            "maxParallel",
            "retry",
            "timeoutSeconds",
            "onError",
            "repeat",
            "cache",
            "llm",
            "tool",
            "wait",
            "approval",
            "workflow",
        ]
    ),
    GARBAGE
    | st.just("a")
    | st.lists(st.sampled_from(["a", "b", 1]), max_size=3)
    | st.dictionaries(
        st.sampled_from(["prompt", "output", "name", "arguments", "limit", "on", "from", "until"]), GARBAGE
    ),
)
SPEC = GARBAGE | st.fixed_dictionaries(
    {},
    optional={
        "nodes": st.lists(NODE | GARBAGE, max_size=5) | GARBAGE,
        "inputs": GARBAGE,
        "output": GARBAGE,
        "model": GARBAGE,
        "timeoutSeconds": GARBAGE,
        "onFailure": NODE | GARBAGE,
        "finally": NODE | GARBAGE,
    },
)


@given(SPEC)
def test_check_takes_any_garbage(garbage: Any) -> None:
    problems = check(garbage)
    assert all(problem.message for problem in problems)
    assert isinstance(check_nested(garbage, {"a": garbage, "b": garbage}), list)
    if not problems:
        graph = parse_graph(garbage)
        assert isinstance(graph, Graph)
        assert Schedule(graph, inputs={}, run={}, workflows={"a": garbage}).advance(datetime(2026, 1, 1, tzinfo=UTC))


@given(
    GARBAGE | st.lists(st.dictionaries(st.sampled_from(["name", "type", "default", "enum", "required"]), GARBAGE)),
    GARBAGE,
)
def test_check_inputs_takes_any_garbage(declared: Any, given_: Any) -> None:
    values, problems = check_inputs(declared, given_)
    assert isinstance(values, dict)
    assert isinstance(problems, list)


DECLARED = [
    {"name": "message", "type": "string", "required": True},
    {"name": "count", "type": "integer", "default": 3, "enum": [1, 3]},
    {"name": "ratio", "type": "number"},
    {"name": "flag", "type": "boolean"},
    {"name": "list", "type": "array"},
    {"name": "map", "type": "object"},
]


def test_check_inputs_fills_in_defaults_and_nulls() -> None:
    values, problems = check_inputs(DECLARED, {"message": "hi", "ratio": 1})
    assert problems == []
    assert values == {"message": "hi", "count": 3, "ratio": 1, "flag": None, "list": None, "map": None}


@pytest.mark.parametrize(
    ("given_", "path", "text"),
    [
        ({}, "inputs.message", "is required"),
        ({"message": None}, "inputs.message", "is required"),
        ({"message": 1}, "inputs.message", "must be of type string, but is integer"),
        ({"message": "x", "count": 2}, "inputs.count", "must be one of 1, 3"),
        ({"message": "x", "count": True}, "inputs.count", "but is boolean"),
        ({"message": "x", "count": 1.5}, "inputs.count", "but is number"),
        ({"message": "x", "flag": "yes"}, "inputs.flag", "but is string"),
        ({"message": "x", "list": {}}, "inputs.list", "but is object"),
        ({"message": "x", "mesage": "y"}, "inputs.mesage", 'unknown input "mesage"; did you mean "message"?'),
        ({"message": "x" * (2 << 20)}, "inputs", "put the data in a ConfigMap"),
        ([1], "inputs", "not array"),
    ],
)
def test_check_inputs_names_the_mistake(given_: Any, path: str, text: str) -> None:
    found = {problem.path: problem.message for problem in check_inputs(DECLARED, given_)[1]}
    assert text in found[path]
