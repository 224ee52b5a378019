"""Who may do what: tokens, roles, impersonation."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

Json = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
def account(api: Any, namespace: str) -> Callable[..., str]:
    """Make a service account with rules of its own, and return a token of it."""

    def make(name: str, *rules: Json) -> str:
        core, rbac = f"/api/v1/namespaces/{namespace}", f"{RBAC}/namespaces/{namespace}"
        api.post(f"{core}/serviceaccounts", {"metadata": {"name": name}})
        api.post(f"{rbac}/roles", {"metadata": {"name": name}, "rules": list(rules)})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        api.post(f"{rbac}/rolebindings", {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]})
        return str(api.post(f"{core}/serviceaccounts/{name}/token", {})["status"]["token"])

    return make


def rule(verbs: str, resources: str, *, group: str = "", **more: Any) -> Json:
    return {"verbs": verbs.split(), "resources": resources.split(), "apiGroups": [group], **more}


MATRIX = [
    # rule, method, path below the namespace, allowed
    (rule("get list", "configmaps"), "GET", "configmaps", True),
    (rule("get", "configmaps"), "GET", "configmaps", False),
    (rule("get", "configmaps"), "GET", "configmaps/kube-root-ca.crt", True),
    (rule("get", "configmaps", resourceNames=["kube-root-ca.crt"]), "GET", "configmaps/kube-root-ca.crt", True),
    (rule("get", "configmaps", resourceNames=["other"]), "GET", "configmaps/kube-root-ca.crt", False),
    (
        rule("list", "configmaps", resourceNames=["kube-root-ca.crt"]),
        "GET",
        "configmaps?fieldSelector=metadata.name%3Dkube-root-ca.crt",
        True,
    ),
    (rule("list", "configmaps", resourceNames=["kube-root-ca.crt"]), "GET", "configmaps", False),
    (rule("*", "*"), "GET", "secrets", True),
    (rule("*", "*", group="apps"), "GET", "secrets", False),
    (rule("get", "pods"), "GET", "pods/p/log", False),
    (rule("get", "pods/log"), "GET", "pods/p/log", True),
    (rule("get", "*/log"), "GET", "pods/p/log", True),
    (rule("delete", "configmaps"), "DELETE", "configmaps", False),
    (rule("deletecollection", "configmaps"), "DELETE", "configmaps?labelSelector=none%3Dthere", True),
    (rule("create", "serviceaccounts"), "POST", "serviceaccounts/default/token", False),
    (rule("create", "serviceaccounts/token"), "POST", "serviceaccounts/default/token", True),
]


@pytest.fixture
def bot_with(api: Any, namespace: str, account: Callable[..., str], eventually: Callable[..., Any]) -> Any:
    """A client with one rule, and one more by which it knows that its rules have arrived."""

    def make(given: Json) -> Any:
        bot = api.acting(token=account("bot", given, rule("get", "services")))
        eventually(lambda: bot.get(f"/api/v1/namespaces/{namespace}/services/none").status == 404)
        return bot

    return make


@pytest.mark.parametrize(("given", "method", "path", "allowed"), MATRIX)
def test_rules_allow_what_they_say_and_nothing_else(
    bot_with: Callable[..., Any], namespace: str, given: Json, method: str, *, path: str, allowed: bool
) -> None:
    bot, core = bot_with(given), f"/api/v1/namespaces/{namespace}"
    answer = bot.send(method, f"{core}/{path}", {} if method == "POST" else None)
    assert (answer.status == 403) is not allowed
    if not allowed:
        assert f'User "system:serviceaccount:{namespace}:bot" cannot ' in answer["message"]


def test_roles_end_at_their_namespace(api: Any, account: Callable[..., str]) -> None:
    bot = api.acting(token=account("bot", rule("*", "*")))
    assert bot.get("/api/v1/namespaces/default/configmaps").status == 403
    refused = bot.get("/api/v1/nodes")
    assert refused["message"].endswith('cannot list resource "nodes" in API group "" at the cluster scope')
    assert refused["details"] == {"kind": "nodes"}


def test_nobody_grants_what_they_do_not_have(api: Any, namespace: str, account: Callable[..., str]) -> None:
    group = "rbac.authorization.k8s.io"
    rules = (rule("get", "configmaps"), rule("create", "roles rolebindings", group=group))
    bot = api.acting(token=account("bot", *rules))
    path = f"{RBAC}/namespaces/{namespace}"
    fine = bot.post(f"{path}/roles", {"metadata": {"name": "fine"}, "rules": [rule("get", "configmaps")]})
    assert fine.status == 201
    more = bot.post(f"{path}/roles", {"metadata": {"name": "more"}, "rules": [rule("get list", "configmaps")]})
    assert more.status == 403
    assert 'is attempting to grant RBAC permissions not currently held:\n{APIGroups:[""]' in more["message"]
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", "name": "bot", "namespace": namespace}
    binding = {"metadata": {"name": "all"}, "roleRef": reference, "subjects": [subject]}
    assert bot.post(f"{path}/rolebindings", binding).status == 403
    bound = api.post(f"{path}/rolebindings", binding).body
    moved = {**bound, "roleRef": {**reference, "name": "view"}}
    assert "cannot change roleRef" in api.put(f"{path}/rolebindings/all", moved)["message"]


def test_aggregated_roles_take_in_what_is_labelled(api: Any, namespace: str, eventually: Callable[..., Any]) -> None:
    name = f"watch-{namespace}"
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    added = rule("get", "thingies", group=f"{namespace}.example.com")
    api.post(f"{RBAC}/clusterroles", {"metadata": {"name": name, "labels": labels}, "rules": [added]})
    for role in ("view", "edit", "admin"):
        eventually(lambda role=role: added in api.get(f"{RBAC}/clusterroles/{role}")["rules"])
    api.delete(f"{RBAC}/clusterroles/{name}")
    eventually(lambda: added not in api.get(f"{RBAC}/clusterroles/admin")["rules"])


def test_impersonation_needs_the_right_and_takes_it_over(api: Any, namespace: str, account: Callable[..., str]) -> None:
    bot = account("bot", rule("get", "configmaps"))
    path = f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt"
    someone = f"system:serviceaccount:{namespace}:bot"
    assert api.get(path, Impersonate_User=someone).status == 200
    assert api.get(path, Impersonate_User="stranger").status == 403
    assert api.acting(token=bot).get(path, Impersonate_User="stranger").status == 403
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    seen = api.post(review, {}, Impersonate_User="jo", Impersonate_Group="ops")["status"]["userInfo"]
    assert (seen["username"], set(seen["groups"])) == ("jo", {"ops", "system:authenticated"})
    assert api.get(path, Impersonate_Group="ops").status in {400, 500}


def test_tokens_that_are_none_are_refused_and_none_is_anonymous(api: Any) -> None:
    assert api.acting(token="nonsense").get("/api/v1/namespaces").status == 401
    nobody = api.acting(token="")
    refused = nobody.get("/api/v1/namespaces")
    assert refused.status in {401, 403}
    if refused.status == 403:
        assert 'User "system:anonymous" cannot list' in refused["message"]
    assert nobody.get("/livez").status == 200


def claims_of(token: str) -> Json:
    body = token.split(".")[1]
    claims: Json = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


@pytest.fixture
def pod(api: Any, namespace: str) -> Json:
    spec = {"containers": [{"name": "main", "image": "registry.example.com/none:1"}]}
    made: Json = api.post(f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "p"}, "spec": spec}).body
    return made


def test_token_bound_to_a_pod_dies_with_it(api: Any, namespace: str, pod: Json) -> None:
    core = f"/api/v1/namespaces/{namespace}"
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}
    spec = {"audiences": ["fairlead-gateway"], "boundObjectRef": reference, "expirationSeconds": 3600}
    answer = api.post(f"{core}/serviceaccounts/default/token", {"spec": spec})
    token = answer["status"]["token"]
    claims = claims_of(token)
    assert claims["aud"] == ["fairlead-gateway"]
    assert claims["sub"] == f"system:serviceaccount:{namespace}:default"
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["kubernetes.io"]["pod"] == {"name": "p", "uid": pod["metadata"]["uid"]}
    review = {"spec": {"token": token, "audiences": ["fairlead-gateway", "others"]}}
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
    status = api.post(reviews, review)["status"]
    assert (status["authenticated"], status["audiences"]) == (True, ["fairlead-gateway"])
    extra = status["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]
    assert extra["authentication.kubernetes.io/pod-name"] == ["p"]
    assert not api.post(reviews, {"spec": {"token": token}})["status"].get("authenticated")
    assert api.acting(token=token).get(core).status == 401
    api.delete(f"{core}/pods/p", {"gracePeriodSeconds": 0})
    assert not api.post(reviews, review)["status"].get("authenticated")


@pytest.mark.parametrize(
    ("spec", "status", "text"),
    [
        pytest.param({"expirationSeconds": 5}, 422, "less than 10 minutes", id="too-short"),
        pytest.param(
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}, 404, "not found", id="no-pod"
        ),
        pytest.param(
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "x"}}, 409, "UID", id="other-uid"
        ),
        pytest.param({"boundObjectRef": {"kind": "Lease", "apiVersion": "v1", "name": "p"}}, 400, "", id="other-kind"),
    ],
)
def test_token_requests_that_make_no_sense(
    api: Any, namespace: str, pod: Json, spec: Json, *, status: int, text: str
) -> None:
    answer = api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", {"spec": spec})
    assert answer.status == status
    assert text in answer["message"]
    assert pod["status"]["phase"] == "Pending"


def test_token_dies_with_its_account(api: Any, namespace: str, account: Callable[..., str]) -> None:
    token = account("bot")
    reviews, review = "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}}
    assert api.post(reviews, review)["status"]["authenticated"]
    api.delete(f"/api/v1/namespaces/{namespace}/serviceaccounts/bot")
    assert not api.post(reviews, review)["status"].get("authenticated")


def test_access_reviews_answer_for_others_and_oneself(api: Any, namespace: str, account: Callable[..., str]) -> None:
    token = account("bot", rule("get", "configmaps"))
    asked = {"namespace": namespace, "verb": "get", "resource": "configmaps"}
    user = f"system:serviceaccount:{namespace}:bot"
    reviews = "/apis/authorization.k8s.io/v1"
    review = {"spec": {"user": user, "resourceAttributes": asked}}
    assert api.post(f"{reviews}/subjectaccessreviews", review)["status"]["allowed"] is True
    review["spec"]["resourceAttributes"] = {**asked, "verb": "list"}
    assert api.post(f"{reviews}/subjectaccessreviews", review)["status"]["allowed"] is False
    bot = api.acting(token=token)
    mine = {"spec": {"resourceAttributes": asked}}
    assert bot.post(f"{reviews}/selfsubjectaccessreviews", mine)["status"]["allowed"] is True
    rules = bot.post(f"{reviews}/selfsubjectrulesreviews", {"spec": {"namespace": namespace}})["status"]
    assert {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]} in rules["resourceRules"]
    assert bot.post(f"{reviews}/subjectaccessreviews", review).status == 403
    assert api.post(f"{reviews}/subjectaccessreviews", {"spec": {"user": "x"}}).status in {400, 422}


@pytest.mark.process_runtime
def test_node_does_what_a_kubelet_needs_and_no_more(api: Any, namespace: str, cluster: Any, pod: Json) -> None:
    node, core = api.acting(token=cluster.node_token), f"/api/v1/namespaces/{namespace}"
    assert node.post("/api/v1/nodes", {"metadata": {"name": f"n-{namespace}"}}).status == 201
    binding = {"target": {"kind": "Node", "name": f"n-{namespace}"}, "metadata": {"name": "p"}}
    assert node.post(f"{core}/pods/p/binding", binding).status == 201
    assert node.post(f"{core}/pods/p/binding", binding).status == 409
    running = {"status": {"phase": "Running"}}
    assert node.merge(f"{core}/pods/p/status", running)["spec"]["nodeName"] == f"n-{namespace}"
    assert node.get(f"{core}/configmaps").status == 200
    assert node.post(f"{core}/configmaps", {"metadata": {"name": "x"}}).status == 403
    deleted = api.delete(f"{core}/pods/p")
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 30
    assert api.get(f"{core}/pods/p").status == 200
    assert node.delete(f"{core}/pods/p", {"gracePeriodSeconds": 0}).status == 200
    assert api.get(f"{core}/pods/p").status == 404
    assert pod["spec"]["serviceAccountName"] == "default"
    api.delete(f"/api/v1/nodes/n-{namespace}")
