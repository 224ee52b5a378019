"""Ten thousand agents in virtual time, before the real judge: who lives is kept, who died is found out in time."""

from __future__ import annotations

import asyncio

from fairlead.settings import OperatorSettings
from fairlead.testing.crowd import LEASE_SECONDS, Crowd
from fairlead.testing.lives import LoopClock
from fairlead.testing.simulation import Simulation

SECONDS = 36.0
COUNT, KILLED = 10_000, 100
GRACE = 2.0
"""What the registry may take on top of a Lease."""


def test_liveness_of_ten_thousand_agents_gives_up_exactly_those_that_died_and_in_time() -> None:
    changes: list[frozenset[str]] = []

    async def live() -> Crowd:
        crowd = Crowd(LoopClock(), COUNT, SECONDS, killed=KILLED)
        liveness = crowd.liveness(interval=OperatorSettings.model_fields["lease_poll_seconds"].default)

        async def changed(pods: frozenset[str]) -> None:
            changes.append(pods)

        watching = asyncio.create_task(liveness.run(changed))
        dead = {uid: member.died for uid, member in crowd.members.items() if member.died < SECONDS}
        await asyncio.sleep(SECONDS)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

        assert len(dead) == KILLED
        assert crowd.lost.keys() == dead.keys()
        late = {uid: crowd.lost[uid] - died for uid, died in dead.items()}
        assert max(late.values()) <= LEASE_SECONDS + GRACE
        assert liveness.alive == crowd.members.keys()
        assert len(liveness.alive) == COUNT - KILLED
        return crowd

    crowd: Crowd = Simulation().run(live)
    assert crowd.told == KILLED  # each is told once
    assert changes[0] | frozenset(crowd.lost) == frozenset(crowd.lost) | crowd.members.keys()
