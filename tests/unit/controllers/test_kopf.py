"""What Kopf is told: settings, handlers, and that it keeps nothing on objects."""

from __future__ import annotations

from typing import Any

import kopf

from fairlead.controllers.handlers import Memo, build_registry, observe, reconcile_agent
from fairlead.controllers.startup import GenerationDiffBase, NoProgress, build_settings
from fairlead.services.objects import Key


def body(generation: int, observed: int | None) -> kopf.Body:
    status = {} if observed is None else {"observedGeneration": observed}
    raw: Any = {"metadata": {"generation": generation, "uid": "u"}, "spec": {"large": "x" * 10}, "status": status}
    return kopf.Body(raw)


def test_diff_base_nothing_was_handled_before_the_first_status() -> None:
    base = GenerationDiffBase()
    assert base.fetch(body=body(1, None)) is None
    assert base.fetch(body=body(1, -1)) is None


def test_diff_base_is_equal_when_the_status_has_caught_up() -> None:
    base = GenerationDiffBase()
    assert base.fetch(body=body(3, 3)) == base.build(body=body(3, 3))
    assert base.fetch(body=body(3, 2)) != base.build(body=body(3, 2))


def test_diff_base_and_progress_write_nothing() -> None:
    patch = kopf.Patch()
    GenerationDiffBase().store(body=body(1, None), patch=patch, essence={"generation": 1})
    NoProgress().store(key="x", record=None, body=body(1, None), patch=patch)
    NoProgress().touch(body=body(1, None), patch=patch, value="now")
    NoProgress().purge(key="x", body=body(1, None), patch=patch)
    assert not patch


def test_settings_are_chosen() -> None:
    settings = build_settings()
    assert (settings.networking.connect_timeout, settings.networking.request_timeout) == (10, 30)
    assert settings.watching.inactivity_timeout == 70
    assert settings.watching.server_timeout is not None
    assert settings.queueing.worker_limit is not None
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.persistence.finalizer.startswith("fairlead.dev/")


class Queue:
    """Remembers what was added."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    async def add(self, key: Key, delay: float = 0) -> None:
        assert delay == 0
        self.keys.append(key)


class FakeOperator:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.seen: list[tuple[str | None, Any]] = []

    async def observe(self, kind: str | None, obj: Any) -> None:
        self.seen.append((kind, obj))


async def test_handlers_hand_everything_on() -> None:
    operator = FakeOperator()
    memo = Memo(kube=None, operator=operator)  # type: ignore[arg-type]  # fakes
    await observe(event={"type": "ADDED", "object": {"kind": "Pod"}}, memo=memo)
    await reconcile_agent(body=body(1, None), memo=memo)
    assert operator.seen == [("ADDED", {"kind": "Pod"})]
    assert operator.queue.keys == [Key("Agent", "u")]


def test_registry_puts_no_finalizer_and_no_timer_on_anything() -> None:
    registry = build_registry()
    handlers = [*registry._changing.get_all_handlers(), *registry._watching.get_all_handlers()]
    assert len(handlers) == 4 * 3 + 6
    assert not any(getattr(handler, "requires_finalizer", False) for handler in handlers)
    assert not list(registry._spawning.get_all_handlers())
