"""Expiry by one clock: steps of the machines' clocks change nothing."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.core import names
from fairlead.core.leases import Judgement, judge


def lease(uid: str, renewed: str, seconds: int = 15) -> dict[str, Any]:
    spec = {"holderIdentity": uid, "renewTime": renewed, "leaseDurationSeconds": seconds}
    return {"metadata": {"name": f"pod-{uid}", "namespace": "n"}, "spec": spec}


def after(*looks: tuple[float, list[dict[str, Any]]]) -> Judgement:
    judgement = Judgement()
    for now, leases in looks:
        judgement = judge(judgement, leases, asked=now, answered=now, patience=1000)
    return judgement


def test_judge_first_sight_gets_a_whole_lease_whatever_its_time_says() -> None:
    for renewed in ("1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z", ""):
        assert after((0, [lease("u", renewed)]), (15, [lease("u", renewed)])).alive == {"u"}


def test_judge_unchanged_for_longer_than_its_duration_is_over_and_told_once() -> None:
    looks = [(0.0, [lease("u", "a")]), (15.1, [lease("u", "a")])]
    over = after(*looks)
    assert [found.name for found in over.expired] == ["pod-u"]
    assert over.alive == frozenset()
    assert after(*looks, (19, [lease("u", "a")])).expired == ()


@pytest.mark.parametrize("renewed", ["2026-01-01T00:00:10Z", "2020-01-01T00:00:00Z"], ids=["forwards", "backwards"])
def test_judge_any_change_is_life_even_when_the_agents_clock_jumps(renewed: str) -> None:
    looks = [(0.0, [lease("u", "2026-01-01T00:00:00Z")]), (14.0, [lease("u", renewed)]), (28.0, [lease("u", renewed)])]
    assert after(*looks).alive == {"u"}


def test_judge_a_judge_that_slept_sees_the_renewal_first() -> None:
    assert after((0, [lease("u", "a")]), (1000, [lease("u", "b")])).alive == {"u"}


def test_judge_over_comes_back_when_it_is_renewed() -> None:
    assert after((0, [lease("u", "a")]), (20, [lease("u", "a")]), (21, [lease("u", "b")])).alive == {"u"}


def test_judge_each_lease_by_its_own_duration() -> None:
    leases = [lease("slow", "a", 60), lease("quick", "a", 3)]
    judgement = after((0, leases), (10, leases))
    assert judgement.alive == {"slow"}
    assert [found.holder for found in judgement.expired] == ["quick"]


def test_judge_new_pod_of_the_same_name_is_another_one() -> None:
    judgement = after((0, [lease("old", "a")]), (14.9, [lease("new", "a")]), (29, [lease("new", "a")]))
    assert judgement.alive == {"new"}


def test_judge_lease_without_holder_is_ignored() -> None:
    assert after((0, [lease("", "a")])).alive == frozenset()


def test_judge_what_it_slept_through_does_not_count() -> None:
    judgement = Judgement()
    for asked in (0.0, 10.0, 70.0, 71.0, 72.0):  # a minute without a processor, for the agents, too
        judgement = judge(judgement, [lease("u", "a")], asked=asked, answered=asked, patience=2)
        assert judgement.alive == {"u"}


def test_judge_an_answer_that_came_late_may_be_as_old_as_the_question() -> None:
    judgement = judge(Judgement(), [lease("u", "a")], asked=0, answered=0, patience=60)
    judgement = judge(judgement, [lease("u", "a")], asked=14, answered=30, patience=60)
    assert judgement.alive == {"u"}
    judgement = judge(judgement, [lease("u", "a")], asked=30, answered=30, patience=60)
    assert judgement.alive == frozenset()


def test_judge_says_for_how_long_a_pod_has_been_draining() -> None:
    drains = lease("u", "a")
    drains["metadata"]["annotations"] = {names.DRAIN_ANNOTATION: "true"}
    assert after((0, [lease("u", "a")]), (1, [drains]), (4, [drains])).draining == {"u": 3}
    assert after((0, [drains]), (1, [lease("u", "b")])).draining == {}


def test_judge_lease_of_the_same_version_says_what_it_said() -> None:
    versioned = [{**one, "metadata": {**one["metadata"], "resourceVersion": "7"}} for one in [lease("u", "a")]]
    first = after((0, versioned))
    assert after((0, versioned), (10, versioned)).sightings["u"] == first.sightings["u"]
    assert [one.holder for one in after((0, versioned), (16, versioned)).expired] == ["u"]
    newer = [{**lease("u", "b"), "metadata": {**versioned[0]["metadata"], "resourceVersion": "8"}}]
    assert after((0, versioned), (10, newer), (20, newer)).alive == {"u"}
