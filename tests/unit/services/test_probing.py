from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairlead.a2a.cards import Card, InvalidCard
from fairlead.core import names
from fairlead.core.actions import Obj
from fairlead.errors import FairleadError, Refused, RetryableError
from fairlead.kube import Ref
from fairlead.services.probing import Probing
from fairlead.storage.base import Event
from fairlead.testing.clock import FakeClock
from fairlead.testing.kube import FakeKube

LEASE = Ref("coordination.k8s.io/v1", "Lease", "theirs-external", "n")


class Cards:
    """What the agents' addresses give."""

    def __init__(self) -> None:
        self.failure: FairleadError | None = None
        self.read = 0

    async def read_card(self, *_: Any) -> Card:
        self.read += 1
        if self.failure is not None:
            raise self.failure
        raw: Any = None
        return Card("Weather", "1", "1.0", ("rain, snow", "sun"), "https://a.example", streaming=True, raw=raw)


class Bus:
    def __init__(self) -> None:
        self.told: list[str] = []

    async def publish(self, event: Event) -> None:
        self.told.append(event.key)


class World:
    def __init__(self) -> None:
        self.kube, self.cards, self.bus, self.clock = FakeKube(), Cards(), Bus(), FakeClock()

    def gateway(self) -> Probing:
        parts: Any = (self.kube, self.bus, self.clock)
        agents: Any = self.cards
        return Probing(*parts, agents=agents, jitter=lambda low, _: low)

    @property
    def lease(self) -> Obj:
        return self.kube.objects[LEASE]

    def notes(self, key: str) -> str | None:
        found: dict[str, str] = self.lease["metadata"]["annotations"]
        return found.get(key)


def agent(url: str = "https://a.example", uid: str = "u") -> dict[str, Any]:
    meta = {"name": "theirs", "namespace": "n", "uid": uid}
    return {"kind": "Agent", "metadata": meta, "spec": {"external": {"url": url}, "leaseDurationSeconds": 9}}


@pytest.fixture
def world() -> World:
    return World()


async def test_look_keeps_a_lease_of_an_agent_whose_card_can_be_read(world: World) -> None:
    gateway = world.gateway()
    version = await gateway.look(agent(), None)
    first = world.lease["spec"]["renewTime"]
    assert (world.lease["spec"]["holderIdentity"], world.lease["spec"]["leaseDurationSeconds"]) == ("u", 9)
    assert world.lease["metadata"]["labels"][names.EXTERNAL_LABEL] == "true"
    assert world.lease["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert (world.notes(names.CARD_ANNOTATION), world.notes(names.CAPABILITIES_ANNOTATION)) == (
        "Weather",
        "rain  snow,sun",
    )
    world.clock.advance(3)
    await gateway.look(agent(), version)
    assert world.lease["spec"]["renewTime"] > first
    assert world.bus.told == ["n/theirs"], "that a Lease is renewed is no news"


async def test_look_does_not_renew_what_cannot_be_read_and_says_why(world: World) -> None:
    gateway = world.gateway()
    version = await gateway.look(agent(), None)
    renewed = world.lease["spec"]["renewTime"]
    world.cards.failure = RetryableError("HTTP 503", reason="Unreachable")
    world.clock.advance(3)
    version = await gateway.look(agent(), version)
    assert (world.lease["spec"]["renewTime"], world.lease["spec"]["holderIdentity"]) == (renewed, "u")
    assert world.notes(names.PROBE_REASON_ANNOTATION) == "ExternalUnreachable"
    assert "HTTP 503" in str(world.notes(names.PROBE_MESSAGE_ANNOTATION))
    assert world.notes(names.CARD_ANNOTATION) == "Weather"
    written = world.lease["metadata"]["resourceVersion"]
    version = await gateway.look(agent(), version)
    assert world.lease["metadata"]["resourceVersion"] == written, "the same again is not written again"
    world.cards.failure = None
    await gateway.look(agent(), version)
    assert (world.notes(names.PROBE_REASON_ANNOTATION), world.lease["spec"]["renewTime"] > renewed) == ("", True)
    assert world.bus.told == ["n/theirs"] * 3


@pytest.mark.parametrize(
    ("reason", "advice"), [("Unreachable", "Is spec.external.url right"), ("AddressRefused", "_ALLOW_PRIVATE_AGENTS")]
)
async def test_look_says_what_to_do_about_an_address(world: World, reason: str, advice: str) -> None:
    world.cards.failure = Refused("no", reason=reason)
    await world.gateway().look(agent(), None)
    assert world.notes(names.PROBE_REASON_ANNOTATION) == "ExternalUnreachable"
    assert advice in str(world.notes(names.PROBE_MESSAGE_ANNOTATION))


async def test_look_makes_a_lease_that_nobody_holds_for_a_card_of_no_use(world: World) -> None:
    world.cards.failure = InvalidCard("it has no name")
    await world.gateway().look(agent(), None)
    assert "holderIdentity" not in world.lease["spec"]
    assert world.notes(names.PROBE_REASON_ANNOTATION) == "InvalidCard"


async def test_look_does_not_take_an_agent_for_alive_because_its_former_address_was(world: World) -> None:
    await world.gateway().look(agent(), None)
    world.cards.failure = RetryableError("nobody", reason="Unreachable")
    await world.gateway().look(agent("https://b.example"), None)
    assert world.lease["spec"].get("holderIdentity") is None


async def test_look_gives_the_lease_to_the_agent_that_has_the_name_now(world: World) -> None:
    await world.gateway().look(agent(), None)
    await world.gateway().look(agent(uid="v"), None)
    assert world.lease["spec"]["holderIdentity"] == world.lease["metadata"]["ownerReferences"][0]["uid"] == "v"


async def test_look_leaves_the_lease_of_someone_else_alone(world: World) -> None:
    theirs = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "theirs-external"}}
    theirs["metadata"] |= {"namespace": "n"}  # type: ignore[operator]  # a dict
    await world.kube.create({**theirs, "spec": {"holderIdentity": "leader"}})
    await world.gateway().look(agent(), None)
    assert world.lease["spec"] == {"holderIdentity": "leader"}


async def test_one_of_several_gateways_reads_the_card_and_another_goes_on_when_it_dies(world: World) -> None:
    one, other = world.gateway(), world.gateway()
    mine = await one.look(agent(), None)
    its = await other.look(agent(), None)
    before = world.cards.read
    for _ in range(5):
        mine, its = await one.look(agent(), mine), await other.look(agent(), its)
    assert world.cards.read - before <= 6
    before = world.cards.read
    for _ in range(3):  # one is dead
        its = await other.look(agent(), its)
    assert world.cards.read - before >= 2


class Watched(FakeKube):
    """Its watch is lost after what it gave; the last one goes on."""

    def __init__(self, *watches: list[tuple[str, Obj]] | Exception) -> None:
        super().__init__()
        self.watches = list(watches)
        self.there: list[Obj] = []
        self.followed = asyncio.Event()

    async def list(self, *_: Any, **__: Any) -> list[Obj]:
        return self.there

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[tuple[str, Obj]]:
        given = self.watches.pop(0)
        if isinstance(given, Exception):
            raise given
        for event in given:
            yield event
        if self.watches:
            raise Refused("not any more")
        self.followed.set()
        await asyncio.Event().wait()


async def test_run_outlives_a_bug_and_forgets_who_was_deleted_meanwhile(world: World) -> None:
    theirs, gone = agent(uid="u"), agent(uid="gone")
    kube = Watched([("ADDED", theirs), ("ADDED", gone)], KeyError("a bug"), [("ADDED", theirs)])
    kube.there, world.kube = [theirs], kube
    gateway = world.gateway()
    running = asyncio.create_task(gateway.run())
    async with asyncio.timeout(10):
        await kube.followed.wait()
    assert set(gateway._keeping) == {"u"}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not gateway._keeping
