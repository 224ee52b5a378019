"""Who is asking: bearer tokens, and impersonation by those who may."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import ApiError, bad_request, unauthorized
from fairlead.localcluster.apiserver.rbac import denial
from fairlead.localcluster.apiserver.requests import Attributes, User
from fairlead.localcluster.apiserver.tokens import AUDIENCE, Identity, InvalidTokenError, service_account_user

ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
_AUTHENTICATED = "system:authenticated"
_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"


def static_users(admin_token: str, node_token: str) -> dict[str, User]:
    """Return the users of the data folder's own tokens."""
    return {
        admin_token: User("fairlead-admin", ("system:masters", _AUTHENTICATED)),
        node_token: User("system:node:local", ("system:nodes", _AUTHENTICATED)),
    }


def authenticate(cluster: Cluster, headers: Mapping[str, str]) -> User:
    """Return who sent a request.

    Raises:
        ApiError: 401 for a token that is not good.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return ANONYMOUS
    try:
        return authenticate_token(cluster, token.strip(), audiences=(AUDIENCE,)).user
    except InvalidTokenError:
        raise unauthorized() from None


def authenticate_token(cluster: Cluster, token: str, *, audiences: tuple[str, ...]) -> Identity:
    """Return whom *token* stands for and which of *audiences* it is for.

    Raises:
        InvalidTokenError: nobody, or for others.
    """
    for known, user in cluster.static_users.items():
        if hmac.compare_digest(known.encode(), token.encode()):
            if AUDIENCE not in audiences:
                raise InvalidTokenError("invalid bearer token, it is not for these audiences")
            return Identity(user, (AUDIENCE,))
    return cluster.tokens.check(token, audiences=audiences)


def impersonate(cluster: Cluster, user: User, headers: Mapping[str, str]) -> User:
    """Return the user that the request acts as.

    Raises:
        ApiError: 403, *user* may not be that one.
    """
    name = headers.get("impersonate-user", "")
    groups = tuple(filter(None, headers.get("impersonate-group", "").split("\n")))
    uid = headers.get("impersonate-uid", "")
    extra = {
        unquote(key.removeprefix(_EXTRA)): tuple(value.split("\n"))
        for key, value in headers.items()
        if key.startswith(_EXTRA)
    }
    if not name:
        if groups or uid or extra:
            raise bad_request("requested impersonation without impersonating a user")
        return user
    for attributes in _wanted(name, groups, uid=uid, extra=extra):
        _check(cluster, user, attributes)
    return _as_user(name, groups, uid=uid, extra=extra)


def _wanted(name: str, groups: tuple[str, ...], *, uid: str, extra: Mapping[str, tuple[str, ...]]) -> list[Attributes]:
    namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
    if name.startswith(_ACCOUNT) and account:
        wanted = [Attributes(verb="impersonate", resource="serviceaccounts", namespace=namespace, name=account)]
    else:
        wanted = [Attributes(verb="impersonate", resource="users", name=name)]
    wanted += [Attributes(verb="impersonate", resource="groups", name=group) for group in groups]
    review = Attributes(verb="impersonate", group="authentication.k8s.io", version="v1", resource="uids", name=uid)
    wanted += [review] if uid else []
    for key, values in extra.items():
        wanted += [replace(review, resource="userextras", subresource=key, name=value) for value in values]
    return wanted


def _check(cluster: Cluster, user: User, attributes: Attributes) -> None:
    if cluster.authorizer.decide(user, attributes).allowed:
        return
    group = f".{attributes.group}" if attributes.group else ""
    message = f'{attributes.resource}{group} "{attributes.name}" is forbidden: {denial(user, attributes)}'
    details = {"name": attributes.name, "kind": attributes.resource}
    raise ApiError(403, "Forbidden", message, details=details)


def _as_user(name: str, groups: tuple[str, ...], *, uid: str, extra: Mapping[str, tuple[str, ...]]) -> User:
    namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
    if name.startswith(_ACCOUNT) and account and not groups:
        return service_account_user(namespace, account, uid=uid, extra=dict(extra))
    if name == ANONYMOUS.name:
        return replace(ANONYMOUS, groups=groups or ANONYMOUS.groups)
    return User(name, tuple(dict.fromkeys((*groups, _AUTHENTICATED))), uid, extra)
