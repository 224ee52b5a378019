from __future__ import annotations

import pytest

from fairlead.sandbox.proxy import Refusal, Target, parse_head


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(head("CONNECT api.test:443 HTTP/1.1", "Host: x"), Target("api.test", 443), id="a-tunnel"),
        pytest.param(head("CONNECT API.test:443 HTTP/1.1"), Target("api.test", 443), id="a-tunnel-in-capitals"),
        pytest.param(
            head("GET http://api.test/a?b#c HTTP/1.1", "Host: other.test", "Accept: */*", "Proxy-Authorization: x"),
            Target("api.test", 80, head("GET /a?b HTTP/1.1", "Host: api.test", "Connection: close", "Accept: */*")),
            id="a-request-with-the-host-of-its-url",
        ),
        pytest.param(
            head("POST http://api.test:443/ HTTP/1.0", "content-length: 3", "Connection: keep-alive"),
            Target(
                "api.test",
                443,
                head("POST / HTTP/1.1", "Host: api.test:443", "Connection: close", "content-length: 3"),
                3,
            ),
            id="a-request-with-a-body",
        ),
    ],
)
def test_parse_head_says_where_to_go(given: bytes, expected: Target) -> None:
    assert parse_head(given) == expected


@pytest.mark.parametrize(
    ("given", "status"),
    [
        pytest.param(head("GET"), 400, id="no-request"),
        pytest.param(head("GET / HTTP/1.1"), 403, id="no-absolute-url"),
        pytest.param(head("CONNECT api.test HTTP/1.1"), 400, id="no-port"),
        pytest.param(head("CONNECT api.test:0x50 HTTP/1.1"), 400, id="odd-port"),
        pytest.param(head("GET https://api.test/ HTTP/1.1"), 400, id="https-without-a-tunnel"),
        pytest.param(head("GET ftp://api.test/ HTTP/1.1"), 403, id="another-scheme"),
        pytest.param(head("GET http://me:pw@api.test/ HTTP/1.1"), 403, id="credentials"),
        pytest.param(head("GET http://2130706433/ HTTP/1.1"), 403, id="odd-address"),
        pytest.param(head("POST http://api.test/ HTTP/1.1", "Transfer-Encoding: chunked"), 411, id="chunked"),
        pytest.param(head("POST http://api.test/ HTTP/1.1", "Content-Length: 1", "Content-Length: 2"), 400, id="twice"),
        pytest.param(head("POST http://api.test/ HTTP/1.1", "Content-Length: -1"), 400, id="negative"),
        pytest.param(b"GET http://api.test/ HTTP/1.1\r\nA: b\nHost: c\r\n\r\n", 400, id="half-a-line-end"),
        pytest.param(b"GET http://api.test/ HTTP/1.1\r\nA: b\rHost: c\r\n\r\n", 400, id="the-other-half"),
        pytest.param(b"GET http://api.test/ HTTP/1.1\r\nA: \0\r\n\r\n", 400, id="a-zero"),
        pytest.param(head("GET http://api.test/ HTTP/1.1", "Content-Length : 5"), 400, id="a-space-before-the-colon"),
        pytest.param(head("GET http://api.test/ HTTP/1.1", "A: b", " Content-Length: 5"), 400, id="a-folded-line"),
        pytest.param(head("GET http://api.test/ HTTP/1.1", "no header"), 400, id="no-header"),
    ],
)
def test_parse_head_refuses(given: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        parse_head(given)
    assert caught.value.status.startswith(str(status))
