from __future__ import annotations

import orjson
import pytest

from fairlead.errors import (
    Conflict,
    FairleadError,
    InvalidObject,
    NotSupported,
    Refused,
    TerminalError,
    TooLarge,
    Unavailable,
)
from fairlead.gateway.errors import to_http
from fairlead.services.calls import NonDeterministic
from fairlead.services.sessions import Unauthenticated, UnknownProtocol
from fairlead.storage.base import Fenced


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Unauthenticated("x"), 401, "Unauthenticated"),
        (Refused("x"), 403, "Refused"),
        (Fenced("x"), 409, "Fenced"),
        (NonDeterministic("x"), 409, "NonDeterministic"),
        (Conflict("x"), 409, "Conflict"),
        (TooLarge("x"), 413, "TooLarge"),
        (InvalidObject("x"), 422, "InvalidSpec"),
        (NotSupported("x"), 422, "NotSupported"),
        (TerminalError("x", reason="Odd"), 422, "Odd"),
        (UnknownProtocol("x"), 426, "UnknownProtocol"),
        (Unavailable("x", retry_after=2.5), 503, "Unavailable"),
    ],
)
def test_to_http_answers_a_problem(error: FairleadError, status: int, reason: str) -> None:
    answer = to_http(error)
    assert (answer.status_code, orjson.loads(answer.body)) == (status, {"reason": reason, "message": "x"})


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (2.5, "3"), (60.0, "60")])
def test_to_http_unavailable_says_when_to_try_again(seconds: float, header: str) -> None:
    assert to_http(Unavailable("x", retry_after=seconds)).headers["Retry-After"] == header
