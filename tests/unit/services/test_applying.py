from __future__ import annotations

from typing import Any

import pytest

from fairlead.core.actions import Create, Delete
from fairlead.errors import Conflict
from fairlead.services.applying import Applier
from fairlead.services.election import Election, LeadershipLost
from fairlead.services.objects import Objects
from fairlead.testing.clock import FakeClock
from fairlead.testing.kube import FakeKube

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}}


async def test_apply_after_a_pause_longer_than_the_lease_writes_nothing() -> None:
    kube, clock = FakeKube(), FakeClock()
    fake: Any = kube
    election = Election(fake, clock, namespace="n", identity="paused", seconds=15)
    await election.acquire()
    applier = Applier(fake, Objects(), clock, reporter="paused", leads=lambda: election.holds)
    await applier.act([Create(POD)])
    before = dict(kube.objects)

    clock.advance(16)

    for write in (Create({**POD, "metadata": {**POD["metadata"], "name": "q"}}), Delete(POD, "why")):
        with pytest.raises(LeadershipLost):
            await applier.act((write,))
    await applier.tell(POD, "AgentLost", "gone", warning=True)
    assert kube.objects == before


async def test_create_that_a_quota_counted_anew_is_tried_again_and_one_that_is_there_is_as_good() -> None:
    kube, clock = FakeKube(), FakeClock()
    fake: Any = kube
    applier = Applier(fake, Objects(), clock, reporter="r", leads=lambda: True)
    await applier.act([Create(POD), Create(POD)])

    kube.failure = Conflict("Operation cannot be fulfilled on resourcequotas", reason="Conflict")
    with pytest.raises(Conflict, match="resourcequotas"):
        await applier.act([Create(POD)])
