"""The application without a socket, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.controllers import Controllers
from fairlead.localcluster.apiserver.negotiation import Form
from fairlead.localcluster.apiserver.output import Style
from fairlead.localcluster.apiserver.selectors import Selection
from fairlead.localcluster.apiserver.watch import WatchRequest, watch
from fairlead.testing.clock import FakeClock

CORE = "/api/v1/namespaces/default"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"


async def test_token_ends_with_its_time(call: Any, clock: FakeClock) -> None:
    _, made = await call("POST", f"{CORE}/serviceaccounts/default/token", {"spec": {"expirationSeconds": 600}})
    token = made["status"]["token"]
    assert (await call("GET", "/api", token=token))[0] == 200
    clock.advance(601)
    assert (await call("GET", "/api", token=token))[0] == 401
    _, review = await call("POST", REVIEWS, {"spec": {"token": token}})
    assert review["status"]["error"].endswith("service account token has expired")


async def test_pod_token_outlives_the_deletion_mark_only_shortly(call: Any, clock: FakeClock) -> None:
    containers = [{"name": "c", "image": "x"}]
    pod = {"metadata": {"name": "p", "finalizers": ["example.com/x"]}, "spec": {"containers": containers}}
    await call("POST", f"{CORE}/pods", pod)
    spec = {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}}
    _, made = await call("POST", f"{CORE}/serviceaccounts/default/token", {"spec": spec})
    review = {"spec": {"token": made["status"]["token"]}}
    await call("DELETE", f"{CORE}/pods/p")
    assert (await call("POST", REVIEWS, review))[1]["status"]["authenticated"]
    clock.advance(61)
    assert not (await call("POST", REVIEWS, review))[1]["status"]["authenticated"]


async def test_events_are_forgotten_after_an_hour(call: Any, cluster: Cluster, clock: FakeClock) -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "reason": "X"}
    await call("POST", f"{CORE}/events", event)
    controllers = Controllers(cluster)
    clock.advance(3500)
    controllers.sweep_events()
    assert (await call("GET", f"{CORE}/events/e"))[0] == 200
    clock.advance(200)
    controllers.sweep_events()
    assert (await call("GET", f"{CORE}/events/e"))[0] == 404


async def test_service_account_secret_gets_a_lasting_token(call: Any, clock: FakeClock) -> None:
    annotations = {"kubernetes.io/service-account.name": "default"}
    secret = {"metadata": {"name": "s", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
    await call("POST", f"{CORE}/secrets", secret)
    _, filled = await call("GET", f"{CORE}/secrets/s")
    assert set(filled["data"]) == {"ca.crt", "namespace", "token"}
    clock.advance(timedelta(days=400).total_seconds())
    token = base64.b64decode(filled["data"]["token"]).decode()
    assert (await call("POST", REVIEWS, {"spec": {"token": token}}))[1]["status"]["authenticated"]
    await call("DELETE", f"{CORE}/secrets/s")
    assert not (await call("POST", REVIEWS, {"spec": {"token": token}}))[1]["status"]["authenticated"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"conversion": {"strategy": "Webhook"}}, "calls no webhooks", id="webhook"),
        pytest.param({"group": "apps"}, "served by the API server itself", id="builtin-group"),
    ],
)
async def test_definitions_that_cannot_be_kept_are_refused(call: Any, change: dict[str, Any], text: str) -> None:
    spec = {**definition("things", "Thing")["spec"], **change}
    name = f"things.{spec['group']}"
    code, answer = await call("POST", CRDS, {"metadata": {"name": name}, "spec": spec})
    assert (code, text in answer["message"]) == (422, True)


def definition(plural: str, kind: str, **names: Any) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    versions.append({"name": "v1beta1", "served": True, "storage": False, "schema": schema, "deprecated": True})
    names = {"plural": plural, "kind": kind, **names}
    return {
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": versions},
    }


async def test_definition_with_a_name_that_is_taken_is_not_served(call: Any) -> None:
    await call("POST", CRDS, definition("things", "Thing", shortNames=["th"]))
    _, second = await call("POST", CRDS, definition("others", "Other", shortNames=["th"]))
    conditions = {each["type"]: (each["status"], each["reason"]) for each in second["status"]["conditions"]}
    assert conditions == {"NamesAccepted": ("False", "NameConflict"), "Established": ("False", "NotAccepted")}
    assert (await call("GET", "/apis/example.com/v1/others"))[0] == 404
    await call("DELETE", f"{CRDS}/things.example.com")
    assert (await call("GET", "/apis/example.com/v1/others"))[0] == 200


async def test_every_served_version_shows_the_object(call: Any) -> None:
    await call("POST", CRDS, definition("things", "Thing"))
    thing = {"apiVersion": "example.com/v1beta1", "kind": "Thing", "metadata": {"name": "a"}, "x": 1}
    assert (await call("POST", "/apis/example.com/v1beta1/things", thing))[0] == 201
    _, seen = await call("GET", "/apis/example.com/v1/things/a")
    assert (seen["apiVersion"], seen["x"], seen["metadata"]["generation"]) == ("example.com/v1", 1, 1)
    _, listed = await call("GET", "/apis/example.com/v1/things")
    assert listed["items"][0]["apiVersion"] == "example.com/v1"


async def test_apply_to_status_owns_the_status_only(call: Any) -> None:
    apps = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await call("POST", apps, {"metadata": {"name": "d"}, "spec": spec})
    applied = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "status": {"replicas": 3}}
    path = f"{apps}/d/status?fieldManager=me"
    code, after = await call("PATCH", path, applied, kind="application/apply-patch+yaml")
    assert (code, after["status"]["replicas"], after["metadata"]["generation"]) == (200, 3, 1)
    mine = [each for each in after["metadata"]["managedFields"] if each["manager"] == "me"]
    assert [(each["subresource"], set(each["fieldsV1"])) for each in mine] == [("status", {"f:status"})]
    missing = f"{apps}/none/status?fieldManager=me"
    applied["metadata"] = {"name": "none"}
    assert (await call("PATCH", missing, applied, kind="application/apply-patch+yaml"))[0] == 404


async def test_a_slow_watcher_is_told_to_start_again(call: Any, cluster: Cluster) -> None:
    resource = cluster.registry.find("", "v1", "configmaps")
    assert resource is not None
    style = Style(resource=resource, form=Form())
    request = WatchRequest(
        namespace="default",
        selection=Selection(),
        style=style,
        revision=cluster.store.durable,
        bookmarks=False,
        initial_events=False,
        timeout=1000,
    )
    stream = await watch(cluster, request)
    await call("POST", f"{CORE}/configmaps", {"metadata": {"name": "a"}})
    assert b'"ADDED"' in await anext(stream)
    table = cluster.store.table(("", "configmaps"))
    stored = table.rows["default", "a"]
    while table.floor <= stored.rv:
        cluster.store.put(("", "configmaps"), {**stored.obj, "metadata": dict(stored.obj["metadata"])})
    await cluster.store.settled()
    last = [event async for event in stream]
    assert len(last) == 1
    assert b'"type":"ERROR"' in last[0]
    assert b'"code":410' in last[0]


async def test_a_watch_of_a_table_goes_on_counting_ages(call: Any, cluster: Cluster, clock: FakeClock) -> None:
    resource = cluster.registry.find("", "v1", "configmaps")
    assert resource is not None
    request = WatchRequest(
        namespace="default",
        selection=Selection(),
        style=Style(resource=resource, form=Form("Table"), now=cluster.now()),
        revision=cluster.store.durable,
        bookmarks=False,
        initial_events=False,
        timeout=1000,
    )
    stream = await watch(cluster, request)
    await call("POST", f"{CORE}/configmaps", {"metadata": {"name": "a"}})
    first = json.loads(await anext(stream))
    clock.advance(90)
    await call("PATCH", f"{CORE}/configmaps/a", {"data": {"k": "v"}}, kind=MERGE)
    ages = [event["object"]["rows"][0]["cells"][-1] for event in (first, json.loads(await anext(stream)))]
    assert ages == ["0s", "90s"]


async def test_a_watch_ends_with_its_definition(call: Any, cluster: Cluster) -> None:
    await call("POST", CRDS, definition("things", "Thing"))
    resource = cluster.registry.find("example.com", "v1", "things")
    assert resource is not None
    request = WatchRequest(
        namespace="",
        selection=Selection(),
        style=Style(resource=resource, form=Form()),
        revision=None,
        bookmarks=False,
        initial_events=False,
        timeout=1000,
    )
    stream = await watch(cluster, request)
    following = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    await call("DELETE", f"{CRDS}/things.example.com")
    assert await asyncio.wait_for(following, 20) is None


async def test_a_bug_answers_500_and_says_nothing_of_itself(call: Any, cluster: Cluster) -> None:
    cluster.registry._resources["", "v1", "configmaps"] = "not a resource"  # type: ignore[assignment]
    with capture_logs() as logs:
        code, answer = await call("GET", f"{CORE}/configmaps/x")
    assert (code, answer["reason"]) == (500, "InternalError")
    assert [(each["event"], each["path"]) for each in logs] == [("request failed", f"{CORE}/configmaps/x")]
    assert "Error" not in answer["message"].replace("Internal error", "")


async def test_pods_get_their_defaults_and_keep_their_spec(call: Any) -> None:
    spec = {"containers": [{"name": "c", "image": "x:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}
    _, pod = await call(
        "POST", f"{CORE}/pods", {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": "Running"}}
    )
    assert (pod["status"]["phase"], pod["status"]["qosClass"]) == ("Pending", "Guaranteed")
    assert (pod["spec"]["serviceAccountName"], pod["spec"]["containers"][0]["imagePullPolicy"]) == (
        "default",
        "IfNotPresent",
    )
    code, refused = await call("PATCH", f"{CORE}/pods/p", {"spec": {"hostname": "h"}}, kind=MERGE)
    assert (code, "pod updates may not change fields other than" in refused["message"]) == (422, True)
    assert (await call("DELETE", f"{CORE}/pods/p"))[1]["metadata"]["name"] == "p"
    assert (await call("GET", f"{CORE}/pods/p"))[0] == 404
    spec["serviceAccountName"] = "nobody"
    code, refused = await call("POST", f"{CORE}/pods", {"metadata": {"name": "q"}, "spec": spec})
    assert (code, 'serviceaccount "nobody" not found' in refused["message"]) == (403, True)
