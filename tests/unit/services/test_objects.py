"""The picture of the cluster."""

from __future__ import annotations

from typing import Any

from fairlead.services.objects import Key, Objects


def pod(uid: str, version: int, *, name: str = "p", owner: str = "") -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version)}
    meta["managedFields"] = [{"manager": "x"}]
    if owner:
        meta["ownerReferences"] = [{"uid": owner, "kind": "Agent"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"version": version}}


def test_put_newer_wins_whatever_the_order() -> None:
    objects = Objects()
    key = objects.put(pod("u", 5))
    objects.put(pod("u", 4))
    found = objects.get(key)
    assert found is not None
    assert found["spec"] == {"version": 5}
    assert "managedFields" not in found["metadata"]


def test_put_after_remove_does_not_bring_it_back() -> None:
    objects = Objects()
    objects.put(pod("u", 5))
    key = objects.remove(pod("u", 6))
    objects.put(pod("u", 5))
    assert objects.get(key) is None
    assert objects.version(key) == 6


def test_arrival_is_the_order_in_which_they_were_seen_first() -> None:
    objects = Objects()
    first, second = objects.put(pod("z", 5)), objects.put(pod("a", 6, name="q"))
    objects.put(pod("z", 7))
    assert 0 < objects.arrival(first) < objects.arrival(second)
    objects.remove(pod("z", 8))
    assert objects.arrival(first) == 0


def test_find_a_namesake_is_another_object() -> None:
    objects = Objects()
    objects.put(pod("old", 1))
    objects.put(pod("new", 2))
    objects.remove(pod("old", 3))
    found = objects.find("Pod", "n", "p")
    assert found is not None
    assert found["metadata"]["uid"] == "new"
    assert objects.keys("Pod") == [Key("Pod", "new")]


def test_owned_follows_the_owner() -> None:
    objects = Objects()
    objects.put(pod("u", 1, owner="agent"))
    objects.put(pod("v", 1, name="q"))
    assert [found["metadata"]["uid"] for found in objects.owned("Pod", "agent")] == ["u"]
    objects.remove(pod("u", 2, owner="agent"))
    assert objects.owned("Pod", "agent") == ()
    assert len(objects.list("Pod", "n")) == 1


def test_named_leaves_out_what_is_not_there() -> None:
    objects = Objects()
    objects.put(pod("u", 1))
    assert set(objects.named("Pod", "n", ["p", "missing"])) == {"p"}
