from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fairlead_agent.schema_sizes import MAX_STEPS, SchemaRefused, weigh
from fairlead_agent.schemas import check_schema, mistakes

Schema = Mapping[str, Any]
LINK = {"$ref": "#/$defs/link"}
TWICE = [{"$ref": "#"}, {"$ref": "#"}]


def doubling(word: str) -> Schema:
    """Return a schema of 40 definitions, each of which has the next one twice."""

    def twice(number: int) -> Schema:
        to = {"$ref": f"#/$defs/d{number + 1}"}
        return {"properties": {"a": to, "b": to}} if word == "properties" else {word: [to, to]}

    return {"type": "object", "$defs": {f"d{n}": twice(n) for n in range(40)} | {"d40": {}}, "$ref": "#/$defs/d0"}


def unevaluated(depth: int) -> Schema:
    """Return a schema at each level of which everything within is looked at again."""
    schema: Schema = {"properties": {"a": {}}}
    for _ in range(depth):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(doubling("allOf"), id="doubled-40-times"),
        pytest.param(doubling("oneOf"), id="alternatives-doubled-40-times"),
        pytest.param(doubling("properties"), id="unfolded-for-a-provider"),
        pytest.param({"allOf": TWICE}, id="itself-twice"),
        pytest.param({"$ref": "#"}, id="itself"),
        pytest.param({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}, id="itself-negated"),
        pytest.param({"properties": {"a": {"allOf": TWICE}}}, id="twice-for-each-level"),
        pytest.param({"anyOf": [{"properties": {"a": {"$ref": "#"}}}] * 2}, id="twice-under-one-name"),
        pytest.param({"properties": {"a": {"$ref": "#"}}, "patternProperties": {"^a": {"$ref": "#"}}}, id="by-pattern"),
        pytest.param({"items": {"$ref": "#"}, "contains": {"$ref": "#"}}, id="entries-twice"),
        pytest.param({"dependentSchemas": {"a": {"$ref": "#"}}}, id="itself-if-there-is-a-member"),
        pytest.param(unevaluated(16), id="looked-at-again-at-each-level"),
        pytest.param({"properties": {f"a{n}": {"pattern": f"^{n}[^a]{{1,300}}$"} for n in range(200)}}, id="patterns"),
        pytest.param({"properties": {f"a{n}": {} for n in range(MAX_STEPS)}}, id="long"),
        pytest.param(
            {"$defs": {"a": {"description": "x" * 100_000}}, "allOf": [{"$ref": "#/$defs/a"}] * 100},
            id="long-when-unfolded",
        ),
    ],
)
def test_check_schema_that_makes_much_work_is_refused(schema: Schema) -> None:
    assert "unfolds to more than 10000 parts" in check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        pytest.param({"properties": {"a": {"$ref": "#/$defs/b"}}}, "leads nowhere", id="nowhere"),
        pytest.param({"$ref": "#/$defs/a%62", "$defs": {"ab": {}}}, "as a place in this schema", id="escaped"),
        pytest.param({"$ref": "#b", "$defs": {"b": {"$anchor": "b"}}}, "as a place in this schema", id="anchor"),
        pytest.param({"$ref": "b", "$defs": {"b": {"$id": "b"}}}, "$id is not supported within", id="resource"),
        pytest.param(
            {"$schema": "http://json-schema.org/draft-04/schema#", "definitions": {"b": {"id": "b"}}},
            "id is not",
            id="id",
        ),
        pytest.param("text", "Invalid string", id="no-schema"),
        pytest.param({"$dynamicRef": "#a", "$dynamicAnchor": "a"}, "$dynamicRef is not supported", id="dynamic"),
        pytest.param({"properties": {"a": {"pattern": "(a{100}){100}{100}"}}}, "pattern", id="large-pattern"),
        pytest.param({"properties": {"a": {"pattern": r"(a)\1"}}}, "pattern", id="pattern-that-backtracks"),
    ],
)
def test_check_schema_that_cannot_be_counted_is_refused(schema: Schema, says: str) -> None:
    assert says in check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param(
            {"$ref": "#/$defs/link", "$defs": {"link": {"properties": {"next": LINK}}}}, {"next": {}}, id="list"
        ),
        pytest.param(
            {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "unevaluatedProperties": False},
            {"left": {"right": {}}},
            id="tree",
        ),
        pytest.param(
            {"anyOf": [{"type": "string"}, {"items": {"$ref": "#"}}, {"additionalProperties": {"$ref": "#"}}]},
            {"a": ["b", {"c": "d"}]},
            id="any-json",
        ),
        pytest.param(
            {
                "$ref": "#/$defs/where",
                "$defs": {
                    "where": {"anyOf": [{"$ref": "#/$defs/and"}, {"$ref": "#/$defs/not"}, {"type": "string"}]},
                    "and": {"properties": {"and": {"items": {"$ref": "#/$defs/where"}}}},
                    "not": {"properties": {"not": {"$ref": "#/$defs/where"}}},
                },
            },
            {"and": [{"not": "a"}, "b"]},
            id="expression",
        ),
        pytest.param(
            {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}}, {"$ref": "a"}, id="names"
        ),
        pytest.param(
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "$id": "https://example.com/a",
                "items": [{"$ref": "#/definitions/a~1b"}],
                "definitions": {"a/b": {}},
            },
            [1],
            id="pointer",
        ),
        pytest.param(
            {"properties": {"a": {"$ref": "#/allOf/0"}}, "allOf": [{"type": "object"}]}, {"a": {}}, id="index"
        ),
        pytest.param(
            {"properties": {f"a{n}": {"type": "string", "description": "x" * 200} for n in range(500)}}, {}, id="wide"
        ),
        pytest.param(
            {"properties": {f"a{n}": {"pattern": "^a{1,64}$"} for n in range(50)}}, {"a1": "a"}, id="patterns"
        ),
    ],
)
def test_check_schema_that_is_usual_is_allowed(schema: Any, value: Any) -> None:
    assert check_schema(schema) == ""
    assert mistakes(schema, value) == []


def test_mistakes_of_a_pattern_that_others_backtrack_in() -> None:
    schema = {"properties": {"a": {"pattern": "^(a+)+$"}}}
    assert len(mistakes(schema, {"a": "a" * 50_000 + "b"})) == 1


def test_weigh_counts_each_subschema_once() -> None:
    assert weigh({"properties": {"a": {}, "b": {}}}) < 20
    with pytest.raises(SchemaRefused):
        weigh({"allOf": TWICE})


@pytest.mark.parametrize(
    ("pattern", "states"),
    [("^a+$", 4), ("a{10}", 50), ("(a{1,10}){20}", 2600), ("a{2,}", 10), ("(a{900}){900}", 20_000)],
)
def test_weigh_counts_the_states_of_a_pattern(pattern: str, states: int) -> None:
    assert states <= weigh({"pattern": pattern}) < states + 200
