"""The network of a program that has one: the hosts that it names, on two ports, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import pytest_asyncio

from fairlead.egress import Policy
from fairlead.sandbox.base import Ended, Job, Limits, Sandbox
from fairlead.sandbox.bubblewrap import Bubblewrap
from fairlead.sandbox.choosing import IMAGE
from fairlead.sandbox.docker import Docker
from fairlead.sandbox.proxy import Proxies
from fairlead.sandbox.warm import Shape, WarmSandbox
from fairlead.testing.sandboxes import PRELUDE, explained

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.process_runtime]

NAMES = {
    "allowed.test": ["127.0.0.2", "127.0.0.1"],  # nobody answers at the first
    "other.test": ["127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "office.test": ["10.1.2.3"],
    "half.test": ["127.0.0.1", "169.254.169.254"],
    "nobody.test": [],
}


@dataclass
class Server:
    port: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.asked.append((self.command, self.path, self.headers["Host"]))
            answer = json.dumps({"path": self.path, "body": body.decode(), "headers": sorted(self.headers)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        found.port = http.server_port
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield found
        http.shutdown()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sandbox(backend: str, server: Server) -> AsyncIterator[Sandbox]:
    async def resolve(host: str, port: int) -> list[str]:
        del port
        return NAMES[host]

    # The stand-in's port is allowed in place of 80 and 443, which a test cannot have.
    proxies = Proxies(Policy(loopback=True), resolve, ports=(server.port,))
    kind = Docker(IMAGE) if backend == "docker" else Bubblewrap()
    made = WarmSandbox(kind, way_out=proxies, parallel=2, warm=0, shape=Shape.of(Limits()))
    assert await made.unavailable() is None
    yield made
    await made.aclose()


ASK = """
import http.client, json, urllib.error, urllib.request
port = inputs["port"]
def get(url, data=None):
    try:
        with urllib.request.urlopen(url, data=data, timeout=10) as answer:
            return answer.status, json.load(answer)["path"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
def tunnel(host, port, path="/tunnel", name="allowed.test"):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 3128, timeout=10)
        connection.set_tunnel(host, port)
        connection.request("GET", path, headers={"Host": name})
        return 200, json.load(connection.getresponse())["path"]
    except OSError as error:
        return int(str(error).split("failed: ")[1][:3]), ""
def raw(text):
    with socket.create_connection(("127.0.0.1", 3128), timeout=10) as one:
        one.sendall(text.encode())
        found = b""
        while True:
            piece = one.recv(65536)
            if not piece:
                return found.decode()
            found += piece
"""


async def test_network_leads_to_the_hosts_that_are_named(sandbox: Sandbox, server: Server) -> None:
    source = """
output = {
    "get": get(f"http://allowed.test:{port}/a?b=c"),
    "post": get(f"http://allowed.test:{port}/p", b"x" * 100_000),
    "upper": get(f"http://ALLOWED.test:{port}/upper"),
    "tunnel": tunnel("allowed.test", port),
}
"""
    job = Job("python", PRELUDE + ASK + source, inputs={"port": server.port}, network=("allowed.test",))

    result = await sandbox.run(job)

    assert result.output == {
        "get": [200, "/a?b=c"],
        "post": [200, "/p"],
        "upper": [200, "/upper"],
        "tunnel": [200, "/tunnel"],
    }, explained(result)


async def test_network_leads_nowhere_else(sandbox: Sandbox, server: Server) -> None:
    source = """
urls = [f"http://{host}:{port}/" for host in ("other.test", "metadata.test", "office.test", "half.test", "127.0.0.1",
        "localhost", "nobody.test", "2130706433", "[::1]", "allowed.test.", "sub.allowed.test", "0x7f.1")]
output = {url: get(url)[0] for url in [*urls, "http://allowed.test:1/", f"http://me:secret@allowed.test:{port}/"]}
hosts = ("other.test", "metadata.test", "127.0.0.1", "169.254.169.254")
output.update({host: tunnel(host, port)[0] for host in hosts})
output["other port"] = tunnel("allowed.test", port + 1)[0]
output["ssh"] = tunnel("allowed.test", 22)[0]
def direct(address):
    with socket.create_connection(address, timeout=2):
        return address
attempt("direct", lambda: direct(("127.0.0.1", port)))
attempt("name", lambda: direct(("allowed.test", port)))
attempt("out", lambda: direct(("1.1.1.1", 80)))
"""
    before = len(server.asked)
    named = ("allowed.test", "metadata.test", "office.test", "half.test", "nobody.test")  # named is not enough

    result = await sandbox.run(Job("python", PRELUDE + ASK + source, inputs={"port": server.port}, network=named))

    assert result.ended is Ended.EXITED, explained(result)
    refused = {where: what for where, what in result.output.items() if what in (403, 502)}
    direct = {where for where, what in result.output.items() if str(what).startswith("refused")}
    assert direct == {"direct", "name", "out"}, explained(result)
    assert refused.keys() | direct == result.output.keys(), result.output
    assert len(refused) == 20
    assert len(server.asked) == before


async def test_network_carries_no_second_request_to_another_host(sandbox: Sandbox, server: Server) -> None:
    source = """
hidden = "GET /hidden HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n"
start = f"POST http://allowed.test:{port}/first HTTP/1.1\\r\\nHost: other.test\\r\\n"
output = [
    raw(start + "Content-Length: 0\\r\\n\\r\\n" + hidden),
    raw(start + "Transfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n" + hidden),
    raw(start + "Content-Length: 0\\r\\nContent-Length: 60\\r\\n\\r\\n" + hidden),
    raw(start + "Content-Length: 0\\nX: y\\r\\n\\r\\n" + hidden),
    raw(start + "X" * 20_000 + "\\r\\n\\r\\n"),
    raw("nonsense\\r\\n\\r\\n"),
]
"""
    del server.asked[:]

    result = await sandbox.run(
        Job("python", PRELUDE + ASK + source, inputs={"port": server.port}, network=("allowed.test",))
    )

    assert [answer.split()[1] for answer in result.output] == ["200", "411", "400", "400", "431", "400"]
    assert server.asked == [("POST", "/first", f"allowed.test:{server.port}")]


async def test_network_that_is_not_asked_for_is_not_there(sandbox: Sandbox) -> None:
    source = """
attempt("proxy", lambda: socket.create_connection(("127.0.0.1", 3128), timeout=2))
attempt("socket", lambda: os.stat("/run/proxy/proxy.sock"))
attempt("environment", lambda: os.environ["http_proxy"])
"""
    result = await sandbox.run(Job("python", PRELUDE + source))

    assert {what.split(":")[0] for what in result.output.values()} == {"refused"}, explained(result)
