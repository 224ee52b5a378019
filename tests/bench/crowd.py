"""``python -m tests.bench.crowd``: plays the agents of many pods over the real protocol, in a process of its own.

Reads one line of JSON: the gateway's URL, its authority, and a token for each pod. Each agent registers, beats three
times in a Lease and keeps a claim open, over connections of its own as in its pod; the line ``ready`` tells that all
are registered. It ends with its standard input, and fails when an agent loses its session.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import sys
from typing import Any

import click
import httpx
import orjson

_AT_ONCE = 8
_CLAIM_SECONDS = 20


class Member:
    """One agent."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._client = httpx.AsyncClient(base_url=f"{url}/v1", verify=context, trust_env=False, timeout=60)
        self._session: dict[str, Any] = {}

    async def register(self, token: str) -> None:
        """Get a session."""
        body = {"version": "0.1.0", "capabilities": ["llm", "tool"], "concurrency": 4}
        self._session = await self._post("/register", token, body)

    async def beat(self) -> None:
        """Beat until cancelled, not all in the same moment."""
        pause = self._session["heartbeatSeconds"]
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - agents spread
        while True:
            reply = await self._post("/heartbeat", self._session["session"], {"tasks": []})
            if reply["lost"]:
                raise RuntimeError("tasks were lost that nobody had")
            await asyncio.sleep(pause)

    async def claim(self) -> None:
        """Ask for work, again and again; there is none."""
        while True:
            await self._post("/claim", self._session["session"], {"limit": 4, "waitSeconds": _CLAIM_SECONDS})

    async def _post(self, path: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")
        found: dict[str, Any] = answer.json()
        return found


async def main() -> None:
    """Play until nobody listens any more."""
    given = orjson.loads(sys.stdin.readline())
    context = ssl.create_default_context(cadata=given["authority"])
    members = [Member(given["url"], context) for _ in given["tokens"]]
    few = asyncio.Semaphore(_AT_ONCE)

    async def begin(member: Member, token: str) -> None:
        async with few:
            await member.register(token)

    await asyncio.gather(*(begin(*pair) for pair in zip(members, given["tokens"], strict=True)))
    click.echo("ready")
    work = [asyncio.ensure_future(part()) for member in members for part in (member.beat, member.claim)]
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    done, _ = await asyncio.wait([ended, *work], return_when=asyncio.FIRST_COMPLETED)
    for one in work:
        one.cancel()
    for one in done - {ended}:
        one.result()


if __name__ == "__main__":
    asyncio.run(main())
