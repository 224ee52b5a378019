"""One active operator, judged by one clock each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.errors import Conflict, Refused, Unavailable
from fairlead.kube import Ref
from fairlead.services.election import Election, LeadershipLost
from fairlead.testing.clock import FakeClock


class LeaseServer:
    """Keeps one Lease as an API server does: with versions and conflicts."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False
        self.refuses = 0
        """How many requests are refused before one is answered."""
        self.version = 0

    async def get(self, ref: Ref) -> dict[str, Any] | None:
        del ref
        if self.down:
            raise Unavailable("down")
        if self.refuses:
            self.refuses -= 1
            raise Refused("Unauthorized", reason="Unauthorized")
        return self.lease

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise Conflict("there")
        return self._store(obj)

    async def replace(self, obj: dict[str, Any]) -> dict[str, Any]:
        if self.lease is None or obj["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        return self._store(obj)

    def _store(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = obj | {"metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        return self.lease


def candidate(server: LeaseServer, clock: FakeClock, identity: str) -> Election:
    return Election(server, clock, namespace="n", identity=identity, seconds=15)  # type: ignore[arg-type]  # a fake


async def test_acquire_a_free_lease_at_once() -> None:
    server, clock = LeaseServer(), FakeClock()
    first = candidate(server, clock, "first")
    await first.acquire()
    assert first.holds
    assert clock.slept == []


async def test_acquire_waits_until_the_holder_has_been_silent_for_its_duration() -> None:
    server, clock = LeaseServer(), FakeClock()
    await candidate(server, clock, "dead").acquire()
    began = clock.monotonic()
    second = candidate(server, clock, "second")
    await second.acquire()
    assert 15 < clock.monotonic() - began <= 21
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1


async def test_acquire_does_not_believe_the_holders_clock() -> None:
    server, clock = LeaseServer(), FakeClock()
    await candidate(server, clock, "dead").acquire()
    assert server.lease is not None
    server.lease["spec"]["renewTime"] = "2999-01-01T00:00:00.000000Z"
    await candidate(server, clock, "second").acquire()
    assert server.lease["spec"]["holderIdentity"] == "second"


async def test_acquire_its_own_lease_after_a_crash_at_once() -> None:
    server, clock = LeaseServer(), FakeClock()
    await candidate(server, clock, "same").acquire()
    await candidate(server, clock, "same").acquire()
    assert clock.slept == []


async def test_resign_lets_the_next_one_start_at_once() -> None:
    server, clock = LeaseServer(), FakeClock()
    first = candidate(server, clock, "first")
    await first.acquire()
    await first.resign()
    assert not first.holds
    await candidate(server, clock, "second").acquire()
    assert clock.slept == []


async def test_keep_ends_when_another_one_has_taken_over() -> None:
    server, clock = LeaseServer(), FakeClock()
    first = candidate(server, clock, "first")
    await first.acquire()
    assert server.lease is not None
    server.lease["spec"]["holderIdentity"] = "second"
    with pytest.raises(LeadershipLost, match="second"):
        await first.keep()


async def test_keep_ends_before_the_lease_is_over_when_the_server_is_gone() -> None:
    server, clock = LeaseServer(), FakeClock()
    first = candidate(server, clock, "first")
    await first.acquire()
    began = clock.monotonic()
    server.down = True
    with pytest.raises(LeadershipLost):
        await first.keep()
    assert clock.monotonic() - began < 15
    assert not first.holds


async def test_keep_survives_a_server_that_refuses_for_a_moment() -> None:
    server, clock = LeaseServer(), FakeClock()
    first = candidate(server, clock, "first")
    await first.acquire()
    server.refuses = 2
    keeping = asyncio.create_task(first.keep())
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(clock.slept) > 10
    assert (server.refuses, keeping.done(), first.holds) == (0, False, True)
    keeping.cancel()


async def test_keep_and_acquire_end_where_the_server_refuses_for_good() -> None:
    server, clock = LeaseServer(), FakeClock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.acquire()
    began, server.refuses = clock.monotonic(), 1000
    with pytest.raises(Refused):
        await first.keep()
    assert clock.monotonic() - began < 15
    with pytest.raises(Refused):
        await second.acquire()
