"""What ten thousand agents would cost the operator: its own judge and service, on Leases that nothing runs for."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
from kubernetes import client as official
from tests.bench.harness import Arm, Comparison

from fairlead.logs import setup
from fairlead.settings import OperatorSettings
from fairlead.testing.clock import FakeClock
from fairlead.testing.crowd import Crowd
from fairlead.testing.lives import LoopClock
from fairlead.testing.simulation import Simulation

THOUSANDS = 10_000
SIMULATED_SECONDS = 40
ROUNDS = 3
_LOOK_SECONDS: float = OperatorSettings.model_fields["lease_poll_seconds"].default


class Served(Crowd):
    """The same, as the API server sends them: what is listed comes out of bytes."""

    def prepare(self, count: int) -> None:
        """Make the pages that are listed next, each a look later than the one before."""
        self.pages = []
        for number in range(count):
            items = [member.at(number * _LOOK_SECONDS) for member in self.members.values()]
            page = {"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "metadata": {}, "items": items}
            self.pages.append(orjson.dumps(page))

    async def list(self, _api_version: str, _kind: str, **_: Any) -> list[Any]:
        """Return the items of the next page."""
        items: list[Any] = orjson.loads(self.pages.pop(0))["items"]
        return items


async def looking(rounds: int = ROUNDS) -> Comparison:
    """Return what it costs to look at ten thousand Leases once, from the bytes that an API server sends."""
    clock = FakeClock()
    crowd = Served(clock, THOUSANDS, 60)
    crowd.prepare(rounds + 3)
    sent = crowd.pages[0].decode()
    liveness = crowd.liveness(interval=_LOOK_SECONDS)
    tracemalloc.start()
    await liveness.look()
    kept = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()

    async def convert(count: int) -> Sequence[float]:
        for _ in range(count):
            found = official.ApiClient().deserialize(SimpleNamespace(data=sent), "V1LeaseList")
            assert len(found.items) == THOUSANDS
        return ()

    async def judge(count: int) -> Sequence[float]:
        for _ in range(count):
            clock.advance(_LOOK_SECONDS)
            await liveness.look()
        assert len(liveness.alive) == THOUSANDS
        return ()

    arms = [
        Arm("kubernetes' client: made into its objects", convert),
        Arm(f"Fairlead: read and judged, {kept:.0f} MB kept", judge),
    ]
    return Comparison(f"a look at {THOUSANDS:,} Leases", 1, arms, rounds=rounds)


def simulated(rounds: int = ROUNDS) -> Comparison:
    """Return what the operator's service does in simulated time; a latency is that of a death, in simulated seconds."""
    setup(level="ERROR", fmt="json")  # a hundred deaths are told
    crowds = [Crowd(LoopClock(), THOUSANDS, SIMULATED_SECONDS, killed=100, seed=seed) for seed in range(rounds + 1)]

    async def live(crowd: Crowd) -> list[float]:
        dead = {uid: member.died for uid, member in crowd.members.items() if member.died < SIMULATED_SECONDS}
        watching = asyncio.create_task(crowd.liveness(interval=_LOOK_SECONDS).run(_ignore))
        await asyncio.sleep(SIMULATED_SECONDS)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        if crowd.lost.keys() != dead.keys():
            raise RuntimeError(f"{len(dead)} died, and {len(crowd.lost)} were given up")
        return [crowd.lost[uid] - died for uid, died in dead.items()]

    async def simulate(_seconds: int) -> Sequence[float]:
        crowd = crowds.pop()
        taken: list[float] = await asyncio.to_thread(lambda: Simulation().run(lambda: live(crowd)))
        return taken

    title = f"a simulated second of {THOUSANDS:,} agents; from a death until it is known"
    return Comparison(title, SIMULATED_SECONDS, [Arm("Fairlead's judge, every Lease 15 s", simulate)], rounds=rounds)


async def _ignore(_pods: frozenset[str]) -> None:
    """Do nothing about it."""
