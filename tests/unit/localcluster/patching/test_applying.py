from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.localcluster.patching import ApplyConflict, PatchError, server_side_apply, track_update
from fairlead.localcluster.patching.fieldset import decode, encode, paths_of
from fairlead.localcluster.schema import builtin_schema, compile_schema
from fairlead.localcluster.schema.filling import copied

T0, T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"
DEPLOYMENT = builtin_schema("apps/v1", "Deployment")
TEXT = {"type": "string"}
CUSTOM = compile_schema(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "a": TEXT,
                    "b": TEXT,
                    "atom": {"type": "array", "items": TEXT},
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": TEXT},
                    "labels": {"type": "object", "additionalProperties": TEXT},
                    "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": TEXT},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "nodes": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": TEXT, "v": TEXT, "w": TEXT},
                        },
                    },
                },
            },
            "status": {"type": "object", "properties": {"phase": TEXT}},
        },
    }
)


def thing(spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    obj = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}} | more
    return obj if spec is None else obj | {"spec": spec}


def apply(
    live: dict[str, Any] | None,
    spec: dict[str, Any] | None,
    manager: str = "m",
    *,
    force: bool = False,
    now: str = T0,
    **more: Any,
) -> dict[str, Any]:
    return server_side_apply(
        live, thing(spec, **more), schema=CUSTOM, manager=manager, force=force, subresource="", now=now
    )


def update(
    old: dict[str, Any] | None, new: dict[str, Any], manager: str = "u", *, subresource: str = "", now: str = T1
) -> dict[str, Any]:
    return track_update(old, new, schema=CUSTOM, manager=manager, operation="Update", subresource=subresource, now=now)


def owners(obj: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{entry['manager']} {entry['operation']} {entry.get('subresource', '')}".strip(): entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields", [])
    }


def test_apply_creates_and_owns_exactly_what_it_says() -> None:
    made = apply(
        None, {"a": "1", "tags": ["x"], "nodes": [{"name": "n", "v": "1"}], "labels": {"k": "v"}, "atom": ["z"]}
    )
    assert made["metadata"]["managedFields"] == [
        {
            "manager": "m",
            "operation": "Apply",
            "apiVersion": "example.com/v1",
            "time": T0,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:spec": {
                    "f:a": {},
                    "f:atom": {},
                    "f:labels": {"f:k": {}},
                    "f:nodes": {'k:{"name":"n"}': {".": {}, "f:name": {}, "f:v": {}}},
                    "f:tags": {'v:"x"': {}},
                }
            },
        }
    ]


def test_apply_removes_what_it_no_longer_says_unless_somebody_else_owns_it() -> None:
    first = apply(
        None, {"a": "1", "b": "2", "labels": {"k": "v", "l": "w"}, "nodes": [{"name": "n", "v": "1"}, {"name": "o"}]}
    )
    shared = apply(first, {"b": "2", "nodes": [{"name": "o"}]}, "other")
    last = apply(shared, {"labels": {"l": "w"}})
    assert last["spec"] == {"b": "2", "labels": {"l": "w"}, "nodes": [{"name": "o"}]}


def test_apply_removes_an_item_with_the_fields_nobody_owns() -> None:
    live = apply(None, {"nodes": [{"name": "n", "v": "1"}, {"name": "o"}]})
    live["spec"]["nodes"][0]["w"] = "filled in by the server"
    assert apply(live, {"nodes": [{"name": "o"}]})["spec"] == {"nodes": [{"name": "o"}]}


def test_apply_conflicts_with_an_update_of_the_same_field() -> None:
    live = update(None, thing({"a": "1", "b": "1"}), "kubectl-edit")
    with pytest.raises(ApplyConflict) as caught:
        apply(live, {"a": "2"})
    assert str(caught.value) == (
        'Apply failed with 1 conflict: conflict with "kubectl-edit" using example.com/v1: .spec.a'
    )
    assert [(cause.field, cause.reason) for cause in caught.value.causes] == [(".spec.a", "FieldManagerConflict")]


def test_apply_lists_all_conflicts_by_manager() -> None:
    live = update(None, thing({"a": "1", "nodes": [{"name": "n", "v": "1"}], "tags": ["x"]}), "edit")
    live = apply(live, {"b": "1"}, "gitops")
    with pytest.raises(ApplyConflict) as caught:
        apply(live, {"a": "2", "b": "2", "nodes": [{"name": "n", "v": "2"}]})
    assert str(caught.value) == (
        "Apply failed with 3 conflicts: "
        'conflicts with "edit" using example.com/v1:\n- .spec.a\n- .spec.nodes[name="n"].v\n'
        'conflicts with "gitops":\n- .spec.b'
    )


def test_apply_by_force_takes_the_field_away() -> None:
    live = update(None, thing({"a": "1", "b": "1"}), "edit")
    forced = apply(live, {"a": "2"}, force=True)
    assert forced["spec"] == {"a": "2", "b": "1"}
    assert owners(forced) == {
        "m Apply": {"f:spec": {"f:a": {}}},
        "edit Update": {"f:spec": {".": {}, "f:b": {}}},
    }


def test_apply_of_an_equal_value_shares_the_field() -> None:
    live = apply(apply(None, {"a": "1"}), {"a": "1"}, "other")
    assert owners(live) == {"m Apply": {"f:spec": {"f:a": {}}}, "other Apply": {"f:spec": {"f:a": {}}}}
    assert apply(live, {"b": "1"})["spec"] == {"a": "1", "b": "1"}


def test_apply_again_changes_nothing_not_even_the_time() -> None:
    live = apply(None, {"a": "1"}, now=T0)
    assert apply(live, {"a": "1"}, now=T2) == live
    assert apply(live, {"a": "2"}, now=T2)["metadata"]["managedFields"][0]["time"] == T2


def test_apply_merges_sets_and_keeps_the_order_of_what_is_there() -> None:
    live = apply(None, {"tags": ["b", "a"], "nodes": [{"name": "x"}, {"name": "y"}]})
    merged = apply(live, {"tags": ["c", "a"], "nodes": [{"name": "z"}, {"name": "y", "v": "1"}]}, "other")
    assert merged["spec"]["tags"] == ["b", "c", "a"]
    assert [node["name"] for node in merged["spec"]["nodes"]] == ["x", "z", "y"]


def test_apply_replaces_atomic_values_as_a_whole() -> None:
    live = apply(None, {"atom": ["a"], "whole": {"a": "1"}})
    assert owners(live)["m Apply"] == {"f:spec": {"f:atom": {}, "f:whole": {}}}
    with pytest.raises(ApplyConflict):
        apply(live, {"atom": ["b"]}, "other")
    assert apply(live, {"atom": ["b"], "whole": {"b": "2"}})["spec"] == {"atom": ["b"], "whole": {"b": "2"}}


def test_apply_leaves_status_to_its_subresource() -> None:
    live = apply(None, {"a": "1"}, status={"phase": "made up"})
    assert "status" not in live
    reported = update(live, live | {"status": {"phase": "Ready"}}, "operator", subresource="status")
    again = apply(reported, {"a": "2"}, status={"phase": "made up"})
    assert again["status"] == {"phase": "Ready"}
    assert owners(again)["operator Update status"] == {"f:status": {".": {}, "f:phase": {}}}


def test_apply_to_status_ignores_everything_else() -> None:
    live = apply(None, {"a": "1"})
    wanted = thing({"a": "2"}, status={"phase": "Ready"})
    done = server_side_apply(live, wanted, schema=CUSTOM, manager="m", force=False, subresource="status", now=T1)
    assert (done["spec"], done["status"]) == ({"a": "1"}, {"phase": "Ready"})
    assert owners(done)["m Apply status"] == {"f:status": {"f:phase": {}}}


def test_apply_refuses_managed_fields_in_what_is_applied() -> None:
    with pytest.raises(PatchError, match="managedFields must be nil"):
        apply(None, {}, metadata={"name": "t", "managedFields": [{"manager": "x"}]})


def test_apply_to_an_object_nobody_owns_records_who_was_before() -> None:
    with pytest.raises(ApplyConflict, match="before-first-apply"):
        apply(thing({"a": "1"}), {"a": "2"})
    assert set(owners(apply(thing({"a": "1"}), {"b": "2"}))) == {"m Apply", "before-first-apply Update"}


def test_track_update_on_create_owns_what_is_there() -> None:
    made = update(
        None,
        thing(
            {"a": "1", "labels": {"k": "v"}, "nodes": [{"name": "n"}]}, metadata={"name": "t", "labels": {"app": "x"}}
        ),
    )
    assert owners(made)["u Update"] == {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            ".": {},
            "f:a": {},
            "f:labels": {".": {}, "f:k": {}},
            "f:nodes": {".": {}, 'k:{"name":"n"}': {".": {}, "f:name": {}}},
        },
    }


def test_track_update_moves_only_what_changed() -> None:
    live = update(None, thing({"a": "1", "b": "1"}), "first", now=T0)
    changed = update(live, live | {"spec": {"a": "2", "atom": []}}, "second", now=T2)
    assert owners(changed) == {
        "first Update": {"f:spec": {}},
        "second Update": {"f:spec": {"f:a": {}, "f:atom": {}}},
    }
    assert [entry["time"] for entry in changed["metadata"]["managedFields"]] == [T0, T2]


def test_track_update_without_a_change_changes_nothing() -> None:
    live = update(None, thing({"a": "1"}), now=T0)
    assert update(live, copied(live), "somebody", now=T2) == live


def test_track_update_keeps_the_owners_when_the_client_leaves_them_out() -> None:
    live = apply(None, {"a": "1"})
    changed = update(live, thing({"a": "1", "b": "2"}))
    assert owners(changed) == {"m Apply": {"f:spec": {"f:a": {}}}, "u Update": {"f:spec": {"f:b": {}}}}


def test_track_update_forgets_owners_on_request() -> None:
    live = apply(None, {"a": "1"})
    reset = copied(live)
    reset["metadata"]["managedFields"] = [{}]
    assert owners(update(live, reset)) == {}


def test_track_update_merges_the_oldest_of_many_updaters() -> None:
    live = update(None, thing({"labels": {"x": ""}}), "u00", now=T0)
    for index in range(1, 15):
        wanted = copied(live)
        wanted["spec"]["labels"][f"k{index}"] = ""
        live = update(live, wanted, f"u{index:02}", now=f"2026-01-01T00:01:{index:02}Z")
    names = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(names) == 10
    assert names[0] == "ancient-changes"
    assert names[-1] == "u14"


def test_apply_migrates_from_client_side_apply_as_kubectl_does() -> None:
    """kubectl applies once as the old manager's heir and then takes the fields over by a JSON patch."""
    obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 1,
            "template": {"spec": {"containers": [{"name": "c", "image": "1", "ports": [{"containerPort": 80}]}]}},
        },
    }
    live = track_update(
        None, obj, schema=DEPLOYMENT, manager="kubectl-client-side-apply", operation="Update", subresource="", now=T0
    )
    wanted = copied(obj)
    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = "2"
    with pytest.raises(ApplyConflict) as caught:
        server_side_apply(live, wanted, schema=DEPLOYMENT, manager="kubectl", force=False, subresource="", now=T1)
    assert str(caught.value).endswith(
        'conflict with "kubectl-client-side-apply" using apps/v1: .spec.template.spec.containers[name="c"].image'
    )
    entry = live["metadata"]["managedFields"][0] | {"manager": "kubectl", "operation": "Apply"}
    migrated = track_update(
        live,
        live | {"metadata": {"name": "d", "managedFields": [entry]}},
        schema=DEPLOYMENT,
        manager="kubectl",
        operation="Update",
        subresource="",
        now=T1,
    )
    assert [e["operation"] for e in migrated["metadata"]["managedFields"]] == ["Apply"]
    done = server_side_apply(
        migrated, wanted, schema=DEPLOYMENT, manager="kubectl", force=False, subresource="", now=T2
    )
    ports = done["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert 'k:{"containerPort":80,"protocol":"TCP"}' in ports['k:{"name":"c"}']["f:ports"]


def test_apply_never_owned_an_empty_list_and_so_leaves_it() -> None:
    live = apply(apply(None, {}), {"tags": []})
    assert (live["spec"], owners(live)) == ({"tags": []}, {})
    assert apply(live, {"a": "1"})["spec"] == {"tags": [], "a": "1"}


def last_applied(spec: dict[str, Any]) -> dict[str, Any]:
    annotation = orjson.dumps(thing(spec)).decode()
    return {"name": "t", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": annotation}}


def test_apply_takes_over_from_client_side_apply_without_a_conflict() -> None:
    live = update(None, thing({"a": "1", "b": "1"}, metadata=last_applied({"a": "1"})), "kubectl-client-side-apply")
    done = apply(live, {"a": "2"}, "kubectl")
    assert done["spec"] == {"a": "2", "b": "1"}
    kept = orjson.loads(done["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"])
    assert kept["spec"] == {"a": "2"}
    with pytest.raises(ApplyConflict):
        apply(live, {"a": "2"}, "gitops")


def test_apply_does_not_take_over_what_changed_since_it_was_applied() -> None:
    live = update(None, thing({"a": "1", "b": "1"}, metadata=last_applied({"a": "1", "b": "1"})), "csa")
    scaled = update(live, live | {"spec": {"a": "1", "b": "5"}}, "kubectl-scale")
    with pytest.raises(ApplyConflict) as caught:
        apply(scaled, {"a": "2", "b": "1"}, "kubectl")
    assert [cause.field for cause in caught.value.causes] == [".spec.b"]


names = st.sampled_from(["x", "y", "z"])
words = st.sampled_from(["1", "2"])
nodes = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"v": words, "w": words}),
    min_size=1,
    max_size=3,
    unique_by=lambda n: n["name"],
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "a": words,
        "atom": st.lists(words, max_size=2),
        "tags": st.lists(names, min_size=1, max_size=3, unique=True),
        "labels": st.dictionaries(names, words, max_size=2),
        "free": st.dictionaries(names, st.dictionaries(names, words, max_size=2) | words, max_size=2),
        "nodes": nodes,
    },
)


@given(specs, specs, specs)
def test_apply_is_idempotent_whatever_came_before(first: Any, other: Any, second: Any) -> None:
    live = apply(None, first)
    live = apply(live, other, "other", force=True)
    once = apply(live, second, force=True, now=T1)
    assert apply(once, second, now=T2) == once


@given(specs, specs)
def test_apply_of_the_only_manager_leaves_exactly_what_it_applied(first: Any, second: Any) -> None:
    done = apply(apply(None, first), second)
    assert done["spec"] == second or normal(done["spec"]) == normal(second)


def normal(spec: dict[str, Any]) -> dict[str, Any]:
    """The order of sets and list-maps has no meaning to apply."""
    ordered = dict(spec)
    if "tags" in ordered:
        ordered["tags"] = sorted(ordered["tags"])
    if "nodes" in ordered:
        ordered["nodes"] = sorted(ordered["nodes"], key=lambda node: node["name"])
    return ordered


@given(specs)
def test_encode_and_decode_are_inverse(spec: Any) -> None:
    paths = paths_of(CUSTOM, thing(spec))
    assert decode(encode(paths)) == paths


def test_track_update_leaves_out_what_go_always_writes() -> None:
    obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"spec": {"containers": [{"name": "c"}]}},
        },
    }
    made = track_update(None, obj, schema=DEPLOYMENT, manager="m", operation="Update", subresource="", now=T0)
    assert owners(made)["m Update"] == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:name": {}}}}},
        },
    }
