"""An HTTP Tool: one address, arguments in their places, headers that may hold secrets which go nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Final

import httpx
import orjson

from fairlead.api.v1alpha1.tool import HttpCall
from fairlead.egress import Fetch, Fetched, fetch
from fairlead.errors import FairleadError, TerminalError
from fairlead.redaction import REDACTED
from fairlead.tools.base import MAX_RESULT_BYTES, ToolContext, ToolFailed, ToolUnavailable
from fairlead.tools.checks import check_result
from fairlead.tools.placing import place

_MAY_PASS: Final = frozenset({408, 425, 429})
_FAILED: Final = 400
_SERVER_FAILED: Final = 500
_REDIRECTED: Final = range(300, 400)
_SHOWN: Final = 500
_LEAST_MASKED: Final = 4
"""Shorter texts are no secrets, and masking them would spoil everything else."""


async def call_http(
    client: httpx.AsyncClient,
    call: HttpCall,
    arguments: Mapping[str, Any],
    *,
    headers: Mapping[str, str],
    secrets: Sequence[str],
    context: ToolContext,
) -> Any:
    """Send the request; return the JSON value of the answer, or its text.

    None of *secrets*, which are in *headers*, is in results or errors, even if the other side repeats it.

    Raises:
        ToolFailed: the other side says no.
        RetryableError: it may answer later.
    """
    placed = place(call, arguments)
    given = {name.lower() for name in headers}
    usual = {"Accept": "application/json, */*;q=0.5"} | ({"Content-Type": "application/json"} if placed.body else {})
    sent = {name: value for name, value in usual.items() if name.lower() not in given} | dict(headers)
    asked = Fetch(
        method=call.method,
        url=placed.url,
        headers=sent,
        body=placed.body,
        timeout_seconds=min(call.timeout_seconds, context.timeout_seconds),
        max_bytes=MAX_RESULT_BYTES,
    )
    try:
        result = _result(call, await fetch(client, asked), secrets)
    except FairleadError as error:
        raise _without(error, secrets) from None
    check_result(result)
    return result


def check_header(name: str, value: str, whose: str) -> str:
    """Return a header's value if it can be sent.

    Raises:
        TerminalError: it has characters that headers cannot have; the message does not repeat it.
    """
    if value.isascii() and value.isprintable():
        return value
    raise TerminalError(
        f"the value of the header {name} of {whose} has characters that a header cannot have", reason="InvalidSecret"
    )


def masked(value: Any, secrets: Sequence[str]) -> Any:
    """Return *value* without *secrets* in any of its texts."""
    if isinstance(value, str):
        for secret in secrets:
            if len(secret) >= _LEAST_MASKED:
                value = value.replace(secret, REDACTED)
        return value
    if isinstance(value, list):
        return [masked(part, secrets) for part in value]
    if isinstance(value, Mapping):
        return {masked(key, secrets): masked(part, secrets) for key, part in value.items()}
    return value


def _without(error: FairleadError, secrets: Sequence[str]) -> FairleadError:
    safe = copy(error)
    safe.args = tuple(masked(part, secrets) for part in error.args)
    safe.__cause__ = safe.__context__ = None
    return safe


def _result(call: HttpCall, answer: Fetched, secrets: Sequence[str]) -> Any:
    text = masked(answer.body.decode(errors="replace"), secrets)
    if answer.status >= _FAILED or answer.status in _REDIRECTED:
        said = " ".join(text.split())[:_SHOWN]
        message = f"{call.method} {answer.url.partition('?')[0]} answered {answer.status}{f': {said}' if said else ''}"
        if answer.status >= _SERVER_FAILED or answer.status in _MAY_PASS:
            raise ToolUnavailable(message)
        raise ToolFailed(message)
    if call.method == "HEAD":
        return masked({"status": answer.status, "headers": dict(answer.headers)}, secrets)
    if not text:
        return None
    if "json" in answer.headers.get("content-type", ""):
        try:
            return masked(orjson.loads(answer.body), secrets)
        except orjson.JSONDecodeError:
            return text
    return text
