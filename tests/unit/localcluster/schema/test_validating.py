from __future__ import annotations

from typing import Any

import pytest

from fairlead.localcluster.schema import builtin_schema, compile_schema, validate
from fairlead.localcluster.schema.validating import same


def schema_of(spec: dict[str, Any]) -> Any:
    return compile_schema({"type": "object", "properties": {"spec": spec}})


def said(spec: dict[str, Any], value: Any, **old: Any) -> list[tuple[str, str, str]]:
    found = validate(schema_of(spec), {"spec": value}, **old)
    return [(error.path, error.message, error.reason) for error in found]


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        pytest.param(
            {"type": "integer"},
            "x",
            (
                "spec",
                'Invalid value: "string": spec in body must be of type integer: "string"',
                "FieldValueTypeInvalid",
            ),
            id="type",
        ),
        pytest.param(
            {"type": "string"},
            None,
            ("spec", 'Invalid value: "null": spec in body must be of type string: "null"', "FieldValueTypeInvalid"),
            id="null-where-not-nullable",
        ),
        pytest.param(
            {"type": "boolean"},
            1,
            (
                "spec",
                'Invalid value: "integer": spec in body must be of type boolean: "integer"',
                "FieldValueTypeInvalid",
            ),
            id="one-is-not-true",
        ),
        pytest.param(
            {"type": "string", "enum": ["b", "a"]},
            "c",
            ("spec", 'Unsupported value: "c": supported values: "a", "b"', "FieldValueNotSupported"),
            id="enum",
        ),
        pytest.param(
            {"type": "string", "maxLength": 3},
            "abcd",
            ("spec", "Too long: may not be more than 3 bytes", "FieldValueTooLong"),
            id="max-length",
        ),
        pytest.param(
            {"type": "string", "minLength": 1},
            "",
            ("spec", 'Invalid value: "": spec in body should be at least 1 chars long', "FieldValueInvalid"),
            id="min-length",
        ),
        pytest.param(
            {"type": "string", "pattern": "^a+$"},
            "a\n",
            ("spec", "Invalid value: \"a\\n\": spec in body should match '^a+$'", "FieldValueInvalid"),
            id="pattern-ends-where-the-text-ends",
        ),
        pytest.param(
            {"type": "integer", "minimum": 1},
            0,
            ("spec", "Invalid value: 0: spec in body should be greater than or equal to 1", "FieldValueInvalid"),
            id="minimum",
        ),
        pytest.param(
            {"type": "integer", "maximum": 5, "exclusiveMaximum": True},
            5,
            ("spec", "Invalid value: 5: spec in body should be less than 5", "FieldValueInvalid"),
            id="exclusive-maximum",
        ),
        pytest.param(
            {"type": "number", "multipleOf": 0.5},
            0.7,
            ("spec", "Invalid value: 0.7: spec in body should be a multiple of 0.5", "FieldValueInvalid"),
            id="multiple-of",
        ),
        pytest.param(
            {"type": "array", "maxItems": 1, "items": {"type": "integer"}},
            [1, 2],
            ("spec", "Too many: 2: must have at most 1 item", "FieldValueTooMany"),
            id="max-items",
        ),
        pytest.param(
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}},
            {},
            ("spec.a", "Required value", "FieldValueRequired"),
            id="required",
        ),
        pytest.param(
            {"type": "string", "format": "date-time"},
            "yesterday",
            (
                "spec",
                'Invalid value: "yesterday": spec in body must be of type date-time: "yesterday"',
                "FieldValueTypeInvalid",
            ),
            id="format",
        ),
        pytest.param(
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            },
            [{"name": "a"}, {"name": "a"}],
            ("spec[1]", 'Duplicate value: {"name":"a"}', "FieldValueDuplicate"),
            id="list-map-key-twice",
        ),
        pytest.param(
            {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            ["a", "a"],
            ("spec[1]", 'Duplicate value: "a"', "FieldValueDuplicate"),
            id="set-item-twice",
        ),
        pytest.param(
            {"x-kubernetes-int-or-string": True},
            1.5,
            (
                "spec",
                'Invalid value: "number": spec in body must be of type integer,string: "number"',
                "FieldValueTypeInvalid",
            ),
            id="int-or-string",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"a": "x"},
            (
                "spec.a",
                'Invalid value: "string": spec.a in body must be of type integer: "string"',
                "FieldValueTypeInvalid",
            ),
            id="map-value",
        ),
        pytest.param(
            {"type": "integer", "not": {"enum": [3]}},
            3,
            ("<nil>", 'Invalid value: "": "spec" must not validate the schema (not)', "FieldValueInvalid"),
            id="not",
        ),
    ],
)
def test_validate_says_what_kubernetes_says(spec: dict[str, Any], value: Any, expected: tuple[str, str, str]) -> None:
    assert said(spec, value) == [expected]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        pytest.param({"type": "integer"}, 3.0, id="whole-float-is-integer"),
        pytest.param({"type": "number"}, 3, id="integer-is-number"),
        pytest.param({"type": "string", "nullable": True}, None, id="nullable"),
        pytest.param({"type": "string", "format": "of-our-own"}, "x", id="unknown-format"),
        pytest.param({"type": "string", "format": "duration"}, "1h30m", id="go-duration"),
        pytest.param({"type": "string", "format": "date-time"}, "2026-01-02T03:04:05.123456789Z", id="nanoseconds"),
        pytest.param({"x-kubernetes-int-or-string": True}, "50%", id="int-or-string"),
        pytest.param({"type": "string", "pattern": "[$]"}, "a$b", id="dollar-in-a-class"),
    ],
)
def test_validate_accepts_what_is_right(spec: dict[str, Any], value: Any) -> None:
    assert said(spec, value) == []


def test_validate_one_of_names_the_nearest_alternative() -> None:
    spec = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    }
    none = said(spec, {})
    assert none[0][1] == 'Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid'
    assert none[1][:2] == ("spec.a", "Required value")
    assert "Found 2 valid alternatives" in said(spec, {"a": "", "b": ""})[0][1]
    assert said(spec, {"b": ""}) == []


def test_validate_lets_an_unchanged_mistake_through() -> None:
    spec = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 1}, "b": {"type": "string"}}}
    old = {"spec": {"a": 5, "b": "x"}}
    assert said(spec, {"a": 5, "b": "y"}, old=old) == []
    assert [path for path, _, _ in said(spec, {"a": 6, "b": "y"}, old=old)] == ["spec.a"]


def test_validate_of_a_pod_names_the_missing_field() -> None:
    schema = builtin_schema("v1", "Pod")
    assert schema is not None
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"image": "x"}]}}
    assert [(error.path, error.message) for error in validate(schema, pod)] == [
        ("spec.containers[0].name", "Required value")
    ]


def test_validate_of_a_pod_takes_numbers_for_quantities_and_null_for_absent() -> None:
    schema = builtin_schema("v1", "Pod")
    assert schema is not None
    container = {"name": "c", "image": "x", "resources": {"limits": {"cpu": 1, "memory": "64Mi"}}}
    pod = {"metadata": {"name": "a", "creationTimestamp": None}, "spec": {"containers": [container]}, "status": {}}
    assert validate(schema, pod) == []
    container["resources"] = {"limits": {"cpu": "lots"}}
    assert [error.path for error in validate(schema, pod)] == ["spec.containers[0].resources.limits.cpu"]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ({"a": [1, {"b": True}]}, {"a": [1, {"b": True}]}, True),
        ({"a": 1}, {"a": True}, False),
        ([1.0], [1], True),
        ([0], [False], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ],
)
def test_same_tells_true_from_one(left: Any, right: Any, expected: bool) -> None:
    assert same(left, right) is expected
