from __future__ import annotations

from typing import Any

import pytest

from fairlead.core.actions import Create, Delete
from fairlead.errors import Conflict, Refused
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


def owned(kind: str, name: str, **more: Any) -> dict[str, Any]:
    owners = [{"apiVersion": "x/v1", "kind": kind, "name": name, "uid": f"{kind}-{name}", "controller": True}]
    return {**POD, "metadata": {**POD["metadata"], "ownerReferences": owners, **more}}


@pytest.mark.parametrize(
    ("there", "whose"),
    [
        pytest.param(owned("StatefulSet", "web"), "StatefulSet web", id="a-stateful-sets"),
        pytest.param(POD, "nobody", id="a-persons"),
    ],
)
async def test_create_pod_whose_name_somebody_else_has_is_refused_by_name(there: dict[str, Any], whose: str) -> None:
    fake: Any = FakeKube()
    applier = Applier(fake, Objects(), FakeClock(), reporter="r", leads=lambda: True)
    await fake.create(there)
    with pytest.raises(Refused, match=f"the pod p is there already and belongs to {whose}"):
        await applier.act([Create(owned("Agent", "web"))])


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(owned("Agent", "web"), id="ours"),
        pytest.param(owned("StatefulSet", "web", deletionTimestamp="2026-01-01T00:00:00Z"), id="one-that-goes"),
    ],
)
async def test_create_pod_whose_name_will_be_free_or_is_ours_is_no_error(there: dict[str, Any]) -> None:
    fake: Any = FakeKube()
    applier = Applier(fake, Objects(), FakeClock(), reporter="r", leads=lambda: True)
    await fake.create(there)
    await applier.act([Create(owned("Agent", "web"))])
