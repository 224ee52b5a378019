"""Reviews: objects that are a question and come back with the answer; nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fairlead.localcluster.apiserver.authn import authenticate_token
from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import Json, bad_request, invalid
from fairlead.localcluster.apiserver.output import Response, json_response
from fairlead.localcluster.apiserver.requests import Attributes, Call, User
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.tokens import AUDIENCE, InvalidTokenError
from fairlead.localcluster.apiserver.writes import check_types
from fairlead.localcluster.apiserver.writing import object_of
from fairlead.localcluster.schema.errors import required

Review = Callable[[Cluster, Call, Json, Resource], Json]


async def review(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Answer the review in the body."""
    obj = object_of(call, resource, call.json_body(optional=resource.kind == "SelfSubjectReview"))
    check_types(resource.api_version, resource.kind, obj)
    spec = obj.get("spec") or {}
    obj["status"] = _REVIEWS[resource.plural](cluster, call, spec, resource)
    obj["metadata"].setdefault("creationTimestamp", None)
    return json_response(obj, code=201)


def _review_token(cluster: Cluster, _call: Call, spec: Json, resource: Resource) -> Json:
    if not spec.get("token"):
        raise invalid(resource, "", [required("spec.token", "token is required for TokenReview in authentication")])
    audiences = tuple(spec.get("audiences") or (AUDIENCE,))
    try:
        identity = authenticate_token(cluster, str(spec["token"]), audiences=audiences)
    except InvalidTokenError as error:
        return {"authenticated": False, "error": str(error), "user": {}}
    return {"authenticated": True, "user": identity.user.info(), "audiences": list(identity.audiences)}


def _review_self(_cluster: Cluster, call: Call, _spec: Json, _resource: Resource) -> Json:
    return {"userInfo": call.user.info()}


def _review_self_access(cluster: Cluster, call: Call, spec: Json, resource: Resource) -> Json:
    return _decision(cluster, call.user, _attributes(spec, resource))


def _review_access(cluster: Cluster, _call: Call, spec: Json, resource: Resource) -> Json:
    if not spec.get("user") and not spec.get("groups"):
        problem = required("spec.user", "at least one of user or group must be specified")
        raise invalid(resource, "", [problem])
    extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
    user = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
    return _decision(cluster, user, _attributes(spec, resource))


def _review_local_access(cluster: Cluster, call: Call, spec: Json, resource: Resource) -> Json:
    if (spec.get("resourceAttributes") or {}).get("namespace") != call.attributes.namespace:
        raise bad_request("spec.resourceAttributes.namespace must match namespace")
    return _review_access(cluster, call, spec, resource)


def _attributes(spec: Json, resource: Resource) -> Attributes:
    asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if bool(asked) == bool(path):
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(resource, "", [required("spec.resourceAttributes", detail)])
    if path:
        return Attributes(verb=path.get("verb", ""), path=path.get("path", ""))
    known: Json = asked or {}
    fields = {name: known.get(name, "") for name in ("verb", "group", "version", "subresource", "namespace", "name")}
    return Attributes(**fields, resource=known.get("resource") or "*")


def _decision(cluster: Cluster, user: User, attributes: Attributes) -> Json:
    decision = cluster.authorizer.decide(user, attributes)
    return {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}


def _review_rules(cluster: Cluster, call: Call, spec: Json, resource: Resource) -> Json:
    if not spec.get("namespace"):
        raise bad_request("no namespace on request")
    del resource
    rules = cluster.authorizer.rules(call.user, spec["namespace"])
    return {
        "resourceRules": [
            _only(rule, "verbs apiGroups resources resourceNames") for rule in rules if "resources" in rule
        ],
        "nonResourceRules": [_only(rule, "verbs nonResourceURLs") for rule in rules if "nonResourceURLs" in rule],
        "incomplete": False,
    }


def _only(rule: Json, fields: str) -> dict[str, Any]:
    return {name: rule[name] for name in fields.split() if name in rule}


_REVIEWS: Mapping[str, Review] = {
    "tokenreviews": _review_token,
    "selfsubjectreviews": _review_self,
    "selfsubjectaccessreviews": _review_self_access,
    "subjectaccessreviews": _review_access,
    "localsubjectaccessreviews": _review_local_access,
    "selfsubjectrulesreviews": _review_rules,
}
