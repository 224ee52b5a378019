"""A process that works on a storage, for the tests that need more than one. Says what it did, line by line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from fairlead.storage import Storage, open_storage
from fairlead.storage.base import CallAnswer, CallIntent, Effects, Event, Fence, NodeRecord
from fairlead.testing.storage import NOW, make_session


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - that is how it tells the test


async def migrate(storage: Storage, _name: str) -> None:
    await storage.migrate()
    say("migrated")


async def claim(storage: Storage, name: str) -> None:
    """Claim one after another until there is nothing more."""
    session = make_session(name)
    await storage.register(session, at=NOW)
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    while claimed := await storage.claim(session, limit=1, at=NOW):
        say(claimed[0].run.uid)


async def append(storage: Storage, _name: str) -> None:
    """Append until killed; each number said is an append that was acknowledged."""
    fence = Fence("run-1-task", "pod-1-session", 1)
    number = 0
    while True:
        entries = [{"kind": "A", "number": number}, {"kind": "B", "number": number}]
        node = NodeRecord("run-1", "a", iteration=number + 1, state=str(number))
        effects = Effects(nodes=(node,), done=number + 1, total=10**6)
        await storage.append(fence, first=number * 2, entries=entries, effects=effects, at=NOW)
        intent = CallIntent("run-1-task", "run-1", str(number), "d", "llm", "a", "", "g", "m", {}, NOW)
        await storage.begin_call(fence, intent)
        await storage.finish_call("run-1-task", str(number), CallAnswer({"result": number}, NOW, cost=1), span=None)
        say(number)
        number += 1


async def publish(storage: Storage, name: str) -> None:
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    await storage.publish(Event("run", name))
    say("published")


ROLES: dict[str, Callable[[Storage, str], Awaitable[None]]] = {
    "migrate": migrate,
    "claim": claim,
    "append": append,
    "publish": publish,
}


async def main(role: str, url: str, name: str) -> None:
    storage = open_storage(url)
    try:
        await ROLES[role](storage, name)
    finally:
        await storage.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
