"""An HTTP Tool, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fairlead.api.v1alpha1.tool import HttpCall
from fairlead.egress import EgressTransport, Policy, build_client
from fairlead.errors import FairleadError, Refused, RetryableError, TerminalError
from fairlead.testing.echo import Echo, running_echo
from fairlead.tools.base import MAX_RESULT_BYTES, ToolContext, ToolFailed
from fairlead.tools.http_call import call_http, check_header

SECRET = "canary-0f9e8d7c"  # noqa: S105 - a canary


@pytest.fixture
def echo() -> Iterator[Echo]:
    with running_echo() as server:
        yield server


async def read(name: str, key: str) -> bytes:
    raise AssertionError(name, key)


async def use(url: str, *, policy: Policy | None = None, **fields: Any) -> Any:
    call = HttpCall.model_validate({"url": url, **fields})
    async with build_client(EgressTransport(policy or Policy(loopback=True))) as client:
        headers = {"X-Key": SECRET, "content-type": "application/vnd.mine+json"}
        context = ToolContext(read, 10)
        return await call_http(client, call, {"n": 1}, headers=headers, secrets=[SECRET], context=context)


async def test_call_http_sends_and_gives_the_json(echo: Echo) -> None:
    given = await use(echo.url, method="POST")
    assert (given["method"], given["body"], given["headers"]["x-key"]) == ("POST", '{"n":1}', "[redacted]")
    assert echo.asked[0]["headers"]["x-key"] == SECRET
    assert echo.asked[0]["headers"]["content-type"] == "application/vnd.mine+json", "what the Tool says, once"


async def test_call_http_text_is_a_text(echo: Echo) -> None:
    echo.text = f"hello {SECRET}"
    assert await use(echo.url) == "hello [redacted]"


async def test_call_http_head_gives_the_headers(echo: Echo) -> None:
    given = await use(echo.url, method="HEAD")
    assert (given["status"], given["headers"]["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ToolFailed), (404, ToolFailed), (304, ToolFailed), (429, RetryableError), (503, RetryableError)],
)
async def test_call_http_failure_is_told_without_secrets(echo: Echo, status: int, kind: type[FairleadError]) -> None:
    echo.statuses.append(status)
    echo.text = "x" * 495 + SECRET if status != 304 else ""
    with pytest.raises(kind) as failed:
        await use(f"{echo.url}/a?token=1")
    assert failed.value.reason == "ToolFailed"
    assert f"/a answered {status}" in str(failed.value)
    assert "token=1" not in str(failed.value)
    assert "canary" not in str(failed.value), "not a part of it either"


async def test_call_http_too_much_is_refused(echo: Echo) -> None:
    echo.text = "x" * (MAX_RESULT_BYTES + 1)
    with pytest.raises(TerminalError) as failed:
        await use(echo.url)
    assert failed.value.reason == "TooLarge"


async def test_call_http_private_address_is_refused_unless_allowed(echo: Echo) -> None:
    with pytest.raises(Refused):
        await use(echo.url, policy=Policy())
    assert echo.asked == []


async def test_call_http_that_takes_too_long_may_be_tried_again(echo: Echo) -> None:
    echo.go.clear()
    with pytest.raises(RetryableError) as failed:
        await use(echo.url, timeoutSeconds=1)
    assert failed.value.reason == "Timeout"


@pytest.mark.parametrize("value", [f"{SECRET}\r\nEvil: 1", f"{SECRET}\x00", f"{SECRET}é", f"{SECRET}\t"])
def test_check_header_that_cannot_be_one_is_told_without_it(value: str) -> None:
    with pytest.raises(TerminalError) as failed:
        check_header("X-Key", value, "Tool t")
    assert "X-Key" in str(failed.value)
    assert "canary" not in str(failed.value)
