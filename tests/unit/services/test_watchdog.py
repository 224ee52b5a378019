"""A watch that shows nothing any more is noticed; what went unseen is found."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.services.objects import Key, Objects
from fairlead.services.watchdog import WatchDead, Watchdog


class Lists:
    """What the server lists, by kind."""

    def __init__(self) -> None:
        self.items: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[str] = []

    async def list(self, api_version: str, kind: str, **_: Any) -> list[dict[str, Any]]:
        return [{"apiVersion": api_version, "kind": kind, **item} for item in self.items.get(kind, [])]

    async def versions(self, api_version: str, kind: str, **_: Any) -> list[dict[str, Any]]:
        del api_version
        self.asked.append(kind)
        return self.items.get(kind, [])


def item(uid: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": uid, "namespace": "n", "uid": uid, "resourceVersion": str(version)}}


def build() -> tuple[Lists, Objects, Watchdog]:
    lists, objects = Lists(), Objects()
    return lists, objects, Watchdog(lists, objects, ())  # type: ignore[arg-type]  # a fake


async def test_prime_takes_in_everything() -> None:
    lists, objects, dog = build()
    lists.items = {"Pod": [item("p", 1)], "Model": [item("m", 2)]}
    await dog.prime()
    assert objects.keys("Pod", "Model") == [Key("Model", "m"), Key("Pod", "p")]
    assert await dog.check_all() == []


async def test_check_looks_at_one_kind_after_the_other() -> None:
    lists, _, dog = build()
    for _ in range(7):
        await dog.check()
    assert lists.asked == ["WorkflowRun", "Workflow", "Agent", "Model", "Tool", "Pod", "WorkflowRun"]


async def test_check_unseen_twice_is_a_dead_watch() -> None:
    lists, objects, dog = build()
    objects.put({"kind": "WorkflowRun", **item("r", 5)})
    lists.items = {"WorkflowRun": [item("r", 6)]}
    await dog.check()
    with pytest.raises(WatchDead, match="WorkflowRun"):
        await dog.check()


async def test_check_unseen_once_may_be_on_its_way() -> None:
    lists, objects, dog = build()
    lists.items = {"WorkflowRun": [item("r", 6), item("short-lived", 7)]}
    await dog.check_all()
    objects.put({"kind": "WorkflowRun", **item("r", 6)})
    objects.remove({"kind": "WorkflowRun", **item("short-lived", 8)})
    await dog.check()


async def test_check_returns_what_went_unseen() -> None:
    _, objects, dog = build()
    objects.put({"kind": "WorkflowRun", **item("r", 5)})
    assert [gone["metadata"]["uid"] for gone in await dog.check()] == ["r"]
