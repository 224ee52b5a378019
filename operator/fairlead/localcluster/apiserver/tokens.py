"""Service account tokens: issued by TokenRequest, checked on every request and by TokenReview.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fairlead.clock import Clock
from fairlead.localcluster.apiserver.errors import Json
from fairlead.localcluster.apiserver.requests import User
from fairlead.localcluster.apiserver.store import Store, Stored
from fairlead.localcluster.apiserver.times import parse_time

AUDIENCE = ISSUER = "https://kubernetes.default.svc.cluster.local"
_ALGORITHM = "RS256"
_BOUND_PLURALS = {"pod": "pods", "secret": "secrets", "node": "nodes"}
_DELETED_POD_LEEWAY = timedelta(seconds=60)


class InvalidTokenError(Exception):
    """The token does not authenticate anybody; the text says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token stands for, and which of the asked audiences it is for."""

    user: User
    audiences: tuple[str, ...]


class Tokens:
    """Signs and checks with the key of the data folder."""

    def __init__(self, key_file: Path, store: Store, *, clock: Clock) -> None:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            message = f"{key_file} is not an RSA key"
            raise TypeError(message)
        self._private, self._public = key, key.public_key()
        self._store = store
        self._clock = clock

    def issue(self, account: Stored, bound: Json | None, *, audiences: list[str], lifetime: timedelta | None) -> str:
        """Return a token of the service account *account*.

        With *bound*, an object reference with uid, it dies with that object; with *lifetime* None it has no other end.
        """
        namespace, name = account.key
        now = self._clock.now()
        private: Json = {"namespace": namespace, "serviceaccount": {"name": name, "uid": account.uid}}
        if bound is not None:
            private[bound["kind"].lower()] = {"name": bound["name"], "uid": bound["uid"]}
            private |= self._node_of(namespace, bound)
        claims: Json = {
            "aud": audiences,
            "iat": int(now.timestamp()),
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": private,
            "nbf": int(now.timestamp()),
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        if lifetime is not None:
            claims["exp"] = int((now + lifetime).timestamp())
        return jwt.encode(claims, self._private, algorithm=_ALGORITHM)

    def _node_of(self, namespace: str, bound: Json) -> Json:
        pod = self._store.get(("", "pods"), namespace, bound["name"]) if bound["kind"] == "Pod" else None
        node_name = pod.obj["spec"].get("nodeName", "") if pod else ""
        node = self._store.get(("", "nodes"), "", node_name) if node_name else None
        return {"node": {"name": node_name, "uid": node.uid}} if node else {}

    def check(self, token: str, *, audiences: tuple[str, ...]) -> Identity:
        """Return whom *token* stands for, if it is for one of *audiences*.

        Raises:
            InvalidTokenError: it is not ours, too old, for others, or what it is bound to is gone.
        """
        claims = self._decode(token)
        shared = tuple(audience for audience in audiences if audience in _as_list(claims.get("aud")))
        if not shared:
            why = f"token audiences {_as_list(claims.get('aud'))} is invalid for the target audiences {list(audiences)}"
            raise InvalidTokenError(f"invalid bearer token, {why}")
        private = claims["kubernetes.io"]
        self._check_bindings(private)
        return Identity(_user(private, str(claims.get("jti", ""))), shared)

    def _decode(self, token: str) -> Json:
        options: Any = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            claims: Json = jwt.decode(token, self._public, algorithms=[_ALGORITHM], issuer=ISSUER, options=options)
        except jwt.PyJWTError as error:
            raise InvalidTokenError("invalid bearer token") from error
        now = self._clock.now().timestamp()
        if "exp" in claims and now >= claims["exp"]:
            raise InvalidTokenError("invalid bearer token, service account token has expired")
        if now < claims.get("nbf", 0):
            raise InvalidTokenError("invalid bearer token, service account token is not valid yet")
        if "kubernetes.io" not in claims:
            raise InvalidTokenError("invalid bearer token")
        return claims

    def _check_bindings(self, private: Json) -> None:
        namespace, account = private["namespace"], private["serviceaccount"]
        self._live("serviceaccounts", namespace, account)
        for kind, plural in _BOUND_PLURALS.items():
            if kind in private:
                self._live(plural, "" if kind == "node" else namespace, private[kind])

    def _live(self, plural: str, namespace: str, reference: Json) -> None:
        stored = self._store.get(("", plural), namespace, reference["name"])
        if stored is None or stored.uid != reference["uid"]:
            raise InvalidTokenError(f"invalid bearer token, {plural} {reference['name']!r} has been deleted")
        deleted = stored.obj["metadata"].get("deletionTimestamp")
        if deleted and self._past(parse_time(deleted) + _DELETED_POD_LEEWAY):
            raise InvalidTokenError(f"invalid bearer token, {plural} {reference['name']!r} is being deleted")

    def _past(self, moment: datetime) -> bool:
        return self._clock.now() > moment


def _as_list(audience: Any) -> list[str]:
    return [audience] if isinstance(audience, str) else list(audience or [])


def _user(private: Json, token_id: str) -> User:
    namespace, account = private["namespace"], private["serviceaccount"]
    extra: dict[str, tuple[str, ...]] = {"authentication.kubernetes.io/credential-id": (f"JTI={token_id}",)}
    for kind in ("pod", "node"):
        if kind in private:
            extra[f"authentication.kubernetes.io/{kind}-name"] = (private[kind]["name"],)
            extra[f"authentication.kubernetes.io/{kind}-uid"] = (private[kind]["uid"],)
    return service_account_user(namespace, account["name"], uid=account["uid"], extra=extra)


def service_account_user(
    namespace: str, name: str, *, uid: str = "", extra: dict[str, tuple[str, ...]] | None = None
) -> User:
    """Return the user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra or {})
