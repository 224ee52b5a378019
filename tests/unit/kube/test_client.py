"""The client against a small scripted HTTP server: what goes over the wire, and how refusals and gaps are met."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiohttp import web

from fairlead.errors import Conflict, Refused, Unavailable
from fairlead.kube import KubeClient, Ref, TokenIdentity

HANG_UP = "hang up"
POD = Ref("v1", "Pod", "a", "default")


def pod(name: str, version: int, uid: str = "") -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "uid": uid or name, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}


def status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)


class Script:
    """Answers requests from a list, in order, and remembers them."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.headers: list[Any] = []
        self.idle = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, request.path, dict(request.query), orjson.loads(body) if body else None))
        self.headers.append(request.headers)
        if not self.answers:
            self.idle.set()
            await asyncio.sleep(60)
        answer = self.answers.pop(0)
        if answer == HANG_UP:
            assert request.transport is not None
            request.transport.close()
        if not isinstance(answer, list):
            return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)
        response = web.StreamResponse()
        await response.prepare(request)
        for event in answer:
            await response.write(orjson.dumps(event) + b"\n")
        return response


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
async def client(script: Script, tmp_path: Path) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "x", "user": {"token": "canary-token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    client = await KubeClient.connect(kubeconfig=path, user_agent="tests")
    yield client
    await client.aclose()
    await runner.cleanup()


async def test_get_sends_credentials_and_returns_the_object(client: KubeClient, script: Script) -> None:
    script.answers = [pod("a", 1)]
    assert await client.get(POD) == pod("a", 1)
    assert script.requests[0][:2] == ("GET", "/api/v1/namespaces/default/pods/a")
    assert script.headers[0]["Authorization"] == "Bearer canary-token"
    assert script.headers[0]["User-Agent"] == "tests"


async def test_missing_is_none_for_get_patch_and_delete(client: KubeClient, script: Script) -> None:
    script.answers = [status(404, "NotFound", "pods a not found") for _ in range(3)]
    assert await client.get(POD) is None
    assert await client.merge_patch(POD, {"metadata": {"labels": {"x": "y"}}}) is None
    await client.delete(POD, uid="u", grace_seconds=0)
    assert script.requests[2][3]["preconditions"] == {"uid": "u"}
    assert script.requests[2][3]["gracePeriodSeconds"] == 0


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        pytest.param(409, "AlreadyExists", Conflict, id="conflict"),
        pytest.param(403, "Forbidden", Refused, id="forbidden"),
        pytest.param(422, "Invalid", Refused, id="invalid"),
        pytest.param(404, "NotFound", Refused, id="namespace-missing"),
        pytest.param(429, "TooManyRequests", Unavailable, id="too-many"),
        pytest.param(503, "ServiceUnavailable", Unavailable, id="unavailable"),
    ],
)
async def test_create_refused(client: KubeClient, script: Script, *, code: int, reason: str, error: type) -> None:
    script.answers = [status(code, reason, "because of this", **{"Retry-After": "7"})]
    with pytest.raises(error, match="create Pod default/a: because of this") as caught:
        await client.create(pod("a", 1))
    assert type(caught.value) is error
    if error is Unavailable:
        assert caught.value.retry_after == 7
    else:
        assert caught.value.reason == reason


async def test_no_server_is_unavailable_and_leaks_no_token(client: KubeClient, script: Script) -> None:
    script.answers = [HANG_UP, HANG_UP]
    with pytest.raises(Unavailable) as caught:
        await client.get(POD)
    assert "canary" not in str(caught.value)


async def test_list_reads_all_pages_and_names_each_item(client: KubeClient, script: Script) -> None:
    bare = {key: value for key, value in pod("b", 2).items() if key == "metadata"}
    script.answers = [
        {"metadata": {"resourceVersion": "5", "continue": "t"}, "items": [pod("a", 1)]},
        {"metadata": {"resourceVersion": "5"}, "items": [bare]},
    ]
    items = await client.list("v1", "Pod", label_selector="x=y")
    assert items == [pod("a", 1), pod("b", 2)]
    assert script.requests[0][1] == "/api/v1/pods"
    assert script.requests[1][2]["continue"] == "t"


async def test_resource_is_discovered_once(client: KubeClient, script: Script) -> None:
    resources = [{"name": "things", "kind": "Thing", "namespaced": True}, {"name": "things/status", "kind": "Thing"}]
    thing = {"apiVersion": "x.y/v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "n"}}
    script.answers = [{"resources": resources}, thing, thing]
    ref = Ref("x.y/v1", "Thing", "t", "n")
    assert await client.get(ref) == thing == await client.get(ref)
    assert [path for _, path, _, _ in script.requests] == ["/apis/x.y/v1"] + ["/apis/x.y/v1/namespaces/n/things/t"] * 2


async def test_resource_unknown_is_refused(client: KubeClient, script: Script) -> None:
    script.answers = [status(404, "NotFound", "")]
    with pytest.raises(Refused, match="CustomResourceDefinition") as caught:
        await client.get(Ref("x.y/v1", "Thing", "t", "n"))
    assert caught.value.reason == "KindNotFound"


async def test_apply_and_subresources_use_their_own_paths(client: KubeClient, script: Script) -> None:
    script.answers = [pod("a", 1), pod("a", 1), {"status": {"token": "t"}}]
    await client.apply(pod("a", 1), manager="m", force=True, dry_run=True)
    await client.merge_patch(POD, {"status": {}}, subresource="status")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {"namespace": "default"}}
    await client.create(request, subresource="token", name="sa")
    assert script.requests[0][2] == {"fieldManager": "m", "force": "true", "dryRun": "All"}
    assert script.headers[0]["Content-Type"] == "application/apply-patch+yaml"
    assert script.requests[1][1].endswith("/pods/a/status")
    assert script.requests[2][1] == "/api/v1/namespaces/default/serviceaccounts/sa/token"


async def test_patch_with_the_uid_of_a_former_object_is_a_conflict(client: KubeClient, script: Script) -> None:
    cause = {"reason": "FieldValueInvalid", "field": "metadata.uid", "message": "field is immutable"}
    answers = [{"details": {"causes": [cause]}, "reason": "Invalid"}, {"reason": "Invalid", "details": {}}]
    script.answers = [web.json_response(answer, status=422) for answer in answers]
    with pytest.raises(Conflict):
        await client.merge_patch(POD, {"metadata": {"uid": "former"}})
    with pytest.raises(Refused):
        await client.merge_patch(POD, {"metadata": {"uid": "former"}})


async def test_write_status_changes_the_very_object(client: KubeClient, script: Script) -> None:
    known = {**pod("a", 1), "status": {"kept": 1, "changed": 2, "gone": 3}}
    script.answers = [pod("a", 2)]

    assert await client.write_status(known, {"changed": 4, "gone": None}) == pod("a", 2)

    method, path, _, body = script.requests[0]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/default/pods/a/status")
    assert script.headers[0]["Content-Type"] == "application/json-patch+json"
    assert body == [
        {"op": "test", "path": "/metadata/uid", "value": known["metadata"]["uid"]},
        {"op": "add", "path": "/status", "value": {"kept": 1, "changed": 4}},
    ]


async def test_write_status_of_an_object_whose_name_another_one_has(client: KubeClient, script: Script) -> None:
    another = pod("a", 9)
    another["metadata"]["uid"] = "another"
    script.answers = [status(422, "", "testing value /metadata/uid failed"), another]
    assert await client.write_status(pod("a", 1), {"x": 1}) is None

    script.answers = [status(422, "Invalid", "status.x: must be a string"), pod("a", 1)]
    with pytest.raises(Refused, match="must be a string"):
        await client.write_status(pod("a", 1), {"x": 1})


async def test_watch_tells_what_changed_during_a_gap(client: KubeClient, script: Script) -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
    script.answers = [
        {"metadata": {"resourceVersion": "5"}, "items": [pod("a", 1), pod("b", 2)]},
        [{"type": "BOOKMARK", "object": pod("", 6)}, {"type": "MODIFIED", "object": pod("a", 7)}, gone],
        {"metadata": {"resourceVersion": "9"}, "items": [pod("a", 7), pod("c", 8)]},
        [{"type": "DELETED", "object": pod("a", 10)}],
    ]
    seen = []
    async for kind, obj in client.watch("v1", "Pod", namespace="default"):
        seen.append((kind, obj["metadata"]["name"]))
        if len(seen) == 6:
            break
    assert seen == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("DELETED", "b"),
        ("ADDED", "c"),
        ("DELETED", "a"),
    ]
    assert script.requests[1][2]["resourceVersion"] == "5"


async def test_watch_goes_on_from_the_bookmark_when_the_server_closes(client: KubeClient, script: Script) -> None:
    script.answers = [
        {"metadata": {"resourceVersion": "5"}, "items": []},
        [{"type": "BOOKMARK", "object": pod("", 6)}],
        [{"type": "ADDED", "object": pod("a", 7)}],
    ]
    async for kind, obj in client.watch("v1", "Pod"):
        assert (kind, obj["metadata"]["name"]) == ("ADDED", "a")
        break
    assert [request[2].get("resourceVersion") for request in script.requests] == [None, "5", "6"]


async def test_watch_that_is_forbidden_ends(client: KubeClient, script: Script) -> None:
    script.answers = [status(403, "Forbidden", "no")]
    with pytest.raises(Refused, match="no"):
        await anext(aiter(client.watch("v1", "Pod")))


async def test_review_token_refuses_a_server_that_ignores_audiences(client: KubeClient, script: Script) -> None:
    user = {"username": "system:serviceaccount:ns:sa", "extra": {"authentication.kubernetes.io/pod-name": ["p"]}}
    script.answers = [
        {"status": {"authenticated": True, "user": user}},
        {"status": {"authenticated": True, "user": user, "audiences": ["x"]}},
        {"status": {"authenticated": False}},
    ]
    assert await client.review_token("t", audiences=["x"]) is None
    who = await client.review_token("t", audiences=["x"])
    assert who is not None
    assert (who.pod_name, who.service_account) == ("p", ("ns", "sa"))
    assert await client.review_token("t") is None


async def test_review_access_asks_with_the_whole_identity(client: KubeClient, script: Script) -> None:
    script.answers = [{"status": {"allowed": True}}, {"status": {"allowed": False}}]
    who = TokenIdentity("me", groups=("g",))
    assert await client.review_access(who, verb="get", group="fairlead.dev", resource="workflowruns", namespace="n")
    assert not await client.review_access(who, verb="get", group="", resource="secrets")
    spec = script.requests[0][3]["spec"]
    assert spec["groups"] == ["g"]
    assert spec["resourceAttributes"]["namespace"] == "n"
