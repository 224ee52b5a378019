from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.gateway.limits import BodyLimit


class Asked:
    """An application that reads the whole body and then waits for the other side to hang up."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.sent: list[Any] = []
        self.body = b""

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            self.body += message["body"]
            more = message["more_body"]
        await send({"type": "done"})

    async def receive(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self, path: str = "/v1/claim", **limits: Any) -> int | str:
        """Return the status, or what the application sent."""
        scope = {"type": "http", "path": path, "headers": [], "method": "POST"}
        await BodyLimit(self, **limits)(scope, self.receive, self.send)
        first = self.sent[0]
        return int(first["status"]) if "status" in first else str(first["type"])


def part(size: int, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


@pytest.mark.parametrize(
    ("path", "sizes", "answer"),
    [
        pytest.param("/v1/claim", [600, 400], "done", id="fits"),
        pytest.param("/v1/claim", [600, 401], 413, id="too-much"),
    ],
)
async def test_body_in_parts(path: str, sizes: list[int], answer: int | str) -> None:
    parts = [part(size, more=index < len(sizes) - 1) for index, size in enumerate(sizes)]
    assert await Asked(*parts).run(path, limit=1000) == answer


async def test_body_of_whoever_is_not_known_yet_is_small() -> None:
    size = (64 << 10) + 1
    assert await Asked(part(size, more=False)).run("/v1/register") == 413
    assert await Asked(part(size, more=False)).run("/v1/claim") == "done"


async def test_body_that_does_not_end_is_given_up() -> None:
    asked = Asked(part(1, more=True))
    assert await asked.run(seconds=0.01) == 408
    assert (b"connection", b"close") in asked.sent[0]["headers"]
