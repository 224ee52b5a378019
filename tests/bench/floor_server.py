"""The least that could serve objects on the same web server: a dictionary behind bare ASGI.

No validation, no rights, no fields' owners, no audit, nothing kept: what is over it is the price of being Kubernetes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvicorn

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Floor:
    """Objects by path, and who watches them."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Any]] = {}
        self._watchers: set[asyncio.Queue[bytes]] = set()
        self._version = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        if b"watch=" in scope["query_string"]:
            await self._watch(send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status, answer = self._serve(scope["method"], scope["path"], body)
        await send({"type": "http.response.start", "status": status, "headers": _headers(answer)})
        await send({"type": "http.response.body", "body": answer})

    def _serve(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        match method:
            case "POST":
                item = orjson.loads(body)
                return 201, self._store(f"{path}/{item['metadata']['name']}", item, "ADDED")
            case "PUT":
                return 200, self._store(path, orjson.loads(body), "MODIFIED")
            case "DELETE":
                self._tell("DELETED", self._objects.pop(path))
                return 200, b"{}"
            case _ if path in self._objects:
                return 200, orjson.dumps(self._objects[path])
            case _:
                items = [item for key, item in self._objects.items() if key.startswith(path)]
                return 200, orjson.dumps({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    def _store(self, path: str, item: dict[str, Any], change: str) -> bytes:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self._objects[path] = item
        self._tell(change, item)
        return orjson.dumps(item)

    def _tell(self, change: str, item: dict[str, Any]) -> None:
        if self._watchers:
            line = orjson.dumps({"type": change, "object": item}) + b"\n"
            for watcher in self._watchers:
                watcher.put_nowait(line)

    async def _watch(self, send: Send) -> None:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})
        finally:
            self._watchers.discard(queue)


def _headers(answer: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]


if __name__ == "__main__":
    port, certificate, key = sys.argv[1:]
    uvicorn.run(
        Floor(),
        host="127.0.0.1",
        port=int(port),
        http="httptools",
        loop="uvloop",
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="error",
        access_log=False,
        timeout_keep_alive=600,  # it waits while the other one is measured
        lifespan="off",
    )
