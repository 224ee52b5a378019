from __future__ import annotations

from typing import Any

import pytest

from fairlead.localcluster.schema import check_crd
from fairlead.localcluster.schema.cel_cost import CelTypeError, Checker, Value
from fairlead.localcluster.schema.cel_syntax import CelSyntaxError, parse
from fairlead.localcluster.schema.cel_types import cel_type
from fairlead.localcluster.schema.compiling import compile_fragment
from fairlead.localcluster.schema.crd_rules import NOT_EVALUATED

NEEDS = "self.nodes.all(n, n.needs.all(x, self.nodes.exists(m, m.name == x)))"


def nodes_schema(nodes: int, needs: int, length: int) -> dict[str, Any]:
    text = {"type": "string", "maxLength": length}
    item = {
        "type": "object",
        "properties": {"name": text, "needs": {"type": "array", "maxItems": needs, "items": text}},
    }
    return {
        "type": "object",
        "properties": {
            "nodes": {"type": "array", "maxItems": nodes, "items": item},
            "count": {"type": "integer"},
            "limit": {"type": "number"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }


def check(expression: str) -> Value:
    known = cel_type(compile_fragment(nodes_schema(10, 10, 10)))
    assert known is not None
    return Checker({"self": Value(0, known, known.size)}).check(parse(expression))


def crd_with(spec: dict[str, Any], *rules: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": spec | {"x-kubernetes-validations": list(rules)}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    return {
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


@pytest.mark.parametrize(
    ("sizes", "factor"),
    [
        pytest.param((100, 32, 63), "1.057980x", id="6-percent-over"),
        pytest.param((200, 32, 63), "4.2x", id="4.2-times-over"),
        pytest.param((64, 16, 63), None, id="fits"),
    ],
)
def test_check_crd_estimates_as_a_real_server_measured(sizes: tuple[int, int, int], factor: str | None) -> None:
    found = check_crd(crd_with(nodes_schema(*sizes), {"rule": NEEDS}))
    expected = [] if factor is None else [f"estimated rule cost exceeds budget by factor of {factor}"]
    assert [error.message.removeprefix("Forbidden: ").partition(" (")[0] for error in found] == expected


def test_check_crd_counts_a_rule_as_often_as_its_place_can_occur() -> None:
    spec: dict[str, Any] = {"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string"}}}}
    spec["properties"]["l"]["items"]["x-kubernetes-validations"] = [{"rule": "self.contains('x')"}]
    found = check_crd(crd_with(spec))
    assert [error.path.rpartition("openAPIV3Schema")[2] for error in found] == [
        ".properties[spec].properties[l].items.x-kubernetes-validations[0].rule",
        ".properties[spec].properties[l].items.x-kubernetes-validations[0].rule",
        "",
    ]
    assert "more than 100x" in found[0].message
    assert "cost total for entire OpenAPIv3 schema" in found[2].message
    spec["properties"]["l"] |= {"maxItems": 100}
    spec["properties"]["l"]["items"]["maxLength"] = 100
    assert check_crd(crd_with(spec)) == []


def test_check_crd_finds_texts_made_of_numbers_unbounded_as_a_real_server_does() -> None:
    """Source: kubernetes/kubernetes issue 124234."""
    rule = {"rule": "self.count >= 0", "messageExpression": "'invalid: ' + string(self.count)"}
    found = check_crd(crd_with(nodes_schema(1, 1, 1), rule))
    assert "estimated messageExpression cost exceeds budget by factor of more than 100x" in found[0].message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("self.nope", "undefined field 'nope'", id="unknown-field"),
        pytest.param("self.nodes.all(n, n.nope == '')", "undefined field 'nope'", id="unknown-field-of-an-item"),
        pytest.param("other == 1", "undeclared reference to 'other'", id="unknown-variable"),
        pytest.param(
            "self.count == 'x'", "found no matching overload for '_==_' applied to '(int, string)'", id="types"
        ),
        pytest.param("self.count == 1.0", "applied to '(int, double)'", id="int-and-double"),
        pytest.param("self.count.startsWith('x')", "found no matching overload for 'startsWith'", id="method"),
        pytest.param("self.count ==", "Syntax error", id="syntax"),
        pytest.param("self.count", "cel expression must evaluate to a bool", id="no-condition"),
        pytest.param("self.count == null", "applied to '(int, null)'", id="null"),
        pytest.param("self.count && true", "applied to '(int, bool)'", id="logic"),
        pytest.param("self.count.all(x, true)", "cannot be range of a comprehension", id="range"),
    ],
)
def test_check_crd_refuses_a_rule_that_does_not_fit(text: str, says: str) -> None:
    found = check_crd(crd_with(nodes_schema(2, 2, 2), {"rule": text}))
    assert len(found) == 1
    assert says in found[0].message
    assert found[0].path == "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule"


@pytest.mark.parametrize(
    "text", ["quantity('1').isLessThan(quantity('2'))", "self.?count.orValue(1) == 1", "cel.bind(x, self.count, x > 1)"]
)
def test_check_crd_only_warns_of_a_rule_that_a_larger_server_can_run(text: str) -> None:
    found = check_crd(crd_with(nodes_schema(2, 2, 2), {"rule": text}))
    assert [error.reason for error in found] == [NOT_EVALUATED]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"rule": "true\n&& true"}, "message must be specified if rule contains line breaks"),
        ({"rule": "true", "message": "a\nb"}, "message must not contain line breaks"),
        ({"rule": " "}, "rule is not specified"),
        ({"rule": "true", "reason": "Odd"}, 'Unsupported value: "Odd"'),
    ],
)
def test_check_crd_checks_the_words_around_a_rule(rule: dict[str, Any], says: str) -> None:
    found = check_crd(crd_with(nodes_schema(2, 2, 2), rule))
    assert says in " ".join(error.message for error in found)


def test_check_crd_refuses_old_values_of_items_that_cannot_be_told_apart() -> None:
    spec: dict[str, Any] = {
        "type": "object",
        "properties": {"l": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 3}}},
    }
    spec["properties"]["l"]["items"]["x-kubernetes-validations"] = [{"rule": "self == oldSelf"}]
    assert "uncorrelatable portion" in check_crd(crd_with(spec))[0].message


@pytest.mark.parametrize(
    ("expression", "kind", "cost"),
    [
        ("self.count == self.count", "bool", 4),
        ("has(self.count)", "bool", 1),
        ("self.nodes.map(n, n.name)", "list", 153),
        ("self.labels['a']", "string", 3),
        ("self.count > 0 ? 'a' : 'b'", "string", 3),
        ("self.nodes[0].name.matches('^a$')", "bool", 9),
        ("type(self.count) == int", "bool", None),
        ("self.count in [1, 2]", "bool", 14),
        ("sets.contains([1], [2])", "bool", None),
        ("cel.bind(n, self.count, n + n)", "int", None),
    ],
)
def test_checker_knows_type_and_cost(expression: str, kind: str, cost: int | None) -> None:
    found = check(expression)
    assert found.type.kind == kind
    assert cost is None or found.cost == cost


def test_checker_refuses_a_field_of_a_number() -> None:
    with pytest.raises(CelTypeError, match="does not support field selection"):
        check("self.count.a")


@pytest.mark.parametrize("text", ["a b", "(a", "'a", "a.in", "has(a)", "[1,2].all(1, true)", "let", "a ? b", "'\\q'"])
def test_parse_refuses_what_is_no_cel(text: str) -> None:
    with pytest.raises(CelSyntaxError):
        parse(text)


def test_parse_limits_its_depth() -> None:
    with pytest.raises(CelSyntaxError, match="recursion limit"):
        parse("(" * 300 + "1" + ")" * 300)


def test_parse_says_where() -> None:
    with pytest.raises(CelSyntaxError) as caught:
        parse("true &&\n  || x")
    assert str(caught.value).startswith("ERROR: <input>:2:3: Syntax error")


def test_check_crd_takes_long_chains_of_conditions() -> None:
    rule = {"rule": " && ".join(["self.count > 0"] * 500)}
    assert check_crd(crd_with(nodes_schema(2, 2, 2), rule)) == []
