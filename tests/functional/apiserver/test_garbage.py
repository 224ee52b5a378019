"""Owners, namespaces and what goes with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Json = dict[str, Any]
Eventually = Callable[..., Any]


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def owned(name: str, *owners: Json, blocking: bool = False, finalizers: tuple[str, ...] = ()) -> Json:
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": blocking,
        }
        for owner in owners
    ]
    return {"metadata": {"name": name, "ownerReferences": references, "finalizers": list(finalizers)}}


def test_dependents_go_after_their_owner_down_to_the_last(api: Any, maps: str, eventually: Eventually) -> None:
    top = api.post(maps, {"metadata": {"name": "top"}}).body
    middle = api.post(maps, owned("middle", top)).body
    api.post(maps, owned("leaf", middle))
    api.delete(f"{maps}/top")
    eventually(lambda: all(api.get(f"{maps}/{name}").status == 404 for name in ("top", "middle", "leaf")))


def test_a_dependent_stays_as_long_as_one_owner_is_left(api: Any, maps: str, eventually: Eventually) -> None:
    one, two = (api.post(maps, {"metadata": {"name": name}}).body for name in ("one", "two"))
    api.post(maps, owned("child", one, two))
    api.delete(f"{maps}/one")
    eventually(lambda: len(api.get(f"{maps}/child")["metadata"]["ownerReferences"]) == 1)
    api.delete(f"{maps}/two")
    eventually(lambda: api.get(f"{maps}/child").status == 404)


def test_foreground_waits_for_the_dependents_that_block(api: Any, maps: str, eventually: Eventually) -> None:
    owner = api.post(maps, {"metadata": {"name": "owner"}}).body
    api.post(maps, owned("child", owner, blocking=True, finalizers=("example.com/wait",)))
    marked = api.delete(f"{maps}/owner", {"propagationPolicy": "Foreground"})
    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]
    eventually(lambda: api.get(f"{maps}/child")["metadata"].get("deletionTimestamp"))
    assert api.get(f"{maps}/owner").status == 200
    api.merge(f"{maps}/child", {"metadata": {"finalizers": None}})
    eventually(lambda: api.get(f"{maps}/owner").status == 404)


def test_orphans_lose_the_reference_and_stay(api: Any, maps: str, eventually: Eventually) -> None:
    owner = api.post(maps, {"metadata": {"name": "owner"}}).body
    api.post(maps, owned("child", owner))
    api.delete(f"{maps}/owner", {"propagationPolicy": "Orphan"})
    eventually(lambda: api.get(f"{maps}/owner").status == 404)
    assert "ownerReferences" not in api.get(f"{maps}/child")["metadata"]


def test_an_object_whose_owner_was_never_there_goes(api: Any, maps: str, eventually: Eventually) -> None:
    nobody = {"metadata": {"name": "nobody", "uid": "00000000-0000-0000-0000-000000000000"}}
    assert api.post(maps, owned("child", nobody)).status == 201
    eventually(lambda: api.get(f"{maps}/child").status == 404)


def test_a_namespace_takes_everything_with_it(api: Any, namespace: str, maps: str, eventually: Eventually) -> None:
    api.post(maps, {"metadata": {"name": "kept", "finalizers": ["example.com/wait"]}})
    api.post(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "s"}})
    api.delete(f"/api/v1/namespaces/{namespace}")
    eventually(lambda: api.get(f"/api/v1/namespaces/{namespace}/secrets/s").status == 404)
    ending = api.get(f"/api/v1/namespaces/{namespace}")
    assert ending["status"]["phase"] == "Terminating"
    refused = api.post(maps, {"metadata": {"name": "late"}})
    assert (refused.status, "it is being terminated" in refused["message"]) == (403, True)
    eventually(lambda: api.get(f"{maps}/kept")["metadata"].get("deletionTimestamp"))
    api.merge(f"{maps}/kept", {"metadata": {"finalizers": None}})
    eventually(lambda: api.get(f"/api/v1/namespaces/{namespace}").status == 404)


def test_namespaces_of_the_system_stay(api: Any) -> None:
    assert api.delete("/api/v1/namespaces/default").status == 403


def test_a_namespace_has_its_account_and_certificate(api: Any, namespace: str, eventually: Eventually) -> None:
    core = f"/api/v1/namespaces/{namespace}"
    eventually(lambda: api.get(f"{core}/configmaps/kube-root-ca.crt").status == 200)
    assert "BEGIN CERTIFICATE" in api.get(f"{core}/configmaps/kube-root-ca.crt")["data"]["ca.crt"]
    api.delete(f"{core}/serviceaccounts/default")
    eventually(lambda: api.get(f"{core}/serviceaccounts/default").status == 200)
