"""Translates errors to HTTP, once."""

from __future__ import annotations

import math
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fairlead.errors import Conflict, FairleadError, Refused, RetryableError, TerminalError, TooLarge
from fairlead.logs import get_logger
from fairlead.services.sessions import Unauthenticated, UnknownProtocol

_log = get_logger(__name__)
_STATUS: Final[tuple[tuple[type[FairleadError], int], ...]] = (
    (Unauthenticated, 401),
    (UnknownProtocol, 426),
    (TooLarge, 413),
    (Refused, 403),
    (TerminalError, 422),
    (Conflict, 409),
    (RetryableError, 503),
)


class JsonResponse(Response):
    """JSON by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return orjson.dumps(content)


def problem(status: int, reason: str, message: str, **headers: str) -> JsonResponse:
    """Return a refusal: a `fairlead_agent.protocol.Problem`."""
    return JsonResponse({"reason": reason, "message": message}, status, headers or None)


def to_http(error: FairleadError) -> Response:
    """Return the answer that an error means."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {}
    if isinstance(error, RetryableError) and status == 503:  # noqa: PLR2004 - as above
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if status == 401:  # noqa: PLR2004 - as above
        headers["WWW-Authenticate"] = "Bearer"
    return problem(status, error.reason, str(error), **headers)


def install(app: FastAPI) -> None:
    """Make *app* answer every error with a `Problem`."""
    app.add_exception_handler(FairleadError, _fairlead)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


async def _fairlead(_request: Request, error: Exception) -> Response:
    if not isinstance(error, FairleadError):
        raise error
    return to_http(error)


async def _invalid(_request: Request, error: Exception) -> Response:
    found = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
    place = ".".join(str(part) for part in found.get("loc", ()))
    return problem(422, "InvalidRequest", f"{place}: {found.get('msg', 'invalid')}")


async def _http(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    reason = {404: "NotFound", 405: "MethodNotAllowed", 413: "TooLarge"}.get(status, "BadRequest")
    return problem(status, reason, str(getattr(error, "detail", "")))


async def _bug(request: Request, error: Exception) -> Response:
    _log.error("request_failed", path=request.url.path, exc_info=error)
    return problem(500, "InternalError", "the gateway failed; its log says more")
