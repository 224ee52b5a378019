from __future__ import annotations

from typing import Any

import pytest

from fairlead.localcluster.schema import compile_schema, validate
from fairlead.localcluster.schema.rules import program


def said(spec: dict[str, Any], value: Any, old: Any = None) -> list[tuple[str, str]]:
    schema = compile_schema({"type": "object", "properties": {"spec": spec}})
    before = None if old is None else {"spec": old}
    return [(error.path, error.message) for error in validate(schema, {"spec": value}, old=before)]


def rule(text: str, **more: Any) -> dict[str, Any]:
    return {"rule": text} | more


def with_rules(*rules: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules)}


INTEGER = {"type": "integer"}
TEXT = {"type": "string"}


def test_validate_reports_a_failed_rule_with_its_message() -> None:
    spec = with_rules(rule("self.a <= self.b", message="a must not be above b"), a=INTEGER, b=INTEGER)
    assert said(spec, {"a": 2, "b": 1}) == [("spec", 'Invalid value: "object": a must not be above b')]
    assert said(spec, {"a": 1, "b": 1}) == []


def test_validate_without_a_message_shows_the_rule() -> None:
    assert said(with_rules(rule("self.a > 1"), a=INTEGER), {"a": 1}) == [
        ("spec", 'Invalid value: "object": failed rule: self.a > 1')
    ]


def test_validate_uses_the_message_expression_and_falls_back_to_the_message() -> None:
    good = rule("self.a > 1", message="plain", messageExpression="'a is ' + string(self.a)")
    bad = rule("self.a > 1", message="plain", messageExpression="self.b")
    assert said(with_rules(good, bad, a=INTEGER, b=TEXT), {"a": 1}) == [
        ("spec", 'Invalid value: "object": a is 1'),
        ("spec", 'Invalid value: "object": plain'),
    ]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("FieldValueRequired", "Required value: m"),
        ("FieldValueForbidden", "Forbidden: m"),
        ("FieldValueDuplicate", 'Duplicate value: "object"'),
        ("FieldValueInvalid", 'Invalid value: "object": m'),
    ],
)
def test_validate_reports_at_the_field_path_with_the_rules_reason(reason: str, expected: str) -> None:
    spec = with_rules(rule("false", message="m", reason=reason, fieldPath=".a"), a=INTEGER)
    assert said(spec, {}) == [("spec.a", expected)]


def test_validate_says_which_key_an_expression_missed() -> None:
    assert said(with_rules(rule("self.a > 1", message="m"), a=INTEGER), {}) == [
        ("spec", 'Invalid value: "object": no such key: a evaluating rule: m')
    ]


def test_validate_does_not_run_rules_on_a_broken_object() -> None:
    spec = with_rules(rule("false"), a=INTEGER)
    assert [message for _, message in said(spec, {"a": "x"})][-1] == (
        'Invalid value: "null": some validation rules were not checked because the object was invalid; '
        "correct the existing errors to complete validation"
    )


def test_validate_runs_transition_rules_only_when_there_is_an_old_value() -> None:
    spec = with_rules(a=TEXT | {"x-kubernetes-validations": [rule("self == oldSelf", message="immutable")]})
    assert said(spec, {"a": "x"}) == []
    assert said(spec, {"a": "x"}, {"a": "x"}) == []
    assert said(spec, {"a": "y"}, {"a": "x"}) == [("spec.a", 'Invalid value: "string": immutable')]


def test_validate_correlates_list_map_items_by_key() -> None:
    item = with_rules(rule("self.v >= oldSelf.v", message="down"), n=TEXT, v=INTEGER) | {"required": ["n"]}
    spec = with_rules(
        l={"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": item}
    )
    old = {"l": [{"n": "a", "v": 5}, {"n": "b", "v": 1}]}
    assert said(spec, {"l": [{"n": "b", "v": 2}, {"n": "a", "v": 4}]}, old) == [
        ("spec.l[1]", 'Invalid value: "object": down')
    ]


def test_validate_gives_optional_old_values_to_rules_that_ask_for_them() -> None:
    asks = rule("!oldSelf.hasValue() || self.a > oldSelf.value().a", optionalOldSelf=True, message="m")
    spec = with_rules(asks, a=INTEGER)
    assert said(spec, {"a": 1}) == []
    assert said(spec, {"a": 1}, {"a": 2}) == [("spec", 'Invalid value: "object": m')]


@pytest.mark.parametrize(
    ("text", "properties", "value"),
    [
        pytest.param("self.__in__ == 1", {"in": INTEGER}, {"in": 1}, id="keyword"),
        pytest.param("self.a__dash__b == 1", {"a-b": INTEGER}, {"a-b": 1}, id="dash"),
        pytest.param("self.a__underscores__b == 1", {"a__b": INTEGER}, {"a__b": 1}, id="underscores"),
        pytest.param("self.n / 2.0 == 0.5", {"n": {"type": "number"}}, {"n": 1}, id="numbers-are-doubles"),
        pytest.param("self.n / 2 == 1", {"n": INTEGER}, {"n": 3}, id="integers-are-integers"),
        pytest.param(
            "self.t > timestamp('2020-01-01T00:00:00Z')",
            {"t": {"type": "string", "format": "date-time"}},
            {"t": "2021-01-01T00:00:00Z"},
            id="times",
        ),
        pytest.param(
            "self.d < duration('2h')", {"d": {"type": "string", "format": "duration"}}, {"d": "90m"}, id="durations"
        ),
        pytest.param("self.s.lowerAscii() == 'ab'", {"s": TEXT}, {"s": "aB"}, id="lowerAscii"),
        pytest.param("self.s.find('[0-9]+') == '12'", {"s": TEXT}, {"s": "a12b"}, id="find"),
        pytest.param("self.s.indexOf('b') == 1", {"s": TEXT}, {"s": "abc"}, id="indexOf"),
        pytest.param("self.s.split(',').isSorted()", {"s": TEXT}, {"s": "a,b"}, id="isSorted"),
        pytest.param(
            "self.l.sum() == 6 && self.l.max() == 3",
            {"l": {"type": "array", "items": INTEGER}},
            {"l": [1, 2, 3]},
            id="sum-and-max",
        ),
        pytest.param("isURL(self.s) && url(self.s).getHost() == 'h:1'", {"s": TEXT}, {"s": "https://h:1/x"}, id="url"),
        pytest.param(
            "self.m.all(k, self.m[k] > 0)",
            {"m": {"type": "object", "additionalProperties": INTEGER}},
            {"m": {"a": 1}},
            id="map",
        ),
        pytest.param("self.s.size() == 1 && size(self.s) == 1", {"s": TEXT}, {"s": "ä"}, id="size-counts-characters"),
        pytest.param("string(self.b) == 'true'", {"b": {"type": "boolean"}}, {"b": True}, id="string-of-bool"),
        pytest.param("!has(self.s) || self.s == ''", {"s": TEXT}, {}, id="has"),
    ],
)
def test_validate_shows_values_to_rules_as_kubernetes_does(text: str, properties: dict[str, Any], value: Any) -> None:
    assert said(with_rules(rule(text), **properties), value) == []


def test_validate_lets_root_rules_see_the_name_and_nothing_else_of_metadata() -> None:
    root = {
        "type": "object",
        "x-kubernetes-validations": [rule("self.metadata.name.size() < 3 && !('labels' in dyn(self.metadata))")],
    }
    schema = compile_schema(root)
    assert validate(schema, {"metadata": {"name": "ab", "labels": {}}}) == []
    assert len(validate(schema, {"metadata": {"name": "abc", "labels": {}}})) == 1


def test_program_knows_which_fields_it_needs() -> None:
    one, whole = program("has(self.a) && self.b.c > oldSelf.d"), program("self == oldSelf")
    assert one is not None
    assert whole is not None
    assert (one.fields, one.uses_old) == (frozenset({"a", "b", "d"}), True)
    assert whole.fields is None


@pytest.mark.parametrize(
    "text",
    [
        "quantity(string(1)).isLessThan(quantity('2'))",
        "self.l.exists(i, v, v > i)",
        "cel.bind(x, 1, x == 1)",
        "self.?l.hasValue()",
    ],
)
def test_validate_passes_over_what_this_server_cannot_run(text: str) -> None:
    assert program(text) is None
    assert said(with_rules(rule(text), l={"type": "array", "items": INTEGER}), {"l": [1]}) == []
