from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.estimates import TOOL_CALLS, TURNS, ModelPrice, Range, Values, tokens_of
from fairlead.core.plandrawing import rounded, usd
from fairlead.core.planning import plan_run, secrets_needed
from fairlead.core.profile import Execution, FinishedRun, RunFacts, profile_run, profile_workflow
from fairlead.core.runplan import PlannedNode, RunPlan, There
from fairlead_agent.conversation import Limits
from fairlead_agent.protocol import TurnInfo

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = {"valueFrom": {"secretKeyRef": {"name": "keys", "key": "openai"}}}
PAID = {
    "model": "openai/gpt-4.1-mini",
    "apiKey": KEY,
    "price": {"inputPerMillionTokens": "1", "outputPerMillionTokens": "10"},
}
SCRIPTED = {"scripted": {"responses": [{"reply": "x" * 40}], "usage": {"inputTokens": 7, "outputTokens": 3}}}
ALL: dict[str, Any] = {"models": {}, "agents": {}, "tools": {}, "workflows": {}}


def plan(*nodes: dict[str, Any], inputs: dict[str, Any] | None = None, there: dict[str, Any] | None = None) -> RunPlan:
    declared = [{"name": "rows", "type": "array"}, {"name": "text", "type": "string"}]
    spec = {"model": "m", "inputs": declared, "nodes": list(nodes)}
    return plan_run(spec, inputs, there=There(**{**ALL, "models": {"m": PAID}, **(there or {})}), name="flow")


def ask(name: str, prompt: str = "hi", **more: Any) -> dict[str, Any]:
    llm = {"prompt": prompt, "parameters": {"max_tokens": 100}}
    return {"name": name, "llm": {**llm, **more.pop("llm", {})}, **more}


def node(found: RunPlan, path: str) -> PlannedNode:
    return next(one for one in found.nodes if one.path == path)


def test_plan_run_puts_nodes_into_waves() -> None:
    found = plan(ask("a"), ask("b", needs=["a"]), ask("c", needs=["a"]), ask("d", needs=["b", "c"]))
    assert found.waves == (("a",), ("b", "c"), ("d",))
    assert [one.wave for one in found.nodes] == [1, 2, 2, 3]
    assert not found.problems


def test_plan_run_prices_a_call_to_the_last_digit() -> None:
    found = plan(ask("a", "x" * 400))
    assert (found.input_tokens, found.output_tokens) == (Range(100, 100), Range(10, 100))
    assert found.cost == Range(200_000_000, 1_100_000_000)  # 100 tokens at $1 and 10 to 100 at $10 a million
    assert found.to_json()["estimate"]["cost"] == {"least": "0.0002", "most": "0.0011", "currency": "USD"}


def test_plan_run_counts_what_is_known_of_the_inputs() -> None:
    nodes = (ask("each", "{{ item }}", forEach="inputs.rows"), ask("one", "{{ inputs.text }}", needs=["each"]))
    found = plan(*nodes, inputs={"rows": ["x" * 40, "x" * 80], "text": "x" * 400})
    assert node(found, "each").executions == Range(2, 2)
    assert node(found, "each").estimate.input_tokens == Range(20, 40)
    assert node(found, "one").estimate.input_tokens == Range(100, 100)
    assert not [text for text in found.assumptions if "forEach" in text]


def test_plan_run_assumes_what_only_the_run_knows_and_says_so() -> None:
    found = plan(ask("a"), ask("each", "{{ item }}", needs=["a"], forEach="outputs.a"))
    assert node(found, "each").executions == Range(0, 10)
    assert any("forEach" in text for text in found.assumptions)


def test_plan_run_counts_rounds_retries_and_repairs() -> None:
    schema = {"type": "object"}
    found = plan(
        ask("draft"),
        ask("review", needs=["draft"], repeat={"from": "draft", "until": "true", "maxIterations": 4}),
        ask("typed", retry={"limit": 2}, llm={"output": schema}),
        ask("after", needs=["review"]),
    )
    calls = {one.path: one.estimate.model_calls for one in found.nodes}
    assert calls == {"draft": Range(1, 4), "review": Range(1, 4), "typed": Range(1, 6), "after": Range(1, 1)}
    assert found.model_calls == Range(4, 15)


def test_plan_run_knows_that_a_condition_may_skip_what_depends_on_it() -> None:
    found = plan(
        ask("a"), ask("b", needs=["a"], when="outputs.a == 'x'"), ask("c", needs=["b"]), ask("d", needs=["a", "b"])
    )
    assert {one.path: one.estimate.model_calls.least for one in found.nodes} == {"a": 1, "b": 0, "c": 0, "d": 1}


def test_plan_run_counts_an_agents_turns_and_tools() -> None:
    agent = {"model": "m", "tools": ["sql", "crm"], "maxTurns": 3, "maxToolCalls": 5, "instructions": "x" * 40}
    turn = {"name": "fix", "agent": {"name": "engineer", "prompt": "go"}}
    found = plan(turn, there={"agents": {"engineer": agent}, "tools": {"crm": {"http": {"url": "https://x"}}}})
    assert (found.model_calls, found.tool_calls) == (Range(1, 3), Range(0, 5))
    needed = {(one.kind, one.name): (one.there, one.detail) for one in found.needed}
    assert needed == {
        ("Model", "m"): (True, "openai/gpt-4.1-mini"),
        ("Tool", "sql"): (True, "built in"),
        ("Tool", "crm"): (True, "http"),
        ("Agent", "engineer"): (True, ""),
        ("Secret", "keys"): (None, "key openai"),
    }


@pytest.mark.parametrize("more", [{}, {"maxTurns": 1}, {"maxTurns": 30}])
def test_plan_run_counts_as_many_uses_of_tools_as_the_engine_allows(more: dict[str, int]) -> None:
    asked = ask("a", "x" * 40, llm={"tools": ["sql"], **more})
    turn = {"name": "b", "agent": {"name": "engineer", "prompt": "go"}}
    found = plan(asked, turn, there={"agents": {"engineer": {"model": "m", "tools": ["sql"], **more}}})
    assert [one.estimate.tool_calls for one in found.nodes] == [Range(0, 50), Range(0, 50)]
    assert "or that a tool gives has at most 1,000 tokens" in " ".join(found.assumptions)
    turns = more.get("maxTurns", 10)
    sent = turns * (10 + 100) + 100 * turns * (turns - 1) // 2 + 50 * 1000 * (turns - 1)  # all fifty in the first turn
    assert node(found, "a").estimate.input_tokens == Range(110, sent)
    engine = TurnInfo(agent="a", prompt="", model="m")
    assert Limits(TURNS, TOOL_CALLS) == Limits() == Limits(engine.max_turns, engine.max_tool_calls)


def test_plan_run_asks_nobody_where_everything_is_in_the_cache() -> None:
    inner = {"model": "m", "nodes": [ask("p")]}
    found = plan(
        ask("a", cache={}, retry={"limit": 1}),
        ask("each", forEach="[1, 2]", cache={}),
        {"name": "sub", "workflow": {"name": "inner"}, "cache": {}},
        {"name": "far", "agent": {"name": "far", "prompt": "Hi"}, "cache": {}},
        there={
            "workflows": {"inner": inner},
            "agents": {"far": {"external": {"url": "https://a.example", "costPerCallUSD": "0.002"}}},
        },
    )
    calls = {one.path: one.estimate.model_calls for one in found.nodes}
    assert calls == {
        "a": Range(0, 2),
        "each": Range(0, 2),
        "sub": Range(0, 0),
        "sub/p": Range(0, 1),
        "far": Range(0, 0),
    }
    assert found.cost is not None
    assert (found.cost.least, node(found, "far").cost) == (0, Range(0, 2_000_000_000))
    assert (found.input_tokens.least, found.output_tokens.least) == (0, 0)


def test_plan_run_goes_into_nested_workflows_but_never_in_circles() -> None:
    inner = {
        "model": "m",
        "inputs": [{"name": "x"}],
        "nodes": [ask("b", "{{ inputs.x }}"), {"name": "again", "workflow": {"name": "flow"}}],
    }
    outer = {"name": "a", "workflow": {"name": "inner", "inputs": {"x": "{{ inputs.text }}"}}, "retry": {"limit": 1}}
    found = plan(outer, inputs={"text": "x" * 40}, there={"workflows": {"inner": inner, "flow": {"nodes": [outer]}}})
    assert [one.path for one in found.nodes] == ["a", "a/b", "a/again"]
    assert node(found, "a/b").estimate.model_calls == Range(1, 2)
    assert node(found, "a/b").estimate.input_tokens == Range(10, 20)


def test_plan_run_says_what_is_missing_and_what_was_not_looked_up() -> None:
    nodes = (ask("a"), {"name": "b", "tool": {"name": "crm", "arguments": {}}})
    found = plan(*nodes, there={"models": {}, "secrets": {}})
    assert [problem.reason for problem in found.problems] == ["ModelNotFound", "ToolNotFound"]
    unknown = plan(*nodes, there={"models": None, "tools": None})
    assert not unknown.problems
    assert {one.there for one in unknown.needed} == {None}
    secret = plan(nodes[0], there={"secrets": {("keys", "openai"): False}})
    assert [problem.reason for problem in secret.problems] == ["SecretNotFound"]
    assert "key openai" in secret.problems[0].message


def test_plan_run_of_an_unknown_price_is_not_available_and_never_zero() -> None:
    found = plan(ask("a"), there={"models": {"m": {"model": "acme/x"}}})
    assert found.cost is None
    assert found.unpriced == ("m",)
    assert found.to_json()["estimate"]["cost"]["most"] == "n/a"
    assert "n/a" in found.text()
    priced = plan_run(
        {"model": "m", "nodes": [ask("a")]},
        {},
        there=There(models={"m": {"model": "acme/x"}}),
        prices={"acme/x": ModelPrice(Decimal("0.000001"), Decimal("0.00001"))},
    )
    assert priced.cost is not None


def test_plan_run_of_a_scripted_model_costs_what_it_says() -> None:
    free = plan(ask("a"), there={"models": {"m": SCRIPTED}})
    assert (free.cost, free.input_tokens, free.output_tokens) == (Range(0, 0), Range(7, 7), Range(3, 3))
    assert next(one for one in free.needed if one.kind == "Model").detail == "scripted"
    priced = plan(ask("a"), there={"models": {"m": {**SCRIPTED, "price": PAID["price"]}}})
    assert priced.cost == Range(37_000_000, 37_000_000)


def test_plan_run_finds_mistakes_of_graph_and_inputs() -> None:
    found = plan(ask("a", needs=["nobody"]), inputs={"nonsense": 1, "rows": "no list"})
    reasons = [problem.reason for problem in found.problems]
    assert reasons.count("InvalidInputs") == 2
    assert "InvalidGraph" in reasons


def test_plan_run_draws_a_plan_of_a_cycle() -> None:
    found = plan(ask("a", needs=["b"]), ask("b", needs=["a"]))
    assert found.waves == ()
    assert {one.path for one in found.nodes} == {"a", "b"}
    assert "InvalidGraph" in found.text()


def test_plan_run_takes_a_missing_required_input_for_unknown() -> None:
    spec = {"model": "m", "inputs": [{"name": "q", "required": True}], "nodes": [ask("a", "{{ inputs.q }}")]}
    found = plan_run(spec, None, there=There(models={"m": PAID}))
    assert not found.problems
    assert found.input_tokens == Range(0, 1000)
    assert 'input "q" is not given' in found.assumptions


@pytest.mark.parametrize(
    ("budget", "over"),
    [
        ({"maxCostUSD": "0.001"}, True),
        ({"maxCostUSD": "0.002", "period": "Day"}, False),
        ({"maxTokens": 100}, True),
        ({"maxCostUSD": "1", "maxTokens": 10_000}, False),
    ],
)
def test_plan_run_says_whether_the_budget_may_be_too_small(budget: dict[str, Any], over: bool) -> None:
    spec = {"model": "m", "nodes": [ask("a", "x" * 400)], "budget": budget}
    found = plan_run(spec, {}, there=There(models={"m": PAID}))
    (line,) = [line for line in found.text().splitlines() if line.startswith("  budget")]
    assert ("BudgetExceeded" in line) is over
    assert f"for each {budget.get('period', 'run').lower()}" in line


def test_plan_run_says_where_programs_run_and_what_they_reach() -> None:
    tools = {
        "calculator": {"builtin": {"name": "python", "config": {"network": {"allow": ["a.example", "b.example"]}}}},
        "find": {"builtin": {"name": "sql"}},
    }
    found = plan(
        {"name": "count", "code": {"language": "python", "source": "1"}},
        {"name": "fetch", "code": {"language": "shell", "source": "1", "network": {"allow": ["a.example"]}}},
        {"name": "use", "tool": {"name": "calculator"}},
        ask("write", llm={"tools": ["shell", "find"]}),
        there={"tools": tools},
    )
    sandboxes = {one.name: (one.used_by, one.there) for one in found.needed if one.kind == "Sandbox"}
    assert sandboxes == {
        "without a network": (("count", "write"), None),
        "that may reach a.example": (("fetch",), None),
        "that may reach a.example, b.example": (("use",), None),
    }
    assert node(found, "fetch").notes == ("in a sandbox that may reach a.example",)
    assert not found.problems


@pytest.mark.parametrize(
    ("sandbox", "there", "refused"),
    [
        pytest.param({"name": "docker", "description": "docker"}, (True, True), [], id="docker"),
        pytest.param({"name": "pod", "description": "pod"}, (True, False), ["fetch"], id="pods-have-no-network"),
        pytest.param({"name": "none", "description": "none: no bwrap"}, (False, False), ["count", "fetch"], id="none"),
    ],
)
def test_plan_run_says_whether_programs_can_be_run(
    sandbox: dict[str, str], there: tuple[bool, bool], refused: list[str]
) -> None:
    found = plan(
        {"name": "count", "code": {"language": "python", "source": "1"}},
        {"name": "fetch", "code": {"language": "shell", "source": "1", "network": {"allow": ["a.example"]}}},
        there={"sandbox": sandbox},
    )
    assert tuple(one.there for one in found.needed) == there
    assert [problem.reason for problem in found.problems] == ["SandboxUnavailable"] * len(refused)
    assert all(name in problem.message for name, problem in zip(refused, found.problems, strict=True))


def test_plan_run_shows_what_an_external_agent_costs() -> None:
    there = {"agents": {"far": {"external": {"url": "https://a.example", "costPerCallUSD": "0.002"}}}}
    found = plan({"name": "a", "agent": {"name": "far", "prompt": "Hi"}}, there=there)
    (line,) = [line for line in found.text().splitlines() if "agent far" in line and "external" not in line]
    assert "$0.002" in line


def test_plan_run_adds_handlers() -> None:
    alert = {"tool": {"name": "http_request", "arguments": {}}}
    spec = {"model": "m", "nodes": [ask("a")], "onFailure": alert, "finally": alert}
    found = plan_run(spec, {}, there=There(models={"m": PAID}))
    assert [(one.path, one.executions) for one in found.nodes[1:]] == [
        ("@onFailure", Range(0, 1)),
        ("@finally", Range(1, 1)),
    ]


def test_plan_run_shows_what_earlier_runs_took() -> None:
    end = START + timedelta(seconds=2)
    profile = profile_run(RunFacts(START, end, [Execution("a", "", 1, START, end, cost=4_000_000)]))
    history = profile_workflow([FinishedRun("r", "Succeeded", "", profile, 4_000_000, 10)])
    found = plan_run({"model": "m", "nodes": [ask("a")]}, {}, there=There(models={"m": PAID}), history=history)
    assert found.to_json()["history"] == {
        "runs": 1,
        "seconds": {"p50": 2.0, "p95": 2.0},
        "cost": {"p50": "0.000004", "p95": "0.000004"},
    }


def test_plan_run_takes_the_length_of_a_list_from_earlier_runs() -> None:
    end = START + timedelta(seconds=2)
    items = [Execution("each", str(number), 1, START, end) for number in range(240)]
    profile = profile_run(RunFacts(START, end, [Execution("each", "", 1, START, end), *items]))
    history = profile_workflow([FinishedRun("r", "Succeeded", "", profile, 0, 10)])
    spec = {"model": "m", "nodes": [ask("first"), ask("each", needs=["first"], forEach="outputs.first")]}
    found = plan_run(spec, {}, there=There(models={"m": PAID}), history=history)
    assert node(found, "each").executions == Range(240, 240)
    assert "as in earlier runs" in found.text()


def test_plan_run_takes_what_earlier_runs_did_for_all_rounds_and_all_items_around() -> None:
    end = START + timedelta(seconds=2)
    inner = {"model": "m", "inputs": [{"name": "x"}], "nodes": [ask("p", forEach="inputs.x"), ask("q")]}
    sub = {"name": "sub", "needs": ["load"], "forEach": "[1, 2, 3, 4]", "workflow": {"name": "inner"}}
    sub["workflow"]["inputs"] = {"x": "{{ outputs.load }}"}
    spec = {
        "model": "m",
        "nodes": [
            ask("load"),
            sub,
            ask("draft", needs=["load"], forEach="outputs.load"),
            ask("review", needs=["draft"], repeat={"from": "draft", "until": "false", "maxIterations": 3}),
            ask("maybe", needs=["load"], when="outputs.load != ''", forEach="outputs.load"),
        ],
    }
    done = [("sub", str(item), 1) for item in range(4)]
    done += [(f"sub[{item}]/p", str(each), 1) for item in range(4) for each in range(5)]
    done += [("draft", str(item), turn) for item in range(10) for turn in (1, 2, 3)]
    done += [("maybe", str(item), 1) for item in range(7)]
    whole = {(path, "", turn) for path, _, turn in done}
    facts = RunFacts(START, end, [Execution(*place, START, end) for place in [*whole, *done]])
    history = profile_workflow([FinishedRun("r", "Succeeded", "", profile_run(facts), 0, 10)])
    found = plan_run(spec, {}, there=There(models={"m": PAID}, workflows={"inner": inner}), history=history)
    assert {one.path: one.executions for one in found.nodes} == {
        "load": Range(1, 1),
        "sub": Range(4, 4),
        "sub/p": Range(20, 20),
        "sub/q": Range(4, 4),
        "draft": Range(30, 30),
        "review": Range(1, 3),
        "maybe": Range(0, 7),
    }


HOSTILE = [
    'x"]',
    "a --> b",
    "<script>alert(1)</script>",
    "click n0 href",
    "%%{init: {}}%%",
    "a\nb",
    "`md`",
    "#35;",
    "}}|",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_mermaid_keeps_names_from_becoming_syntax(text: str) -> None:
    found = plan(ask(text), {"name": "b", "needs": [text], "when": text, "tool": {"name": text, "arguments": {}}})
    lines = found.mermaid().splitlines()
    assert len(lines) == 4
    labels = re.findall(r'"([^"]*)"', "\n".join(lines))
    assert all(re.fullmatch(r"(?:[A-Za-z0-9 _.,:/=+()-]|#\d+;|<br/>)*", label) for label in labels)
    assert re.fullmatch(r'  n0 -->\|"[^"]*"\| n1', lines[-1])


@given(st.text(max_size=30), st.text(max_size=30))
def test_plan_run_stands_any_names(name: str, need: str) -> None:
    found = plan(ask(name), ask("b", needs=[need], when=need))
    orjson.dumps(found.to_json())
    assert len(found.mermaid().splitlines()) >= 3
    assert found.text()


@pytest.mark.parametrize(
    "wrong",
    [{}, {"nodes": None}, {"nodes": [None, 3, {"name": "a"}]}, {"nodes": [{"name": "a", "llm": 5, "needs": ["a"]}]}],
)
def test_plan_run_stands_specs_of_any_shape(wrong: dict[str, Any]) -> None:
    found = plan_run(wrong, {}, there=There())
    assert found.problems
    assert found.text()


def test_tokens_of_a_text_with_outputs() -> None:
    values = Values({}, {"a": Range(0, 50)})
    assert tokens_of("x" * 40 + "{{ outputs.a }}", values) == (Range(10, 60), True)
    assert tokens_of("{{ outputs.a + inputs.b }}", values)[0] == Range(0, 1000)


def test_secrets_needed_by_models_and_tools() -> None:
    http = {"url": "https://x", "headers": [{"name": "X-Key", **KEY}, {"name": "Accept", "value": "text/plain"}]}
    there = {"models": {"m": PAID, "unused": {**PAID, "apiKey": {}}}, "tools": {"t": {"http": http}}}
    found = plan({"name": "a", "tool": {"name": "t", "arguments": {}}}, there=there)
    assert secrets_needed(There(**{**ALL, **there}), found) == {("keys", "openai")}


@pytest.mark.parametrize(
    ("amount", "shown", "above"),
    [(0, "$0", "$0"), (123_456_789, "$0.00012", "$0.00013"), (12_345_678_901_234, "$12.34", "$12.35")],
)
def test_rounded_keeps_two_digits(amount: int, shown: str, above: str) -> None:
    assert (rounded(amount), rounded(amount, up=True)) == (shown, above)
    assert usd(123_456_789) == "0.000123456789"
