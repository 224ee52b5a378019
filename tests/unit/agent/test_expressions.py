from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_agent.expressions import (
    FUNCTIONS,
    MAX_LENGTH,
    Expression,
    ExpressionError,
    Scope,
    compile_expression,
    evaluate,
    expressions_in,
    render,
    template,
)
from fairlead_agent.functions import IMPLEMENTED, NAMES, to_text
from fairlead_agent.inputs import check_inputs

VALUES = {
    "inputs": {"text": "t", "nothing": None, "list": [1, {"b": "{{ inputs.text }}"}], "n": 3},
    "outputs": {"a": {"b": {"c": 1}}, "skipped": None},
    "item": {"x": 1},
    "index": 4,
    "iteration": 1,
    "run": {"name": "r"},
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


OF_EVERY_KIND = """{'t': [timestamp('2026-01-01T00:00:00Z')], 'd': duration('90s'), 'b': b'abc', 1: 1.5}"""
TEXT_OF_EVERY_KIND = '"1":1.5,"b":"YWJj","d":"90s","t":["2026-01-01T00:00:00Z"]'


def test_inputs_that_are_not_given_are_null_and_never_missing() -> None:
    inputs, _ = check_inputs([{"name": "a"}], {})
    assert evaluate('inputs.a == null ? "none" : inputs.a', {"inputs": inputs}) == "none"
    assert evaluate("has(inputs.a)", {"inputs": inputs}) is True
    with pytest.raises(ExpressionError):
        evaluate("has(inputs.a.b)", {"inputs": inputs})
    assert not any("inputs" in compile_expression(one.example).variables for one in FUNCTIONS if one.name == "has")


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_functions_do_what_their_examples_say(function: Any) -> None:
    assert evaluate(function.example, {"inputs": {}}) == json.loads(function.result)
    assert function.name in compile_expression(function.example).functions


def test_functions_are_published_all() -> None:
    assert IMPLEMENTED.keys() <= NAMES


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("outputs.a.b.c + inputs.n", 4),
        ('outputs["a"].b.c', 1),
        ("item.x == 1 && index == 4 && iteration == 1", True),
        ("run.name + inputs.text", "rt"),
        ("[1, 2].map(x, [3].map(y, x + y))", [[4], [5]]),
        ("inputs.list.size() // a comment", 2),
        ("has(inputs.zzz) || inputs.nothing == null", True),
        ('timestamp("2026-01-01T00:00:00Z") + duration("1h")', "2026-01-01T01:00:00Z"),
        ('bytes("a")', "YQ=="),
        ("{1: 'a', 'x': 'b'}", {"1": "a", "x": "b"}),
        ("{'b': 1, 'c': 2, 'a': 3}.map(k, k)", ["a", "b", "c"]),
        ("outputs.a.b.map(k, k + '!')", ["c!"]),
        ("(outputs.a).map(k, k)", ["b"]),
        ("[outputs.a][0].map(k, k)", ["b"]),
        ("{'l': {'z': 1, 'y': 2}}['l'].filter(k, k != 'x').map(k, k)", ["y", "z"]),
        ("fromJson('{\"b\": 1, \"a\": 2}').map(k, k) + ['c'].map(k, k)", ["a", "b", "c"]),
        ("1 + [1, 2].map(x, x).size() - inputs.list.map(y, 1).size()", 1),
        ("!inputs.list.exists(x, x == 5) && true in [true].map(x, x)", True),
        ("string({'b': 1, 'a': {'d': 1, 'c': 2}})", '{"a":{"c":2,"d":1},"b":1}'),
        ("'a,b'.split(',').map(x, x.upperAscii())", ["A", "B"]),
        ("type(inputs.n) == int ? 'yes' : 'no'", "yes"),
        ("[3, 4].map(x, x > 3, x * 2)", [8]),
        ("inputs.list.filter(inputs_, true).size()", 2),
        ("9007199254740993", 9007199254740993),
        ('"héé𝄞".size() + size("é")', 5),
        ('size(b"é") + {"é": 1}.size() + ["é"].size()', 4),
        ("'a,é'.split(',').map(size, size.size()).size() == 2 && ['é'].map(x, size(x)) == [1]", True),
        ('"héé".substring(1, "héé".size())', "éé"),
        ("[duration('1234567s'), duration('3600.125s'), duration('-1.5s')]", ["1234567s", "3600.125s", "-1.5s"]),
        ("[duration('0s'), duration('0.000001s'), duration('10s')]", ["0s", "0.000001s", "10s"]),
        (f"string({OF_EVERY_KIND})", f"{{{TEXT_OF_EVERY_KIND}}}"),
        (f"toJson({OF_EVERY_KIND})", f"{{{TEXT_OF_EVERY_KIND}}}"),
    ],
)
def test_evaluate_gives_json(source: str, expected: Any) -> None:
    assert evaluate(source, VALUES) == expected


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", "is empty"),
        ("1 +", "column 4"),
        ("inputs.text ==\n\n) 1", "line 3, column 1"),
        ("itm.x", 'unknown variable "itm"; did you mean "item"? (column 1)'),
        ("zzzzz", "there are: index, inputs, item"),
        ("inputs.text.upperAsci()", 'unknown function "upperAsci"; did you mean "upperAscii"?'),
        ("outputs", "followed by the name of a node"),
        ("outputs.size()", "followed by the name of a node"),
        ("outputs[inputs.text]", "followed by the name of a node"),
        ("[1].map(item, item)", '"item" is taken'),
        ("[1].map(list, list)", '"list" is taken'),
        ("inputs{a: 1}", "messages are not supported"),
        ("loop", "column 1"),
        ("tick__(1)", 'unknown function "tick__"'),
        ("size__('a')", 'unknown function "size__"'),
        ("(" * 500 + "1" + ")" * 500, "nested too deeply"),
        ("1" + " + 1" * MAX_LENGTH, f"may have {MAX_LENGTH} characters"),
        ("'abc", "column 1"),
    ],
)
def test_compile_expression_names_the_mistake(source: str, text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("outputs.skipped.x", '"outputs.skipped.x" failed'),
        ("outputs.skipped.x", "outputs.skipped is null"),
        ("inputs.text + inputs.n", "inputs.n is integer, inputs.text is string"),
        ("item.y", "no such field: y (item is object)"),
        ("inputs.list[9]", "index out of bounds: 9 (inputs.list is array)"),
        ("1 / 0", "division by zero"),
        ("[inputs.text].sum()", "sum wants numbers"),
        ("size(inputs.n)", "size wants a text, bytes, a list or a map (inputs.n is integer)"),
        ("toJson([1.0 / 0.0])", "inf is no JSON value"),
        ("double('inf')", "inf is no JSON value"),
        ("inputs.n.map(x, x)", "only lists and maps have elements, not integer"),
        ("inputs.text.matches('(')", "not a valid regex"),
        ("iteration + index + nothing.x", "unknown variable"),
    ],
)
def test_evaluate_names_expression_and_types(source: str, text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(source, VALUES)
    assert text in str(caught.value)


def test_compile_expression_knows_what_is_used() -> None:
    found = compile_expression(
        """outputs.a.b == inputs.x && outputs['c'].exists(o, o.outputs == "outputs.d") // item"""
    )
    assert found.outputs == {"a", "c"}
    assert found.inputs == {"x"}
    assert found.variables == {"inputs", "outputs"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain }} { }", "plain }} { }"),
        ("{{ inputs.list }}", [1, {"b": "{{ inputs.text }}"}]),
        ("<{{ inputs.list }}>", '<[1,{"b":"{{ inputs.text }}"}]>'),
        ("{{ inputs.nothing }}", None),
        ("<{{ inputs.nothing }}>", "<>"),
        ("{{inputs.n}}{{ inputs.n }}", "33"),
        ("{{ 1.0 }} {{ 1.5 }} {{ true }} {{ 1e30 }}", "1 1.5 true 1000000000000000000000000000000"),
        ("a {{ {'k': {'k': '}}'}} }} b", 'a {"k":{"k":"}}"}} b'),
        ("""{{ "}}" + '}}' + r'}}\\' + '''}}''' }}""", "}}}}}}\\}}"),
        ('{{ "{{" }} x', "{{ x"),
        ("{{ [{'a': 1}].map(x, x.a) // }} in a comment\n }}", [1]),
        ("é {{ inputs.text }} 𝄞", "é t 𝄞"),
        (f"{{{{ {OF_EVERY_KIND} }}}} and", f"{{{TEXT_OF_EVERY_KIND}}} and"),
    ],
)
def test_render_fills_in_text(text: str, expected: Any) -> None:
    assert render(text, VALUES) == expected


@pytest.mark.parametrize("text", ["a {{ b", "{{ '}} }}", "{{ {'a': 1 }}", "{{", "x {{ ) }} y"])
def test_render_refuses_what_is_not_closed(text: str) -> None:
    with pytest.raises(ExpressionError):
        template(text)


def test_template_says_how_to_write_braces() -> None:
    with pytest.raises(
        ExpressionError, match=r'line 2 has no "}}" that ends it; for the text itself write \{\{ "\{\{" \}\}'
    ):
        template("one\n{{ two")


def test_render_goes_through_json() -> None:
    found = render({"a": ["{{ index }}", {"b": "i={{ index }}"}, 1, None, True]}, VALUES)
    assert found == {"a": [4, {"b": "i=4"}, 1, None, True]}


@given(JSON)
def test_render_keeps_every_json_value(value: Any) -> None:
    assert render("{{ inputs.v }}", {"inputs": {"v": value}}) == value


@given(JSON)
def test_render_puts_values_into_text_once(value: Any) -> None:
    assert render("<{{ inputs.v }}>", {"inputs": {"v": value}}) == f"<{to_text(value)}>"


@given(st.text(alphabet="{}'\"\\ ()[]abr.inputs,:0/\n"))
def test_template_takes_any_text(text: str) -> None:
    try:
        parts = template(text)
    except ExpressionError:
        return
    assert all(isinstance(part, str | Expression) for part in parts)


@given(st.text(alphabet="inputs.outputs[]()'\"{}+-*/!<>=&|?:,. \n0123456789rb\\x"))
def test_compile_expression_takes_any_text(text: str) -> None:
    with suppress(ExpressionError):
        evaluate(compile_expression(text), VALUES)


def test_expressions_in_gives_paths() -> None:
    found = dict(expressions_in({"a": ["{{ 1 }}", {"b": "{{ ) }}"}], "c": "x"}, "arguments"))
    assert list(found) == ["arguments.a[0]", "arguments.a[1].b"]
    assert isinstance(found["arguments.a[1].b"], ExpressionError)


def test_scope_binds_each_item() -> None:
    scope = Scope(VALUES)
    expression = compile_expression("index + inputs.n")
    assert [scope.bind(index=index).evaluate(expression) for index in range(3)] == [3, 4, 5]
    assert scope.evaluate(expression) == 7


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param("inputs.l.map(a, inputs.l.map(b, a + b)).size()", "more than 0.1 seconds", id="nested-map"),
        pytest.param(
            "inputs.l.all(a, inputs.l.all(b, inputs.l.all(c, true)))", "more than 0.1 seconds", id="nested-all"
        ),
        pytest.param("['aaaaaaaa']" + ".map(a, a + a + a + a)" * 100, "an element is larger", id="doubling-text"),
        pytest.param("[[0]]" + ".map(a, a + a + a + a)" * 100, "", id="doubling-lists"),
        pytest.param("[inputs.l]" + ".map(a, [a, a])" * 60, "", id="doubling-references"),
        pytest.param("inputs.s.replace('', inputs.s)", "longer than", id="replace"),
        pytest.param("[inputs.s, inputs.s, inputs.s, inputs.s, inputs.s].join(inputs.s)", "longer than", id="join"),
        pytest.param("[" + ", ".join(["inputs.s"] * 300) + "]", "the result is larger", id="large-result"),
    ],
)
def test_evaluate_ends_hostile_expressions(source: str, text: str) -> None:
    values = {"inputs": {"l": list(range(2000)), "s": "x" * (1 << 18)}}
    with pytest.raises(ExpressionError) as caught:
        Scope(values, cpu_seconds=0.1).evaluate(compile_expression(source))
    assert text in str(caught.value)


def test_evaluate_backtracks_in_no_regex() -> None:
    assert evaluate("inputs.s.matches('(a+)+$')", {"inputs": {"s": "a" * 50_000 + "b"}}) is False


def test_library_is_imported_without_its_command_line() -> None:
    code = """
import sys
from fairlead_agent.expressions import evaluate
evaluate("1 + 1", {})
assert not {"typer", "rich", "prompt_toolkit"} & sys.modules.keys(), "the command line came along"
import cel.cli
assert "typer" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_library_is_whole_for_threads_that_import_it_at_once() -> None:
    program = """
import threading
from fairlead_agent.expressions import compile_expression
failed, start = [], threading.Barrier(8)
def one():
    start.wait()
    try:
        compile_expression("1 + 1 == 2")
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=one) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
raise SystemExit(len(failed))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_scope_gives_an_expression_only_what_it_uses_however_that_is_written() -> None:
    scope = Scope({"inputs": {"a": 1, "b": 2}, "outputs": {}})
    for source, value in (("inputs.a", 1), ("inputs.a + size(inputs)", 3), ('inputs["a" + ""] + inputs.a', 2)):
        assert scope.evaluate(compile_expression(source)) == value


def test_scope_of_an_item_does_not_hand_over_what_other_expressions_use() -> None:
    class Counted(dict[str, Any]):
        reads = 0

        def __getitem__(self, name: str) -> Any:
            Counted.reads += 1
            return super().__getitem__(name)

    scope = Scope({"inputs": {}, "outputs": Counted(big=[1, 2, 3])})
    assert scope.evaluate(compile_expression("outputs.big")) == [1, 2, 3]
    item = compile_expression("item + outputs.big[0]")
    assert [scope.bind(item=i).evaluate(item) for i in range(50)] == list(range(1, 51))
    assert Counted.reads == 2
