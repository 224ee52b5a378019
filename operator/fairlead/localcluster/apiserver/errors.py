"""Errors as the Kubernetes API words them: every one of them becomes a ``Status`` object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Json = dict[str, Any]

STALE_OBJECT = "the object has been modified; please apply your changes to the latest version and try again"


class Named(Protocol):
    """What an error says about the resource it is about."""

    @property
    def group(self) -> str:
        """API group, empty for the core group."""

    @property
    def plural(self) -> str:
        """Resource name, as in a URL."""

    @property
    def kind(self) -> str:
        """Kind, as in an object."""


class Problem(Protocol):
    """One field that is wrong."""

    @property
    def path(self) -> str:
        """Where."""

    @property
    def message(self) -> str:
        """What, in Kubernetes' words."""

    @property
    def reason(self) -> str:
        """``FieldValueInvalid`` and the like."""


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(self, code: int, reason: str, message: str, *, details: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> Json:
        """Return the ``Status`` object that tells a client."""
        status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            status["details"] = self.details
        if not self.reason:
            del status["reason"]
        status["code"] = self.code
        return status

    @property
    def retry_after(self) -> int | None:
        """Seconds after which a client may try again."""
        seconds = self.details.get("retryAfterSeconds")
        return int(seconds) if seconds is not None else None


def qualified(resource: Named) -> str:
    """Return ``pods`` or ``workflows.fairlead.dev``."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def details_of(resource: Named, name: str, **more: Any) -> Json:
    """Return the ``details`` of a Status about one object."""
    details: Json = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return {**details, "kind": resource.plural, **more}


def bad_request(message: str) -> ApiError:
    """400: the request makes no sense."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """401: the token is not one of ours."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: Named | None, name: str, why: str) -> ApiError:
    """403: authenticated, but not allowed."""
    if resource is None:
        return ApiError(403, "Forbidden", f"forbidden: {why}")
    subject = f'{qualified(resource)} "{name}"' if name else qualified(resource)
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", details=details_of(resource, name))


def not_found(resource: Named, name: str) -> ApiError:
    """404: no such object."""
    message = f'{qualified(resource)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=details_of(resource, name))


def no_such_path() -> ApiError:
    """404: no such resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> ApiError:
    """405: the resource does not do this."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message)


def not_acceptable(offered: Sequence[str]) -> ApiError:
    """406: the client accepts nothing that we can write."""
    listing = ", ".join(offered)
    message = f"only the following media types are accepted: {listing}"
    return ApiError(406, "NotAcceptable", message)


def unsupported_media(accepted: Sequence[str]) -> ApiError:
    """415: the body is in a format that we cannot read."""
    listing = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {listing}"
    return ApiError(415, "UnsupportedMediaType", message)


def already_exists(resource: Named, name: str) -> ApiError:
    """409: the name is taken."""
    message = f'{qualified(resource)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=details_of(resource, name))


def conflict(resource: Named, name: str, why: str = STALE_OBJECT, *, causes: Sequence[Json] = ()) -> ApiError:
    """409: somebody else changed it first."""
    message = f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {why}'
    more = {"causes": list(causes)} if causes else {}
    return ApiError(409, "Conflict", message, details=details_of(resource, name, **more))


def expired(message: str) -> ApiError:
    """410: the resourceVersion is older than what we still know."""
    return ApiError(410, "Expired", message)


def too_large(message: str) -> ApiError:
    """413: more bytes than a request may have."""
    return ApiError(413, "RequestEntityTooLarge", message)


def invalid(resource: Named, name: str, problems: Sequence[Problem]) -> ApiError:
    """422: the object breaks rules, each of which becomes a cause."""
    lines = [f"{problem.path}: {problem.message}" for problem in problems]
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    causes = [{"reason": each.reason, "message": each.message, "field": each.path} for each in problems]
    details: Json = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details |= {"kind": resource.kind, "causes": causes}
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {text}', details=details)


def internal(message: str) -> ApiError:
    """500: a bug, or a disk that is full."""
    details = {"causes": [{"message": message}]}
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", details=details)


def version_too_new(asked: int, current: int) -> ApiError:
    """504: the client knows a resourceVersion that we do not have yet (another server's, usually)."""
    message = f"Too large resource version: {asked}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    details = {"causes": causes, "retryAfterSeconds": 1}
    return ApiError(504, "Timeout", f"Timeout: {message}", details=details)
