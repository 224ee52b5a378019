from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_agent.graph.paths import around, definition, inside, names, parent, scope, split

INNER = {"model": "small", "nodes": [{"name": "b", "tool": {"name": "t"}}, {"name": "c", "workflow": {"name": "w2"}}]}
DOCUMENT: dict[str, Any] = {
    "workflow": {
        "spec": {
            "nodes": [{"name": "a", "workflow": {"name": "w1"}}, {"name": "x", "tool": {"name": "t"}}],
            "finally": {"workflow": {"name": "w2"}},
        }
    },
    "workflows": {"w1": INNER, "w2": {"nodes": [{"name": "d", "wait": {"seconds": 1}}]}},
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x", {"name": "x", "tool": {"name": "t"}}),
        ("a/b", {"name": "b", "tool": {"name": "t"}}),
        ("a[0]#2.1/b", {"name": "b", "tool": {"name": "t"}}),
        ("a[%2F%5B%5D%23]/c#1.3/d", {"name": "d", "wait": {"seconds": 1}}),
        ("@finally", {"workflow": {"name": "w2"}}),
        ("@finally/d", {"name": "d", "wait": {"seconds": 1}}),
        ("@onFailure", None),
        ("nothing", None),
        ("x/b", None),
        ("a/@finally", None),
        ("", None),
    ],
)
def test_definition_finds_the_node(path: str, expected: Any) -> None:
    assert definition(DOCUMENT, path) == expected


def test_scope_is_the_workflow_that_a_node_is_part_of() -> None:
    assert scope(DOCUMENT, "x") is DOCUMENT["workflow"]["spec"]
    assert scope(DOCUMENT, "a[1]/b") is INNER
    assert scope(DOCUMENT, "x/b/c") is None


NAMES = st.sampled_from(["a", "b2", "long_name"])
ITEMS = st.none() | st.text(max_size=8) | st.sampled_from(["0", "17", "a/b", "%2F", "x[1]#2.3", ""])


@given(NAMES, ITEMS, st.integers(1, 99), st.integers(1, 9), NAMES)
def test_parent_takes_apart_what_inside_put_together(
    outer: str, item: str | None, iteration: int, try_number: int, name: str
) -> None:
    path = inside(outer, item, iteration, try_number) + name
    assert parent(path) == (outer, item, iteration)
    assert names(path) == (outer, name)
    deeper = inside(path, item) + name
    assert parent(deeper) == (path, item, 1)
    assert split(deeper) == (inside(path, item), name)
    assert names(deeper) == (outer, name, name)
    assert parent(outer) is None


def test_inside_leaves_out_what_is_first() -> None:
    assert inside("a") == "a/"
    assert inside("a", "0") == "a[0]/"
    assert inside("a", "k/[%]#", 1, 2) == "a[k%2F%5B%25%5D%23]#1.2/"


def test_around_is_what_an_execution_lies_in() -> None:
    assert list(around("x", None, 1)) == []
    assert list(around("x", "0", 2)) == [("x", None, 2)]
    assert list(around("a[%2F]#2.3/b/c", "k", 1)) == [
        ("a[%2F]#2.3/b/c", None, 1),
        ("a[%2F]#2.3/b", None, 1),
        ("a", "/", 2),
        ("a", None, 2),
    ]
