"""`http_request`: ask a web address, behind the egress check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx
import orjson

from fairlead.egress import Fetch, fetch
from fairlead.tools.base import MAX_RESULT_BYTES, ToolContext

_DEFAULT_SECONDS: Final = 30
READS: Final = frozenset({"GET", "HEAD"})
"""The methods that change nothing at the other side."""


class HttpRequest:
    """Sends one request to a public address and returns the answer, whatever its status."""

    name = "http_request"
    description = "Sends an HTTP request to a public address; returns {status, headers, body, json}."
    settings: Mapping[str, Any] = {}
    schema: Mapping[str, Any] = {
        "type": "object",
        "required": ["url"],
        "additionalProperties": False,
        "properties": {
            "method": {"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]},
            "url": {"type": "string", "maxLength": 8192},
            "headers": {"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string"}},
            "body": {"type": "string"},
            "json": {},
            "timeoutSeconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 600},
        },
        "not": {"required": ["body", "json"]},
    }

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    def is_idempotent(self, arguments: Mapping[str, Any]) -> bool:
        """Whether nothing is changed at the other side."""
        return arguments.get("method", "GET") in READS

    async def use(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Send the request."""
        headers = dict(arguments.get("headers") or {})
        content = arguments["body"].encode() if "body" in arguments else None
        if "json" in arguments:
            content = orjson.dumps(arguments["json"])
            headers.setdefault("Content-Type", "application/json")
        answer = await fetch(
            self._client,
            Fetch(
                method=arguments.get("method", "GET"),
                url=arguments["url"],
                headers=headers,
                body=content,
                timeout_seconds=min(arguments.get("timeoutSeconds", _DEFAULT_SECONDS), context.timeout_seconds),
                max_bytes=MAX_RESULT_BYTES // 2,
            ),
        )
        shown = {"status": answer.status, "headers": answer.headers, "body": answer.body.decode(errors="replace")}
        if "json" in answer.headers.get("content-type", ""):
            shown["json"] = _json(answer.body)
        return shown


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
