"""The places of active runs when much happens at once."""

from __future__ import annotations

from typing import Any

from fairlead.services.objects import Objects
from fairlead.services.slots import Slots
from fairlead.testing.clock import FakeClock
from fairlead.testing.storage import make_run

PLACE = ("default", "triage")


class Storage:
    """Lists runs; while it does, one of them may end."""

    def __init__(self, *uids: str) -> None:
        self.uids = list(uids)
        self.reads = 0
        self.ends_meanwhile: Any = None

    async def list_runs(self, cluster: str, **_: Any) -> list[Any]:
        """Return what was active when the reading began."""
        self.reads += 1
        found = [make_run(uid, cluster=cluster) for uid in self.uids]
        if self.ends_meanwhile is not None:
            self.uids.clear()
            self.ends_meanwhile()
            self.ends_meanwhile = None
        return found


def run(uid: str) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}


async def test_admit_reads_again_when_a_run_ended_meanwhile() -> None:
    storage: Any = Storage("active")
    slots = Slots(storage, Objects(), FakeClock(), cluster="c")
    storage.ends_meanwhile = lambda: slots.next(PLACE)
    assert (await slots.admit(run("new"), PLACE, {"limit": 1})).verdict == "Start"


async def test_admit_of_many_reads_once() -> None:
    storage: Any = Storage("active")
    clock = FakeClock()
    slots = Slots(storage, Objects(), clock, cluster="c")
    for number in range(100):
        assert (await slots.admit(run(f"r{number}"), PLACE, {"limit": 1})).verdict == "Wait"
    assert storage.reads == 1
    clock.advance(1)
    await slots.admit(run("r0"), PLACE, {"limit": 1})
    assert storage.reads == 2


async def test_admit_counts_what_it_let_in_since_it_read() -> None:
    storage: Any = Storage()
    slots = Slots(storage, Objects(), FakeClock(), cluster="c")
    verdicts = [(await slots.admit(run(f"r{number}"), PLACE, {"limit": 2})).verdict for number in range(4)]
    assert verdicts == ["Start", "Start", "Wait", "Wait"]
    assert slots.anybody_waits
    for number in range(4):
        slots.leave(f"r{number}")
    assert not slots.anybody_waits
