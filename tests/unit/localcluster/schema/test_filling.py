from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.localcluster.schema import builtin_schema, compile_schema, pruned, with_defaults

SCHEMA = compile_schema(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "default": {},
                "properties": {
                    "size": {"type": "integer", "default": 3},
                    "note": {"type": "string", "nullable": True, "default": "n"},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "tags": {
                        "type": "object",
                        "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}},
                    },
                    "list": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}},
                    },
                },
            }
        },
    }
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "size", "tags", "list", "free", "a", "b", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(["spec", "metadata", "other"]), json_values, max_size=3)


def test_with_defaults_fills_absent_fields_below_defaulted_ones() -> None:
    assert with_defaults(SCHEMA, {}) == {"spec": {"size": 3, "note": "n"}}


def test_with_defaults_replaces_null_only_where_it_is_not_allowed() -> None:
    filled = with_defaults(SCHEMA, {"spec": {"size": None, "note": None, "list": [{}]}})
    assert filled == {"spec": {"size": 3, "note": None, "list": [{"b": 1}]}}


def test_with_defaults_does_not_change_its_argument_nor_share_the_default() -> None:
    given_object: dict[str, Any] = {}
    with_defaults(SCHEMA, given_object)["spec"]["size"] = 9
    assert given_object == {}
    assert with_defaults(SCHEMA, {})["spec"]["size"] == 3


def test_with_defaults_of_a_deployment_are_those_of_kubernetes() -> None:
    schema = builtin_schema("apps/v1", "Deployment")
    assert schema is not None
    template = {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}
    filled = with_defaults(schema, {"spec": {"selector": {}, "template": template}})
    pod = filled["spec"]["template"]["spec"]
    assert filled["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Always", 30)
    assert pod["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_with_defaults_of_a_built_in_kind_drops_nulls_and_writes_quantities_as_text() -> None:
    schema = builtin_schema("v1", "Pod")
    assert schema is not None
    container = {"name": "c", "resources": {"limits": {"cpu": 2}}}
    filled = with_defaults(schema, {"metadata": {"creationTimestamp": None}, "spec": {"containers": [container]}})
    assert filled["metadata"] == {}
    assert filled["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "2"}}


def test_pruned_drops_what_is_unknown_and_says_where() -> None:
    obj = {
        "apiVersion": "a/v1",
        "metadata": {"name": "n", "colour": 1},
        "spec": {"x": 1, "free": {"y": 1}, "tags": {"k": {"a": "", "c": 1}}, "list": [{"b": 1, "d": 2}]},
        "extra": {},
    }
    kept, unknown = pruned(SCHEMA, obj)
    assert kept == {
        "apiVersion": "a/v1",
        "metadata": {"name": "n"},
        "spec": {"free": {"y": 1}, "tags": {"k": {"a": ""}}, "list": [{"b": 1}]},
    }
    assert unknown == ["metadata.colour", "spec.x", "spec.tags.k.c", "spec.list[0].d", "extra"]


@given(objects)
def test_pruned_twice_is_pruned_once(obj: dict[str, Any]) -> None:
    once, _ = pruned(SCHEMA, obj)
    assert pruned(SCHEMA, once) == (once, [])


@given(objects)
def test_with_defaults_twice_is_once(obj: dict[str, Any]) -> None:
    once = with_defaults(SCHEMA, obj)
    assert with_defaults(SCHEMA, once) == once
