"""A web server for tests that answers with what it was asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass
class Echo:
    """What the server saw, and how it answers."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    """``method``, ``path``, ``headers`` and ``body`` of each request."""
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 200 afterwards."""
    text: str = ""
    """The body of every answer, as plain text; empty: the request as JSON."""
    go: threading.Event = field(default_factory=threading.Event)
    """No answer is given before it is set, which it is from the start."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    echo: Echo


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        echo = self.server.echo
        size = int(self.headers.get("content-length") or 0)
        seen = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(size).decode(),
        }
        echo.asked.append(seen)
        echo.go.wait(30)
        body = echo.text.encode() or orjson.dumps(seen)
        self.send_response(echo.statuses.pop(0) if echo.statuses else 200)
        self.send_header("Content-Type", "text/plain" if echo.text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextlib.contextmanager
def running_echo() -> Iterator[Echo]:
    """Serve on a free port of this machine."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.echo = Echo(f"http://127.0.0.1:{server.server_address[1]}")
    server.echo.go.set()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.echo
    finally:
        server.echo.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
