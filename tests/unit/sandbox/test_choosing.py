from __future__ import annotations

import pytest

from fairlead.sandbox.base import Job, Sandbox, SandboxUnavailable
from fairlead.sandbox.choosing import Choice, build_sandbox
from fairlead.testing.clock import FakeClock
from fairlead.testing.sandbox import FakeSandbox


def choice(*backends: Sandbox, clock: FakeClock | None = None) -> Choice:
    return Choice([lambda each=each: each for each in backends], clock=clock or FakeClock())


async def test_describe_names_the_first_that_works_and_why_not_the_others() -> None:
    made = choice(FakeSandbox(name="docker", why_not="no engine answers"), FakeSandbox(name="bubblewrap"))

    assert await made.describe() == "bubblewrap: docker: no engine answers"
    assert (await made.unavailable(), made.name) == (None, "bubblewrap")


async def test_run_goes_to_the_chosen_one() -> None:
    first, second = FakeSandbox(name="docker"), FakeSandbox(name="bubblewrap")

    await choice(first, second).run(Job("python", "1"))

    assert (len(first.jobs), len(second.jobs)) == (1, 0)


async def test_run_without_any_says_all_reasons() -> None:
    made = choice(FakeSandbox(name="docker", why_not="start it"), FakeSandbox(name="bubblewrap", why_not="install it"))

    with pytest.raises(SandboxUnavailable, match="docker: start it; bubblewrap: install it"):
        await made.run(Job("python", ""))


async def test_unavailable_looks_again_after_a_while_where_there_was_none() -> None:
    clock, backend = FakeClock(), FakeSandbox(name="docker", why_not="start it")
    made = choice(backend, clock=clock)
    assert await made.unavailable() == "docker: start it"
    backend.why_not = None

    at_once = await made.unavailable()
    clock.advance(31)

    assert (at_once, await made.unavailable()) == ("docker: start it", None)


async def test_aclose_closes_what_was_tried() -> None:
    backend = FakeSandbox(name="docker")
    made = choice(backend)
    await made.unavailable()

    await made.aclose()

    assert backend.closed


@pytest.mark.parametrize(("wanted", "said"), [("none", "FAIRLEAD_SANDBOX=none"), ("pod", "needs a cluster")])
async def test_build_sandbox_without_a_back_end_never_runs_anything(wanted: str, said: str) -> None:
    made = build_sandbox(wanted)

    assert made.name == "none"
    with pytest.raises(SandboxUnavailable, match=said):
        await made.run(Job("shell", "true"))


def test_build_sandbox_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="no back end 'chroot'"):
        build_sandbox("chroot")
