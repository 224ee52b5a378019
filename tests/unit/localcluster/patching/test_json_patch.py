from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.localcluster.patching import PatchError, json_patch, merge_patch

values = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.text(max_size=2), values, max_size=4)


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that leads from *old* to *new*."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            patch[key] = difference(before, value)
        else:
            patch[key] = value
    return patch


@given(objects, objects)
def test_merge_patch_of_a_difference_gives_the_target(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merge_patch(old, difference(old, new)) == new


def test_merge_patch_removes_with_null_and_replaces_lists() -> None:
    obj = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge_patch(obj, {"a": {"b": None, "c": [3]}, "d": {"e": {"f": None}}}) == {"a": {"c": [3]}, "d": {"e": {}}}
    assert obj == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        pytest.param([{"op": "add", "path": "/a/b", "value": 2}], {"a": {"b": 2}, "l": [1, 2]}, id="add"),
        pytest.param([{"op": "add", "path": "/l/-", "value": 3}], {"a": {}, "l": [1, 2, 3]}, id="append"),
        pytest.param([{"op": "add", "path": "/l/0", "value": 0}], {"a": {}, "l": [0, 1, 2]}, id="insert"),
        pytest.param([{"op": "remove", "path": "/l/0"}], {"a": {}, "l": [2]}, id="remove"),
        pytest.param([{"op": "replace", "path": "/l/1", "value": 9}], {"a": {}, "l": [1, 9]}, id="replace"),
        pytest.param([{"op": "move", "from": "/l/0", "path": "/a/x"}], {"a": {"x": 1}, "l": [2]}, id="move"),
        pytest.param([{"op": "copy", "from": "/l", "path": "/a/l"}], {"a": {"l": [1, 2]}, "l": [1, 2]}, id="copy"),
        pytest.param([{"op": "add", "path": "/a/x~1y~0z", "value": 1}], {"a": {"x/y~z": 1}, "l": [1, 2]}, id="escapes"),
        pytest.param(
            [{"op": "test", "path": "/l", "value": [1, 2]}, {"op": "remove", "path": "/a"}], {"l": [1, 2]}, id="test"
        ),
        pytest.param([{"op": "test", "path": "/nope", "value": None}], {"a": {}, "l": [1, 2]}, id="test-absent"),
    ],
)
def test_json_patch_applies_operations(operations: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    obj = {"a": {}, "l": [1, 2]}
    assert json_patch(obj, operations) == expected
    assert obj == {"a": {}, "l": [1, 2]}


@pytest.mark.parametrize(
    ("operations", "status"),
    [
        pytest.param([{"op": "test", "path": "/l/0", "value": 2}], 422, id="failed-test"),
        pytest.param([{"op": "test", "path": "/l/0", "value": True}], 422, id="one-is-not-true"),
        pytest.param([{"op": "remove", "path": "/nope"}], 422, id="no-path"),
        pytest.param([{"op": "replace", "path": "/nope", "value": 1}], 422, id="replace-absent"),
        pytest.param([{"op": "add", "path": "/x/y", "value": 1}], 422, id="no-parent"),
        pytest.param([{"op": "add", "path": "/l/9", "value": 1}], 422, id="index-too-large"),
        pytest.param([{"op": "add", "path": "/l/01", "value": 1}], 422, id="index-with-zero"),
        pytest.param([{"op": "move", "from": "/a", "path": "/a/b"}], 422, id="into-itself"),
        pytest.param([{"op": "replace", "path": "", "value": 1}], 422, id="no-object-left"),
        pytest.param([{"op": "frobnicate", "path": "/a"}], 400, id="unknown-operation"),
        pytest.param([{"op": "add", "path": "a", "value": 1}], 400, id="bad-pointer"),
        pytest.param([{"op": "add", "path": "/a"}], 400, id="no-value"),
        pytest.param({"op": "add"}, 400, id="no-list"),
        pytest.param([{"op": "remove", "path": "/a"}] * 10_001, 413, id="too-many"),
    ],
)
def test_json_patch_refuses(operations: Any, status: int) -> None:
    with pytest.raises(PatchError) as caught:
        json_patch({"a": {}, "l": [1]}, operations)
    assert caught.value.status == status


def test_json_patch_names_the_whole_path_it_misses() -> None:
    with pytest.raises(PatchError, match='doc is missing path: "/a/b/c"'):
        json_patch({"a": {"b": {}}}, [{"op": "remove", "path": "/a/b/c"}])
