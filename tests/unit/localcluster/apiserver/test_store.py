from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import Refused
from fairlead.localcluster.apiserver import store as module
from fairlead.localcluster.apiserver.errors import ApiError
from fairlead.localcluster.apiserver.store import Store

MAPS = ("", "configmaps")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "cluster.db")
    committing = asyncio.create_task(opened.run())
    yield opened
    await opened.settled()
    committing.cancel()
    await asyncio.gather(committing, return_exceptions=True)
    await opened.close()


def obj(name: str, namespace: str = "n", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "uid": name}, **more}


def names(items: Any) -> list[str]:
    return [stored.key[1] for stored in items]


async def test_put_is_seen_at_once_and_durable_when_settled(store: Store, tmp_path: Path) -> None:
    stored = store.put(MAPS, obj("a"))
    assert store.get(MAPS, "n", "a") is stored
    assert store.durable < stored.rv == store.head
    await store.settled(stored.rv)
    assert store.durable == stored.rv
    other = sqlite3.connect(tmp_path / "cluster.db")
    assert other.execute("SELECT count(*) FROM objects").fetchone() == (1,)
    other.close()


async def test_writes_of_one_moment_share_a_transaction_and_keep_their_order(store: Store) -> None:
    for number in range(100):
        store.put(MAPS, obj("a", value=number))
        store.put(MAPS, obj(f"b{number}"))
    last = store.get(MAPS, "n", "a")
    assert last is not None
    store.delete(MAPS, last)
    await store.settled()
    assert store.durable == store.head
    table = store.table(MAPS)
    assert [change.rv for change in table.since(1, until=store.head)] == list(range(2, store.head + 1))


async def test_reopening_gives_the_same_and_versions_go_on(tmp_path: Path) -> None:
    for _ in range(2):
        store = Store.open(tmp_path / "cluster.db")
        committing = asyncio.create_task(store.run())
        before = store.head
        kept = store.put(MAPS, obj("a"))
        gone = store.put(MAPS, obj("b"))
        store.delete(MAPS, gone)
        await store.settled()
        assert (kept.rv, store.head) == (before + 1, before + 3)
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await store.close()
    again = Store.open(tmp_path / "cluster.db")
    assert names(again.table(MAPS).select("n")) == ["a"]
    assert again.head == store.head
    with pytest.raises(ApiError, match="too old resource version"):
        again.table(MAPS).since(again.head - 1, until=again.head)
    assert again.table(MAPS).since(again.head, until=again.head) == []
    await again.close()


async def test_at_takes_back_what_came_later(store: Store) -> None:
    one, two = store.put(MAPS, obj("a", v=1)), store.put(MAPS, obj("b", v=1))
    store.put(MAPS, obj("a", v=2))
    store.delete(MAPS, two)
    store.put(MAPS, obj("c"))
    past = store.table(MAPS).at(two.rv)
    assert [(each.key[1], each.obj["v"]) for each in past.select("n")] == [("a", 1), ("b", 1)]
    assert names(store.table(MAPS).at(one.rv).select("n")) == ["a"]
    assert names(store.table(MAPS).select("n")) == ["a", "c"]


async def test_select_goes_by_namespace_and_goes_on_after_a_key(store: Store) -> None:
    for namespace, name in (("n", "b"), ("m", "z"), ("n", "a"), ("nn", "c")):
        store.put(MAPS, obj(name, namespace))
    table = store.table(MAPS)
    assert names(table.select("n")) == ["a", "b"]
    assert names(table.select("")) == ["z", "a", "b", "c"]
    assert names(table.select("", after=("n", "a"))) == ["b", "c"]
    assert names(table.select("n", after=("n", "a"))) == ["b"]
    assert table.holds("nn")
    assert not table.holds("x")


async def test_history_is_bounded(store: Store) -> None:
    for _ in range(2 * module.HISTORY_LENGTH + 10):
        store.put(MAPS, obj("a"))
    table = store.table(MAPS)
    assert len(table.history) <= 2 * module.HISTORY_LENGTH
    with pytest.raises(ApiError) as old:
        table.since(2, until=store.head)
    assert (old.value.code, old.value.reason) == (410, "Expired")
    assert table.since(store.head - 5, until=store.head)[-1].rv == store.head


async def test_put_refuses_an_object_that_is_too_large(store: Store) -> None:
    with pytest.raises(ApiError, match="request is too large"):
        store.put(MAPS, obj("a", data="x" * module.MAX_OBJECT_BYTES))
    assert store.get(MAPS, "n", "a") is None


async def test_a_disk_that_refuses_ends_the_store_and_acknowledges_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "cluster.db")
    connection = sqlite3.connect(tmp_path / "cluster.db")
    connection.execute("DROP TABLE objects")
    connection.close()
    committing = asyncio.create_task(store.run())
    store.put(MAPS, obj("a"))
    with pytest.raises(sqlite3.OperationalError):
        await store.settled()
    with pytest.raises(sqlite3.OperationalError):
        await committing
    assert store.durable < store.head
    with pytest.raises(sqlite3.OperationalError):
        await store.close()


def test_open_refuses_a_newer_file(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "cluster.db")
    connection.execute("PRAGMA user_version=2")
    connection.close()
    with pytest.raises(Refused, match="newer version"):
        Store.open(tmp_path / "cluster.db")
