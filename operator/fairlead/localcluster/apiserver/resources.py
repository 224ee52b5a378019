"""What the server knows about a resource, and the registry of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.localcluster.apiserver.errors import Json
from fairlead.localcluster.apiserver.events import event_to_core, event_to_v1
from fairlead.localcluster.apiserver.store import TableKey
from fairlead.localcluster.schema import Schema, builtin_schema, compile_schema

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where the scale subresource finds its fields."""

    spec_replicas: str
    status_replicas: str
    selector: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Resource:
    """One resource in one version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    verbs: tuple[str, ...] = ALL_VERBS
    has_generation: bool = True
    returns_deleted: bool = False
    selectable: tuple[str, ...] = ()
    stored_as: TableKey | None = None
    scale: ScalePaths | None = None
    openapi: Json | None = None
    """The CRD's schema; None for a built-in kind."""
    columns: tuple[Mapping[str, Any], ...] = ()
    preferred: bool = True
    custom: bool = False
    deprecation: str = ""

    @property
    def api_version(self) -> str:
        """Return ``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def table(self) -> TableKey:
        """Where its objects are stored."""
        return self.stored_as or (self.group, self.plural)

    @property
    def kinds(self) -> str:
        """The kind of a list of it."""
        return self.list_kind or f"{self.kind}List"

    @property
    def singular_name(self) -> str:
        """Return the name for one of them."""
        return self.singular or self.kind.lower()

    def has_status(self) -> bool:
        """Tell whether status is written apart from the rest."""
        return "status" in self.subresources

    def from_stored(self, obj: Json) -> Json:
        """Return the stored *obj* as this version shows it."""
        if obj["apiVersion"] == self.api_version:
            return obj
        if self.group == "events.k8s.io":
            return event_to_v1(obj)
        return {**obj, "apiVersion": self.api_version}

    def to_stored(self, obj: Json) -> Json:
        """Return *obj* as it is stored."""
        return event_to_core(obj) if self.group == "events.k8s.io" else obj


@dataclass(slots=True)
class Registry:
    """All resources by group, version and plural."""

    _resources: dict[tuple[str, str, str], Resource] = field(default_factory=dict)
    _by_table: dict[TableKey, Resource] = field(default_factory=dict)
    _schemas: dict[Resource, Schema | None] = field(default_factory=dict)

    def add(self, resource: Resource) -> None:
        """Serve *resource*."""
        self._resources[resource.group, resource.version, resource.plural] = resource
        if resource.preferred and resource.stored_as in {None, (resource.group, resource.plural)}:
            self._by_table[resource.table] = resource

    def remove(self, group: str, plural: str) -> None:
        """Serve no version of the resource any more."""
        self._by_table.pop((group, plural), None)
        for key, resource in list(self._resources.items()):
            if (resource.group, resource.plural) == (group, plural):
                del self._resources[key]
                self._schemas.pop(resource, None)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """Return the resource, or None."""
        return self._resources.get((group, version, plural))

    def stored_in(self, table: TableKey) -> Resource | None:
        """Return the version of the resource that its *table* is read through."""
        return self._by_table.get(table)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """Return the resource that serves *kind*, or None."""
        matches = (each for each in self if each.kind == kind and each.api_version == api_version)
        return next(matches, None)

    def schema(self, resource: Resource) -> Schema | None:
        """Return the compiled schema; None when the kind has none."""
        if resource not in self._schemas:
            compiled = (
                compile_schema(resource.openapi)
                if resource.openapi is not None
                else builtin_schema(resource.api_version, resource.kind)
            )
            self._schemas[resource] = compiled
        return self._schemas[resource]

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._resources.values()))

    def groups(self) -> dict[str, list[str]]:
        """Return the versions of each group, the preferred one first."""
        groups: dict[str, list[str]] = {}
        for resource in self:
            versions = groups.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
        return {group: sorted(versions, key=version_priority, reverse=True) for group, versions in groups.items()}


def version_priority(version: str) -> tuple[int, int, int]:
    """Sort key of a version: GA before beta before alpha, higher numbers first.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
    """
    rest = version.removeprefix("v")
    for stability, marker in ((1, "alpha"), (2, "beta")):
        major, found, minor = rest.partition(marker)
        if found and major.isdigit() and minor.isdigit():
            return (stability, int(major), int(minor))
    return (3, int(rest), 0) if rest.isdigit() else (0, 0, 0)
