"""The API as Kubernetes documents it, request by request."""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

Make = Callable[..., Any]


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


@pytest.fixture
def mine(widgets: str, namespace: str) -> str:
    return f"{widgets}/namespaces/{namespace}/widgets"


def names(answer: Any) -> list[str]:
    return [item["metadata"]["name"] for item in answer["items"]]


def conditions(answer: Any) -> set[str]:
    return {f"{each['type']}={each['status']}" for each in answer.body.get("status", {}).get("conditions", [])}


def test_create_fills_in_what_the_server_gives(api: Any, mine: str, widget: Make) -> None:
    body = widget("a")
    body["metadata"] |= {
        "uid": "x",
        "generation": 9,
        "creationTimestamp": None,
        "deletionTimestamp": "2020-01-01T00:00:00Z",
    }
    body["status"] = {"phase": "no"}
    created = api.post(mine, body)
    metadata = created["metadata"]
    assert created.status == 201
    assert (metadata["generation"], len(metadata["uid"]), created["spec"]) == (1, 36, {"size": 1, "color": "red"})
    assert "deletionTimestamp" not in metadata
    assert "status" not in created.body
    assert metadata["managedFields"][0]["operation"] == "Update"


def test_create_twice_is_a_conflict(api: Any, maps: str, configmap: Make) -> None:
    api.post(maps, configmap("a"))
    answer = api.post(maps, configmap("a"))
    assert (answer.status, answer["reason"], answer["message"]) == (
        409,
        "AlreadyExists",
        'configmaps "a" already exists',
    )
    assert answer["details"] == {"name": "a", "kind": "configmaps"}


def test_create_generates_a_name(api: Any, maps: str) -> None:
    answer = api.post(maps, {"metadata": {"generateName": "run-"}})
    assert answer["metadata"]["name"].startswith("run-")
    assert len(answer["metadata"]["name"]) == len("run-") + 5


@pytest.mark.parametrize(
    ("body", "status", "reason", "text"),
    [
        pytest.param({"metadata": {"name": "A_B"}}, 422, "Invalid", "a lowercase RFC 1123 subdomain", id="name"),
        pytest.param({"metadata": {}}, 422, "Invalid", "name or generateName is required", id="no-name"),
        pytest.param(
            {"metadata": {"name": "a", "labels": {"x": "-"}}}, 422, "Invalid", "a valid label must", id="label"
        ),
        pytest.param(
            {"metadata": {"name": "a", "annotations": {"x": "y" * 262_145}}},
            422,
            "Invalid",
            "may not be more than 262144 bytes",
            id="annotations",
        ),
        pytest.param(
            {"metadata": {"name": "a", "namespace": "other"}}, 400, "BadRequest", "does not match", id="namespace"
        ),
        pytest.param({"kind": "Pod", "metadata": {"name": "a"}}, 400, "BadRequest", "does not match", id="kind"),
        pytest.param(
            {"metadata": {"name": "a", "resourceVersion": "1"}}, 400, "BadRequest", "should not be set", id="rv"
        ),
        pytest.param(b"{", 400, "BadRequest", "must be of type JSON", id="broken"),
        pytest.param([], 400, "BadRequest", "must be a ConfigMap", id="a-list"),
    ],
)
def test_create_refuses_what_is_wrong(api: Any, maps: str, body: Any, status: int, reason: str, text: str) -> None:
    answer = api.post(maps, body)
    assert (answer.status, answer["kind"], answer["reason"]) == (status, "Status", reason)
    assert text in answer["message"]


def test_create_refuses_bodies_and_objects_that_are_too_large(api: Any, maps: str, configmap: Make) -> None:
    assert api.post(maps, configmap("a", x="y" * 3_200_000)).status == 413
    answer = api.post(maps, configmap("a", x="y" * 1_600_000))
    assert (answer.status, "too large" in answer["message"].lower() or "too long" in answer["message"].lower()) != (
        201,
        False,
    )
    assert answer.status >= 400
    assert any(words in answer["message"].lower() for words in ("too large", "too long"))


def test_create_in_a_namespace_that_is_not_there(api: Any, configmap: Make) -> None:
    answer = api.post("/api/v1/namespaces/nowhere/configmaps", configmap("a"))
    assert (answer.status, answer["message"]) == (404, 'namespaces "nowhere" not found')


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothings", 404),
        ("GET", "/apis/none.example/v1", 404),
        ("POST", "/api/v1/namespaces/default/configmaps/x", 405),
        ("PUT", "/api/v1/namespaces/default/configmaps", 405),
        ("GET", "/apis/authentication.k8s.io/v1/tokenreviews", 405),
    ],
)
def test_wrong_places_are_refused(api: Any, method: str, path: str, status: int) -> None:
    assert api.send(method, path, {} if method != "GET" else None).status == status


def test_formats_nobody_speaks_are_refused(api: Any, maps: str) -> None:
    assert api.get(maps, Accept="text/html").status == 406
    assert api.send("POST", maps, b"a=b", content="application/x-www-form-urlencoded").status == 415
    assert api.send("PATCH", f"{maps}/kube-root-ca.crt", {}, content="application/json").status == 415


def test_update_needs_the_current_version(api: Any, mine: str, widget: Make) -> None:
    created = api.post(mine, widget("a")).body
    changed = api.put(f"{mine}/a", {**created, "spec": {"size": 2}})
    assert (changed.status, changed["metadata"]["generation"]) == (200, 2)
    stale = api.put(f"{mine}/a", {**created, "spec": {"size": 3}})
    assert (stale.status, stale["reason"]) == (409, "Conflict")
    assert "the object has been modified; please apply your changes" in stale["message"]
    created["metadata"].pop("resourceVersion")
    assert api.put(f"{mine}/a", created).status == 422


def test_update_that_changes_nothing_writes_nothing(api: Any, mine: str, widget: Make) -> None:
    created = api.post(mine, widget("a")).body
    assert api.put(f"{mine}/a", created)["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    assert api.merge(f"{mine}/a", {"spec": {"size": 1}})["metadata"] == created["metadata"]


def test_status_and_spec_are_written_apart(api: Any, mine: str, widget: Make) -> None:
    api.post(mine, widget("a"))
    status = api.merge(
        f"{mine}/a/status", {"spec": {"size": 9}, "status": {"phase": "On"}, "metadata": {"labels": {"x": "y"}}}
    )
    assert (status["spec"]["size"], status["status"], status["metadata"]["generation"]) == (1, {"phase": "On"}, 1)
    assert "labels" not in status["metadata"]
    spec = api.merge(f"{mine}/a", {"spec": {"size": 9}, "status": {"phase": "Off"}})
    assert (spec["spec"]["size"], spec["status"], spec["metadata"]["generation"]) == (9, {"phase": "On"}, 2)


def test_json_patch_tests_the_version_with_422(api: Any, mine: str, widget: Make) -> None:
    version = api.post(mine, widget("a"))["metadata"]["resourceVersion"]
    change = {"op": "replace", "path": "/spec/size", "value": 4}
    stale = {"op": "test", "path": "/metadata/resourceVersion", "value": "1"}
    assert api.json_patch(f"{mine}/a", [stale, change]).status == 422
    fresh = {**stale, "value": version}
    assert api.json_patch(f"{mine}/a", [fresh, change])["spec"]["size"] == 4
    assert api.json_patch(f"{mine}/a/status", [{"op": "add", "path": "/status", "value": {"phase": "x"}}]).status == 200
    assert api.json_patch(f"{mine}/a", [{"op": "replace", "path": "", "value": []}]).status in {400, 422}


def test_strategic_merge_patch_merges_lists_by_key(api: Any, namespace: str, mine: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "one", "image": "x"}]}}
    body = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    assert api.post(path, body).status == 201
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "two", "image": "y"}]}}}}
    kind = "application/strategic-merge-patch+json"
    answer = api.send("PATCH", f"{path}/d", patch, content=kind)
    assert {each["name"] for each in answer["spec"]["template"]["spec"]["containers"]} == {"one", "two"}
    assert api.send("PATCH", f"{mine}/a", {}, content=kind).status in {404, 415}


def test_apply_creates_owns_and_removes_what_it_no_longer_says(api: Any, mine: str, widget: Make) -> None:
    created = api.apply(f"{mine}/a", widget("a", parts=[{"name": "x", "weight": 1}]), manager="one")
    assert created.status == 201
    api.apply(f"{mine}/a", widget("a", parts=[{"name": "y"}]), manager="two", force=True)
    assert [part["name"] for part in api.get(f"{mine}/a")["spec"]["parts"]] == ["x", "y"]
    without = api.apply(f"{mine}/a", widget("a"), manager="one")
    assert [part["name"] for part in without["spec"]["parts"]] == ["y"]
    conflict = api.apply(f"{mine}/a", widget("a", size=2), manager="one")
    assert (conflict.status, conflict["details"]["causes"][0]["field"]) == (409, ".spec.size")
    assert api.apply(f"{mine}/b", widget("b"), manager="").status == 422


def test_apply_reads_yaml_and_refuses_an_alias_bomb(api: Any, mine: str) -> None:
    head = b"apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\n"
    assert api.apply(f"{mine}/a", head + b"spec:\n  size: 3\n")["spec"]["size"] == 3
    levels = b"".join(b"l%d: &l%d [%s]\n" % (n, n, b",".join([b"*l%d" % (n - 1)] * 9)) for n in range(1, 9))
    bomb = api.apply(f"{mine}/a", head + b"l0: &l0 [x,x]\n" + levels)
    assert (bomb.status, bomb["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize("mode", ["Ignore", "Warn", "Strict"])
def test_field_validation_ignores_warns_or_refuses(api: Any, mine: str, widget: Make, mode: str) -> None:
    answer = api.post(f"{mine}?fieldValidation={mode}", widget("a", colour="red"))
    if mode == "Strict":
        assert (answer.status, answer["reason"]) == (400, "BadRequest")
        assert 'strict decoding error: unknown field "spec.colour"' in answer["message"]
    else:
        assert (answer.status, "colour" in answer["spec"]) == (201, False)
        assert ("unknown field" in answer.headers.get("warning", "")) is (mode == "Warn")


def test_validation_names_every_field_that_is_wrong(api: Any, mine: str, widget: Make) -> None:
    answer = api.post(mine, widget("a", size="big", color=3))
    assert (answer.status, answer["reason"]) == (422, "Invalid")
    assert {cause["field"] for cause in answer["details"]["causes"]} >= {"spec.size", "spec.color"}
    api.post(mine, widget("b", size=5))
    assert "a widget does not shrink" in api.merge(f"{mine}/b", {"spec": {"size": 4}})["message"]


def test_dry_run_checks_and_writes_nothing(api: Any, mine: str, widget: Make) -> None:
    assert api.post(f"{mine}?dryRun=All", widget("a"))["spec"]["color"] == "red"
    assert api.get(f"{mine}/a").status == 404
    before = api.post(mine, widget("a")).body
    assert api.merge(f"{mine}/a?dryRun=All", {"spec": {"size": 7}})["spec"]["size"] == 7
    assert api.delete(f"{mine}/a?dryRun=All").status == 200
    assert api.get(f"{mine}/a").body == before
    assert api.post(f"{mine}?dryRun=Some", widget("c")).status in {400, 422}


def test_finalizers_keep_an_object_until_they_are_gone(api: Any, mine: str, widget: Make) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/x"]
    api.post(mine, body)
    marked = api.delete(f"{mine}/a")
    assert marked["metadata"]["deletionTimestamp"]
    assert (marked["metadata"]["deletionGracePeriodSeconds"], marked["metadata"]["generation"]) == (0, 2)
    added = api.merge(f"{mine}/a", {"metadata": {"finalizers": ["example.com/x", "example.com/y"]}})
    assert (added.status, "no new finalizers can be added" in added["message"]) == (422, True)
    assert api.merge(f"{mine}/a", {"metadata": {"finalizers": None}}).status == 200
    assert api.get(f"{mine}/a").status == 404


def test_delete_checks_its_preconditions(api: Any, maps: str, configmap: Make) -> None:
    created = api.post(maps, configmap("a"))["metadata"]
    assert api.delete(f"{maps}/a", {"preconditions": {"uid": "other"}}).status == 409
    assert api.delete(f"{maps}/a", {"preconditions": {"resourceVersion": "1"}}).status == 409
    done = api.delete(f"{maps}/a", {"preconditions": {"uid": created["uid"]}})
    assert (done["status"], done["details"]["uid"]) == ("Success", created["uid"])
    assert api.delete(f"{maps}/a").status == 404


def test_a_uid_in_a_write_is_a_precondition_for_put_and_a_field_for_patch(
    api: Any, mine: str, maps: str, widget: Make, configmap: Make
) -> None:
    made = api.post(maps, configmap("a")).body
    other = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}
    put = api.put(f"{maps}/a", {**made, "metadata": {**made["metadata"], **other["metadata"]}})
    assert (put.status, "UID in precondition" in put["message"]) == (409, True)
    patched = api.merge(f"{maps}/a", {**other, "data": {"x": "y"}})
    assert (patched.status, patched["details"]["causes"][0]["field"]) == (422, "metadata.uid")
    api.post(mine, widget("a"))
    status = api.merge(f"{mine}/a/status", {**other, "status": {"ready": True}})
    assert status.status == 200, "of a custom kind's metadata the endpoint takes nothing over"


def test_delete_collection_deletes_what_is_selected(api: Any, maps: str, configmap: Make) -> None:
    for name, team in (("a", "red"), ("b", "red"), ("c", "blue")):
        body = configmap(name)
        body["metadata"]["labels"] = {"team": team}
        api.post(maps, body)
    assert api.delete(f"{maps}?labelSelector=team%3Dred").status == 200
    assert names(api.get(f"{maps}?labelSelector=team")) == ["c"]


def test_list_pages_are_of_one_moment(api: Any, maps: str, configmap: Make) -> None:
    for number in range(5):
        api.post(maps, configmap(f"m{number}"))
    first = api.get(f"{maps}?limit=2&labelSelector=")
    token = first["metadata"]["continue"]
    assert (len(names(first)), first["metadata"]["remainingItemCount"]) == (2, 4)
    api.delete(f"{maps}/m4")
    api.post(maps, configmap("m9"))
    api.merge(f"{maps}/m3", {"data": {"new": "value"}})
    rest = api.get(f"{maps}?limit=9&continue={token}")
    assert names(first) + names(rest) == ["kube-root-ca.crt", "m0", "m1", "m2", "m3", "m4"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in rest["metadata"]
    assert all("new" not in item.get("data", {}) for item in rest["items"])
    assert api.get(f"{maps}?limit=1&continue=nonsense").status == 400


def test_list_of_an_exact_moment(api: Any, maps: str, configmap: Make) -> None:
    version = api.post(maps, configmap("a"))["metadata"]["resourceVersion"]
    api.post(maps, configmap("b"))
    exact = api.get(f"{maps}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert names(exact) == ["a", "kube-root-ca.crt"]
    assert api.get(f"{maps}?resourceVersion=999999999").status == 504
    assert api.get(f"{maps}?resourceVersionMatch=Exact").status in {400, 422}


def test_selectors_choose(api: Any, mine: str, maps: str, widget: Make) -> None:
    for name, color in (("a", "red"), ("b", "blue")):
        body = widget(name, color=color)
        body["metadata"]["labels"] = {"color": color, "tier": "1"}
        api.post(mine, body)
    expected = {
        "labelSelector=color%3Dred": ["a"],
        "labelSelector=color!%3Dred": ["b"],
        "labelSelector=color+in+(red,blue),tier": ["a", "b"],
        "labelSelector=!color": [],
        "labelSelector=color+notin+(red)": ["b"],
        "fieldSelector=metadata.name%3Da": ["a"],
        "fieldSelector=spec.color%3Dblue": ["b"],
        "fieldSelector=spec.color!%3Dblue,metadata.name!%3Db": ["a"],
    }
    assert {query: names(api.get(f"{mine}?{query}")) for query in expected} == expected
    assert api.get(f"{mine}?fieldSelector=spec.size%3D1").status == 400
    assert "is not a known field selector" in api.get(f"{maps}?fieldSelector=data%3D1")["message"]
    assert api.get(f"{mine}?labelSelector=a%3D%3D%3Db").status == 400


def test_table_has_the_columns_and_the_metadata(api: Any, mine: str, widget: Make) -> None:
    api.post(mine, widget("a", size=3))
    table = api.get(mine, Accept="application/json;as=Table;v=v1;g=meta.k8s.io,application/json").body
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size", "Phase", "Color", "Age"]
    assert table["rows"][0]["cells"][:2] == ["a", 3]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    metadata = api.get(f"{mine}/a", Accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").body
    assert (metadata["kind"], "spec" in metadata) == ("PartialObjectMetadata", False)


def test_watch_shows_what_changes_after_a_version(api: Any, mine: str, widget: Make) -> None:
    start = api.get(mine)["metadata"]["resourceVersion"]
    api.post(mine, widget("a"))
    api.merge(f"{mine}/a", {"spec": {"size": 2}})
    api.delete(f"{mine}/a")
    events = list(islice(api.watch(f"{mine}?resourceVersion={start}"), 3))
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    again = list(islice(api.watch(f"{mine}?resourceVersion={versions[0]}"), 2))
    assert [event["type"] for event in again] == ["MODIFIED", "DELETED"]


def test_watch_with_a_selector_sees_objects_come_and_go(api: Any, mine: str, widget: Make) -> None:
    start = api.post(mine, widget("a"))["metadata"]["resourceVersion"]
    api.merge(f"{mine}/a", {"metadata": {"labels": {"on": "yes"}}})
    api.merge(f"{mine}/a", {"spec": {"size": 2}})
    api.merge(f"{mine}/a", {"metadata": {"labels": {"on": None}}})
    events = list(islice(api.watch(f"{mine}?resourceVersion={start}&labelSelector=on"), 3))
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]


def test_watch_sends_initial_events_and_says_when_they_are_done(api: Any, mine: str, widget: Make) -> None:
    api.post(mine, widget("a"))
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    added, bookmark = islice(api.watch(f"{mine}?{query}"), 2)
    assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert api.get(f"{mine}?watch=true&sendInitialEvents=true").status == 422


def test_watch_ends_in_time_with_a_bookmark(api: Any, mine: str, widget: Make) -> None:
    version = api.post(mine, widget("a"))["metadata"]["resourceVersion"]
    events = list(api.watch(f"{mine}?resourceVersion={version}&allowWatchBookmarks=true", seconds=3))
    assert [event["type"] for event in events] == ["BOOKMARK"]
    assert int(events[0]["object"]["metadata"]["resourceVersion"]) >= int(version)


def test_watch_of_tables_describes_the_columns_once(api: Any, mine: str, widget: Make) -> None:
    start = api.get(mine)["metadata"]["resourceVersion"]
    api.post(mine, widget("a"))
    api.merge(f"{mine}/a", {"spec": {"size": 2}})
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    first, second = islice(api.watch(f"{mine}?resourceVersion={start}", accept=accept), 2)
    assert len(first["object"]["columnDefinitions"]) == 5
    assert not second["object"]["columnDefinitions"]
    assert [event["object"]["rows"][0]["cells"][1] for event in (first, second)] == [1, 2]


def test_scale_reads_and_writes_the_replicas(api: Any, mine: str, widget: Make) -> None:
    api.post(mine, widget("a", size=2))
    scale = api.get(f"{mine}/a/scale").body
    assert (scale["kind"], scale["spec"]["replicas"], scale["status"]["replicas"]) == ("Scale", 2, 0)
    scale["spec"]["replicas"] = 5
    assert api.put(f"{mine}/a/scale", scale)["spec"]["replicas"] == 5
    assert api.get(f"{mine}/a")["spec"]["size"] == 5
    assert api.put(f"{mine}/a/scale", scale).status == 409


def test_secret_takes_plain_strings_and_immutable_ones_stay(api: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    body = {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "immutable": True}
    created = api.post(path, body)
    assert (created["data"]["a"], created["type"]) == (base64.b64encode(b"b").decode(), "Opaque")
    assert "stringData" not in created.body
    changed = api.merge(f"{path}/s", {"data": {"a": "eA=="}})
    assert (changed.status, "field is immutable when `immutable` is set" in changed["message"]) == (422, True)


def test_events_have_two_faces(api: Any, namespace: str) -> None:
    old, new = f"/api/v1/namespaces/{namespace}/events", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    body = {
        "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "namespace": namespace, "name": "p"},
        "note": "it happened",
        "reason": "Happened",
        "action": "Happen",
        "type": "Normal",
        "reportingController": "example.com/test",
        "reportingInstance": "test-1",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    }
    assert api.post(new, body).status == 201
    core = api.get(f"{old}/e").body
    assert (core["message"], core["involvedObject"]["name"], core["kind"]) == ("it happened", "p", "Event")
    assert names(api.get(f"{old}?fieldSelector=involvedObject.name%3Dp")) == ["e"]
    assert api.get(f"{new}/e")["note"] == "it happened"


def test_definition_is_established_refused_and_removed_with_its_objects(
    api: Any, widgets: str, namespace: str, eventually: Callable[..., Any]
) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    body = api.get(f"{path}/widgets.example.com").body
    names_of = {"plural": "gizmos", "kind": "Gizmo", "singular": "gizmo", "listKind": "GizmoList"}
    fresh = {"metadata": {"name": "gizmos.example.com"}, "spec": {**body["spec"], "names": names_of}}
    wrong = {**fresh, "metadata": {"name": "wrong.example.com"}}
    assert api.post(path, wrong).status == 422
    assert api.post(path, fresh).status == 201
    eventually(lambda: conditions(api.get(f"{path}/gizmos.example.com")) >= {"Established=True", "NamesAccepted=True"})
    mine = f"{widgets}/namespaces/{namespace}/gizmos"
    gizmo = {"apiVersion": "example.com/v1", "kind": "Gizmo", "metadata": {"name": "g"}, "spec": {"size": 1}}
    eventually(lambda: api.post(mine, gizmo).status in {201, 409})
    assert api.delete(f"{path}/gizmos.example.com").status == 200
    eventually(lambda: api.get(mine).status == 404)
    eventually(lambda: api.get(f"{path}/gizmos.example.com").status == 404)


def test_discovery_is_plain_and_aggregated(api: Any, widgets: str) -> None:
    assert api.get("/api")["versions"] == ["v1"]
    groups = {group["name"] for group in api.get("/apis")["groups"]}
    assert {"apps", "batch", "rbac.authorization.k8s.io", "example.com"} <= groups
    listed = {row["name"]: row for row in api.get(widgets)["resources"]}
    assert listed["widgets"]["categories"] == ["gadgets"]
    assert {"widgets/status", "widgets/scale"} <= set(listed)
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    answer = api.get("/apis", Accept=accept)
    assert "as=APIGroupDiscoveryList" in answer.headers["content-type"]
    assert "example.com" in {item["metadata"]["name"] for item in answer["items"]}
    assert "v1" in {version["version"] for version in api.get("/api", Accept=accept)["items"][0]["versions"]}


def test_health_version_and_openapi_answer(api: Any, widgets: str) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert api.get(path).body == "ok"
    assert api.get("/version")["major"] == "1"
    paths = api.get("/openapi/v3")["paths"]
    document = api.get(paths[widgets.strip("/")]["serverRelativeURL"]).body
    assert any(name.endswith("Widget") for name in document["components"]["schemas"])
