from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import FairleadError, Refused, RetryableError, TerminalError, Unavailable
from fairlead.services.outcomes import PICODOLLARS, Outcome, build_answer, describe_request, dollars, to_error_info
from fairlead.testing.storage import NOW
from fairlead_agent.protocol import Call, CallReply, LlmRequest, Message, ToolRequest


@pytest.mark.parametrize(
    ("picodollars", "text"),
    [(None, None), (0, "0"), (1, "0.000000000001"), (13_400_000_000, "0.0134"), (2 * PICODOLLARS, "2"), (10**13, "10")],
)
def test_dollars_are_plain_decimals(picodollars: int | None, text: str | None) -> None:
    assert dollars(picodollars) == text


@given(st.integers(0, 10**24))
def test_dollars_lose_nothing(picodollars: int) -> None:
    whole, _, part = (dollars(picodollars) or "").partition(".")
    assert int(whole) * PICODOLLARS + int(part.ljust(12, "0")) == picodollars


@pytest.mark.parametrize(
    ("error", "retryable", "after"),
    [
        (RetryableError("slow", reason="RateLimited", retry_after=9), True, 9),
        (Unavailable("down"), True, None),
        (Refused("no"), False, None),
    ],
)
def test_to_error_info_says_whether_to_try_again(error: FairleadError, retryable: bool, after: float | None) -> None:
    info = to_error_info(error)
    assert (info.reason, info.retryable, info.retry_after_seconds) == (error.reason, retryable, after)


def test_describe_request_is_bounded() -> None:
    messages = tuple(Message(role="user", content="x" * 10_000) for _ in range(500))
    request = LlmRequest(model="m", messages=messages, parameters={"a": {"b": {"c": {"d": {"e": {"f": {}}}}}}})
    call = Call(attempt=1, key="k", digest="d", action="llm", node="n", llm=request)
    shown = describe_request(call)
    assert len(shown["messages"]) == 65
    assert len(str(shown)) < 64 * 4200
    assert "…" in str(shown["parameters"])


def test_describe_request_shows_what_is_set_as_it_is_on_the_wire() -> None:
    tool = ToolRequest(name="sql", arguments={"query": "select 1", "apiKey": "canary1234"})
    call = Call(attempt=1, key="k", digest="d", action="tool", node="n", tool=tool)
    assert describe_request(call) == {"name": "sql", "arguments": {"query": "select 1", "apiKey": "[redacted]"}}
    asked = LlmRequest(model="m", messages=(Message(role="tool", content="4", tool_call_id="c"),))
    call = Call(attempt=1, key="k", digest="d", action="llm", node="n", llm=asked)
    assert describe_request(call)["messages"] == [{"role": "tool", "content": "4", "toolCallId": "c"}]


def test_build_answer_refuses_what_could_not_be_read_again() -> None:
    value: Any = 1
    for _ in range(300):
        value = [value]
    with pytest.raises(TerminalError, match="levels deep"):
        build_answer(Outcome(CallReply(result={"deep": value})), at=NOW)
