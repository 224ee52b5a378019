from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fairlead.localcluster.podruntime.engine import Ended
from fairlead.localcluster.podruntime.probes import LIVENESS, READINESS, STARTUP, Probe, Prober, Tally, Verdict
from fairlead.testing.clock import FakeClock


@dataclass
class Fake:
    """A container whose probes answer what is written down for them."""

    answers: list[int]
    asked: list[list[str]] = field(default_factory=list)
    ident: str = "docker://x"
    image_id: str = ""
    address: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    async def wait(self) -> Ended:
        return Ended(0)

    async def stop(self) -> None: ...

    async def kill(self) -> None: ...

    async def execute(self, command: Sequence[str], *, seconds: float) -> tuple[int, str]:
        assert seconds == 1
        self.asked.append(list(command))
        if not self.answers:
            await asyncio.get_running_loop().create_future()
        return self.answers.pop(0), "why"


def probe(name: str, **more: Any) -> dict[str, Any]:
    return {"exec": {"command": [name]}, "periodSeconds": 1, **more}


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        pytest.param([True], [True], id="one-success-is-enough"),
        pytest.param([False, False, False], [None, None, False], id="three-failures-are-needed"),
        pytest.param([False, False, True, False], [None, None, True, None], id="a-success-starts-the-count-anew"),
    ],
)
def test_tally_counts_in_a_row(answers: list[bool], verdicts: list[bool | None]) -> None:
    asked = Probe.of({LIVENESS: {"exec": {}}}, LIVENESS)
    assert asked is not None
    tally, found = Tally(), []
    for answer in answers:
        tally = tally.after(good=answer)
        found.append(tally.verdict(asked))
    assert found == verdicts


async def probed(spec: dict[str, Any], container: Fake, *, count: int) -> list[Verdict]:
    """Return the first *count* verdicts."""
    found: list[Verdict] = []
    enough = asyncio.Event()

    def tell(verdict: Verdict) -> None:
        found.append(verdict)
        if len(found) == count:
            enough.set()

    task = asyncio.create_task(Prober(spec, container, FakeClock(), tell=tell).run())
    async with asyncio.timeout(5):
        await enough.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return found


async def test_prober_asks_for_the_start_first_and_then_for_the_rest() -> None:
    spec = {STARTUP: probe("started"), LIVENESS: probe("lives"), READINESS: probe("ready")}
    container = Fake([1, 0, 0, 0])
    found = await probed(spec, container, count=4)
    assert [each.probe.kind for each in found] == [STARTUP, STARTUP, LIVENESS, READINESS]
    assert [each.holds for each in found] == [None, True, True, True]
    assert found[0].message == "exit code 1: why"
    assert container.asked[:2] == [["started"], ["started"]]


async def test_prober_says_that_a_pod_without_a_network_cannot_be_asked_over_one() -> None:
    (found,) = await probed({READINESS: {"httpGet": {"port": 80}, "failureThreshold": 1}}, Fake([]), count=1)
    assert found.holds is False
    assert "no network" in found.message


async def test_prober_takes_what_does_not_answer_for_a_failure() -> None:
    found = await probed({LIVENESS: probe("x", failureThreshold=1, timeoutSeconds=1)}, Fake([]), count=1)
    assert (found[0].holds, found[0].message) == (False, "no answer within 1 s")
