from __future__ import annotations

import yaml

from fairlead.api.v1alpha1 import RESOURCES
from fairlead.localcluster.supervisor.bootstrap import install_documents, kubeconfig_for


def test_install_documents_are_those_of_the_cluster_install_without_deployments() -> None:
    documents = install_documents()
    kinds = [document["kind"] for document in documents]
    assert kinds[0] == "Namespace"
    assert kinds.count("CustomResourceDefinition") == len(RESOURCES)
    assert not {"Deployment", "Service", "PersistentVolumeClaim", "Kustomization"} & set(kinds)
    assert kinds.index("ClusterRole") < kinds.index("ClusterRoleBinding")
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    for account in ("fairlead-operator", "fairlead-gateway"):
        assert ("ServiceAccount", account) in names
    assert ("ClusterRole", "fairlead-gateway-namespace") in names


def test_kubeconfig_for_replaces_the_user_and_nothing_else() -> None:
    base = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "admin", "user": {"token": "canary-admin"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "admin", "namespace": "default"}}],
        "current-context": "x",
    }
    text = kubeconfig_for(base, "gateway", token="t-1")
    assert "canary-admin" not in text
    made = yaml.safe_load(text)
    assert made["users"] == [{"name": "gateway", "user": {"token": "t-1"}}]
    assert made["contexts"][0]["context"]["user"] == "gateway"
    assert made["clusters"] == base["clusters"]
