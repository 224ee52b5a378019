from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from fairlead.localcluster.podruntime.state import Backoff, Container, Exit, exit_of, recover


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def crash(container: Container, now: datetime) -> Container:
    return container.exited(Exit(1, "Error", now, now))


def test_backoff_first_restart_is_at_once_then_doubles_to_five_minutes(now: datetime) -> None:
    container, delays = Container("agent").started(now), []
    for _ in range(8):
        container = crash(container, now)
        assert container.ended is not None
        ready = container.backoff.ready_at(container.ended.finished_at)
        delays.append((ready - now).total_seconds())
        now = ready
        container = container.started(now)
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]
    assert container.restarts == 8


def test_backoff_is_forgotten_after_ten_good_minutes(now: datetime) -> None:
    backoff = Backoff(seconds(160), now)
    late = now + seconds(601)
    assert backoff.ready_at(late) == late
    assert backoff.after_restart(late, late).delay == seconds(10)
    assert backoff.ready_at(now + seconds(599)) == now + seconds(599 + 160)


@pytest.mark.parametrize(
    ("returncode", "oom", "code", "reason", "signal"),
    [
        pytest.param(0, False, 0, "Completed", 0, id="success"),
        pytest.param(3, False, 3, "Error", 0, id="failure"),
        pytest.param(-9, False, 137, "Error", 9, id="killed"),
        pytest.param(-15, False, 143, "Error", 15, id="terminated"),
        pytest.param(-9, True, 137, "OOMKilled", 9, id="over-its-memory"),
    ],
)
def test_exit_of_uses_the_kubelets_words(
    now: datetime, returncode: int, oom: bool, code: int, reason: str, signal: int
) -> None:
    end = exit_of(returncode, started_at=now, now=now, out_of_memory=oom)
    assert (end.code, end.reason, end.signal) == (code, reason, signal)


def test_recover_takes_a_running_container_for_lost(now: datetime) -> None:
    status = {"name": "agent", "restartCount": 2, "state": {"running": {"startedAt": "2026-11-21T11:00:00Z"}}}
    found = recover(status, now=now)
    assert not found.running
    assert found.restarts == 2
    assert found.ended is not None
    assert (found.ended.code, found.ended.reason) == (137, "ContainerStatusUnknown")
    assert found.started(now).restarts == 3


def test_recover_keeps_what_had_ended_before(now: datetime) -> None:
    terminated = {"exitCode": 3, "reason": "Error", "finishedAt": "2026-11-21T11:59:00Z"}
    for status in (
        {"state": {"terminated": terminated}},
        {"state": {"waiting": {}}, "lastState": {"terminated": terminated}},
    ):
        found = recover({"name": "agent", "restartCount": 1, **status}, now=now)
        assert found.ended is not None
        assert (found.ended.code, found.ended.finished_at) == (3, now - seconds(60))


def test_recover_of_a_container_that_never_ran_is_fresh(now: datetime) -> None:
    assert recover({"name": "agent", "state": {"waiting": {"reason": "ContainerCreating"}}}, now=now) == Container(
        "agent"
    )
