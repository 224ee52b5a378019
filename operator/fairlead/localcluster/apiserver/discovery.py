"""What the server serves, for clients that ask first.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from __future__ import annotations

from fairlead.localcluster.apiserver.errors import Json
from fairlead.localcluster.apiserver.resources import Registry, Resource

GIT_VERSION = "v1.33.0+fairlead"
_SUBRESOURCES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    # subresource: kind (empty: the resource's own), group, version, verbs
    "status": ("", "", "", ("get", "patch", "update")),
    "scale": ("Scale", "autoscaling", "v1", ("get", "patch", "update")),
    "log": ("", "", "", ("get",)),
    "token": ("TokenRequest", "authentication.k8s.io", "v1", ("create",)),
    "binding": ("Binding", "", "", ("create",)),
    "eviction": ("Eviction", "policy", "v1", ("create",)),
    "finalize": ("", "", "", ("update",)),
}


def version_info() -> Json:
    """Return ``/version``."""
    return {
        "major": "1",
        "minor": "33",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "python",
        "platform": "any",
    }


def api_versions() -> Json:
    """Return ``/api``."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_groups(registry: Registry) -> Json:
    """Return ``/apis``."""
    groups = [_group(name, versions) for name, versions in registry.groups().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(registry: Registry, name: str) -> Json | None:
    """Return ``/apis/<group>``, or None."""
    versions = registry.groups().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if name and versions else None


def _group(name: str, versions: list[str]) -> Json:
    named = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": named, "preferredVersion": named[0]}


def api_resources(registry: Registry, group: str, version: str) -> Json | None:
    """Return ``/api/v1`` or ``/apis/<group>/<version>``, or None."""
    resources = _of(registry, group, version)
    if not resources:
        return None
    listed = [row for resource in resources for row in _rows(resource)]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def _of(registry: Registry, group: str, version: str) -> list[Resource]:
    found = [each for each in registry if (each.group, each.version) == (group, version)]
    return sorted(found, key=lambda resource: resource.plural)


def _rows(resource: Resource) -> list[Json]:
    row: Json = {
        "name": resource.plural,
        "singularName": resource.singular_name,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        row["shortNames"] = list(resource.short_names)
    if resource.categories:
        row["categories"] = list(resource.categories)
    return [row, *(_subresource_row(resource, name) for name in sorted(resource.subresources))]


def _subresource_row(resource: Resource, name: str) -> Json:
    kind, group, version, verbs = _SUBRESOURCES[name]
    foreign = {"group": group, "version": version} if version else {}
    return {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        **foreign,
        "kind": kind or resource.kind,
        "verbs": list(verbs),
    }


def aggregated(registry: Registry, *, core: bool) -> Json:
    """Return everything at once, as ``apidiscovery.k8s.io/v2``: the core group, or all others."""
    groups = {name: versions for name, versions in registry.groups().items() if bool(name) is not core}
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
            "versions": [_aggregated_version(registry, name, version) for version in versions],
        }
        for name, versions in groups.items()
    ]
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
    return {**head, "items": items}


def _aggregated_version(registry: Registry, group: str, version: str) -> Json:
    resources = [_aggregated_resource(resource) for resource in _of(registry, group, version)]
    return {"version": version, "resources": resources, "freshness": "Current"}


def _aggregated_resource(resource: Resource) -> Json:
    item: Json = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular_name,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        item["shortNames"] = list(resource.short_names)
    if resource.categories:
        item["categories"] = list(resource.categories)
    if resource.subresources:
        item["subresources"] = [_aggregated_subresource(resource, name) for name in sorted(resource.subresources)]
    return item


def _aggregated_subresource(resource: Resource, name: str) -> Json:
    kind, group, version, verbs = _SUBRESOURCES[name]
    own = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    response = {"group": group, "version": version, "kind": kind} if version else {**own, "kind": kind or own["kind"]}
    return {"subresource": name, "responseKind": response, "verbs": list(verbs)}
