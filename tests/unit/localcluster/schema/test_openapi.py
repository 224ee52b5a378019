from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from fairlead.localcluster.schema import openapi_document, openapi_index

REF = "#/components/schemas/"


@dataclass(frozen=True)
class Row:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    subresources: frozenset[str] = frozenset({"status"})
    openapi: dict[str, Any] | None = None


POD = Row("", "v1", "pods", "Pod")
JOB = Row("batch", "v1", "jobs", "Job")
LEASE = Row("coordination.k8s.io", "v1", "leases", "Lease", subresources=frozenset())
FLOW = Row(
    "fairlead.dev",
    "v1alpha1",
    "workflows",
    "Workflow",
    openapi={"type": "object", "properties": {"spec": {"type": "object", "description": "What to do."}}},
)
ROWS = [POD, JOB, LEASE, FLOW]


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"].removeprefix(REF)} if "$ref" in node and isinstance(node["$ref"], str) else set()
        return own.union(*(references(child) for child in node.values()))
    return set().union(*(references(child) for child in node)) if isinstance(node, list) else set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind)
def test_openapi_document_defines_all_it_refers_to(row: Row) -> None:
    document = openapi_document(f"{row.group}/{row.version}".lstrip("/"), ROWS)
    assert references(document) <= set(document["components"]["schemas"])


def test_openapi_document_names_components_as_kubernetes_does() -> None:
    core = openapi_document("v1", ROWS)["components"]["schemas"]
    batch = openapi_document("batch/v1", ROWS)["components"]["schemas"]
    own = openapi_document("fairlead.dev/v1alpha1", ROWS)["components"]["schemas"]
    assert {"io.k8s.api.core.v1.Pod", "io.k8s.api.core.v1.Container"} <= set(core)
    assert {"io.k8s.api.batch.v1.Job", "io.k8s.api.core.v1.PodTemplateSpec"} <= set(batch)
    assert {"dev.fairlead.v1alpha1.Workflow", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"} <= set(own)


def test_openapi_document_says_how_lists_are_merged_and_what_fields_mean() -> None:
    spec = openapi_document("v1", ROWS)["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]
    assert spec["containers"]["x-kubernetes-list-map-keys"] == ["name"]
    assert spec["volumes"]["x-kubernetes-patch-strategy"] == "merge,retainKeys"
    assert spec["containers"]["x-kubernetes-patch-merge-key"] == "name"
    assert spec["nodeName"]["description"].startswith("NodeName indicates in which node this pod is scheduled.")


def test_openapi_document_offers_kubectl_what_it_looks_for() -> None:
    paths = openapi_document("v1", ROWS)["paths"]
    patch = paths["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    gvk = {"group": "", "version": "v1", "kind": "Pod"}
    assert patch["x-kubernetes-group-version-kind"] == gvk
    assert {parameter["name"] for parameter in patch["parameters"]} >= {"dryRun", "fieldValidation", "fieldManager"}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
    own = openapi_document("fairlead.dev/v1alpha1", ROWS)["paths"]
    content = own["/apis/fairlead.dev/v1alpha1/namespaces/{namespace}/workflows/{name}"]["patch"]["requestBody"][
        "content"
    ]
    assert "application/strategic-merge-patch+json" not in content


def test_openapi_document_of_a_custom_kind_completes_its_schema() -> None:
    schema = openapi_document("fairlead.dev/v1alpha1", ROWS)["components"]["schemas"]["dev.fairlead.v1alpha1.Workflow"]
    assert schema["properties"]["spec"]["description"] == "What to do."
    assert set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert schema["x-kubernetes-group-version-kind"][0]["kind"] == "Workflow"


def test_openapi_index_changes_its_hash_with_the_schema() -> None:
    before = openapi_index(ROWS)["paths"]
    after = openapi_index([POD, replace(FLOW, openapi={"type": "object"})])["paths"]
    assert set(before) == {"api/v1", "apis/batch/v1", "apis/coordination.k8s.io/v1", "apis/fairlead.dev/v1alpha1"}
    assert before["api/v1"] == after["api/v1"]
    assert before["apis/fairlead.dev/v1alpha1"] != after["apis/fairlead.dev/v1alpha1"]
