"""Asks the server who somebody is and what they may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """Whom a token belongs to."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    audiences: tuple[str, ...] = ()

    @property
    def service_account(self) -> tuple[str, str]:
        """Namespace and name of the service account; empty for anybody else."""
        parts = self.username.split(":")
        is_account = parts[:2] == ["system", "serviceaccount"] and len(parts) == 4  # noqa: PLR2004 - system:serviceaccount:ns:name
        return (parts[2], parts[3]) if is_account else ("", "")

    @property
    def pod_name(self) -> str:
        """The pod that the token is bound to, or nothing."""
        return next(iter(self.extra.get(_POD_NAME, ())), "")

    @property
    def pod_uid(self) -> str:
        """The uid of that pod."""
        return next(iter(self.extra.get(_POD_UID, ())), "")


def build_token_review(token: str, audiences: Sequence[str]) -> dict[str, Any]:
    """Return the question who a bearer token belongs to."""
    spec: dict[str, Any] = {"token": token}
    if audiences:
        spec["audiences"] = list(audiences)
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def parse_token_review(review: Mapping[str, Any], audiences: Sequence[str]) -> TokenIdentity | None:
    """Return the identity, or None for a token that is not valid (for these audiences)."""
    status = review.get("status") or {}
    granted = tuple(status.get("audiences") or ())
    if not status.get("authenticated"):
        return None
    if audiences and not set(audiences) & set(granted):
        return None  # a server that knows no audiences must not be taken for one that agreed
    user = status.get("user") or {}
    return TokenIdentity(
        username=user.get("username", ""),
        uid=user.get("uid", ""),
        groups=tuple(user.get("groups") or ()),
        extra=user.get("extra") or {},
        audiences=granted,
    )


def build_access_review(who: TokenIdentity, attributes: Mapping[str, str]) -> dict[str, Any]:
    """Return the question whether *who* may do this: verb, group, resource, namespace, name, subresource."""
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": who.username,
            "uid": who.uid,
            "groups": list(who.groups),
            "extra": {key: list(values) for key, values in who.extra.items()},
            "resourceAttributes": {key: value for key, value in attributes.items() if value},
        },
    }
