from __future__ import annotations

from typing import Any

import pytest

from fairlead.localcluster.patching import PatchError, strategic_merge_patch
from fairlead.localcluster.schema import builtin_schema

POD = builtin_schema("v1", "Pod")


def patched(spec: dict[str, Any], patch: dict[str, Any]) -> Any:
    return strategic_merge_patch({"spec": spec}, {"spec": patch}, schema=POD)["spec"]


CONTAINERS = [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]


@pytest.mark.parametrize(
    ("spec", "patch", "expected"),
    [
        pytest.param(
            {"containers": CONTAINERS},
            {"containers": [{"name": "b", "image": "3"}]},
            {"containers": [CONTAINERS[0], {"name": "b", "image": "3"}]},
            id="merges-by-key",
        ),
        pytest.param(
            {"containers": CONTAINERS},
            {"containers": [{"name": "c"}]},
            {"containers": [*CONTAINERS, {"name": "c"}]},
            id="appends-new-items",
        ),
        pytest.param(
            {"containers": CONTAINERS},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": CONTAINERS[1:]},
            id="deletes-an-item",
        ),
        pytest.param(
            {"containers": CONTAINERS},
            {"containers": [{"$patch": "replace"}, {"name": "z"}]},
            {"containers": [{"name": "z"}]},
            id="replaces-a-list",
        ),
        pytest.param(
            {"containers": CONTAINERS},
            {"containers": [{"name": "a", "args": ["y"]}]},
            {"containers": [{"name": "a", "image": "1", "args": ["y"]}, CONTAINERS[1]]},
            id="atomic-lists-are-replaced",
        ),
        pytest.param(
            {"containers": CONTAINERS},
            {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a", "image": "9"}],
            },
            {"containers": [CONTAINERS[1], {"name": "a", "image": "9", "args": ["x"]}]},
            id="orders",
        ),
        pytest.param(
            {"containers": CONTAINERS},
            {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
            {"containers": [CONTAINERS[1], CONTAINERS[0]]},
            id="orders-without-a-change",
        ),
        pytest.param(
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]},
            {"volumes": [{"name": "v", "configMap": {"name": "c"}}]},
            id="retains-keys",
        ),
        pytest.param(
            {"securityContext": {"runAsUser": 1}, "hostname": "h"},
            {"securityContext": {"$patch": "replace", "runAsGroup": 2}, "hostname": None},
            {"securityContext": {"runAsGroup": 2}},
            id="replaces-a-map-and-removes-with-null",
        ),
        pytest.param(
            {"securityContext": {"runAsUser": 1}}, {"securityContext": {"$patch": "delete"}}, {}, id="deletes-a-map"
        ),
    ],
)
def test_strategic_merge_patch(spec: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert patched(spec, patch) == expected


def test_strategic_merge_patch_of_finalizers_adds_and_deletes() -> None:
    obj = {"metadata": {"finalizers": ["a", "b"]}}
    added = strategic_merge_patch(obj, {"metadata": {"finalizers": ["c", "a"]}}, schema=POD)
    assert added == {"metadata": {"finalizers": ["a", "b", "c"]}}
    deleted = strategic_merge_patch(obj, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, schema=POD)
    assert deleted == {"metadata": {"finalizers": ["b"]}}
    assert obj == {"metadata": {"finalizers": ["a", "b"]}}


def test_strategic_merge_patch_keeps_foreign_items_where_they_were() -> None:
    live = [{"name": "a"}, {"name": "injected"}, {"name": "b"}]
    patch = {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": []}
    assert [item["name"] for item in patched({"containers": live}, patch)["containers"]] == ["injected", "b", "a"]


@pytest.mark.parametrize("patch", [{"containers": [{"image": "x"}]}, {"securityContext": {"$patch": "odd"}}])
def test_strategic_merge_patch_refuses(patch: dict[str, Any]) -> None:
    with pytest.raises(PatchError):
        patched({"containers": CONTAINERS}, patch)
