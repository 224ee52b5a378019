"""What an object is called and where it lives on the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Ref:
    """Names one object. *namespace* is empty for what is not namespaced."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Ref:
        """Return the name of an object that is at hand."""
        meta = obj.get("metadata") or {}
        return cls(obj["apiVersion"], obj["kind"], meta.get("name", ""), meta.get("namespace", ""))


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the server offers it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of a collection, an object or a subresource."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


def _known(api_version: str, *, cluster: bool = False, **plurals: str) -> dict[tuple[str, str], Resource]:
    return {
        (api_version, kind): Resource(api_version, kind, plural, namespaced=not cluster)
        for kind, plural in plurals.items()
    }


KNOWN: Final = {
    **_known("v1", Pod="pods", ConfigMap="configmaps", Secret="secrets", Event="events", Service="services"),  # noqa: S106 - a kind
    **_known("v1", ServiceAccount="serviceaccounts", PersistentVolumeClaim="persistentvolumeclaims"),
    **_known("v1", cluster=True, Namespace="namespaces", Node="nodes"),
    **_known("coordination.k8s.io/v1", Lease="leases"),
    **_known("events.k8s.io/v1", Event="events"),
    **_known("authentication.k8s.io/v1", cluster=True, TokenReview="tokenreviews"),
    **_known("authorization.k8s.io/v1", cluster=True, SubjectAccessReview="subjectaccessreviews"),
    **_known("apiextensions.k8s.io/v1", cluster=True, CustomResourceDefinition="customresourcedefinitions"),
    **_known("fairlead.dev/v1alpha1", Workflow="workflows", WorkflowRun="workflowruns", Agent="agents", Model="models"),
    **_known("fairlead.dev/v1alpha1", Tool="tools"),
}
"""Kinds that need no discovery; what is missing here is asked from the server."""


def parse_discovery(api_version: str, document: Mapping[str, Any]) -> dict[tuple[str, str], Resource]:
    """Return the kinds in an ``APIResourceList``."""
    found = {}
    for item in document.get("resources") or ():
        if "/" not in item["name"]:
            found[api_version, item["kind"]] = Resource(
                api_version, item["kind"], item["name"], namespaced=bool(item.get("namespaced"))
            )
    return found
