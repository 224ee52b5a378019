"""CustomResourceDefinitions: what they must satisfy, their status, and the resources they add."""

from __future__ import annotations

from typing import Any

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import Json, invalid
from fairlead.localcluster.apiserver.resources import Registry, Resource, ScalePaths, version_priority
from fairlead.localcluster.apiserver.store import TableKey
from fairlead.localcluster.schema import check_crd
from fairlead.localcluster.schema.crd_rules import NOT_EVALUATED
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.errors import forbidden as forbidden_field
from fairlead.localcluster.schema.errors import invalid as invalid_field

TABLE: TableKey = ("apiextensions.k8s.io", "customresourcedefinitions")
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_IMMUTABLE = (("spec", "group"), ("spec", "names", "plural"), ("spec", "names", "kind"), ("spec", "scope"))


def all_crds(cluster: Cluster) -> list[Json]:
    """Return every CRD."""
    return [stored.obj for stored in cluster.store.table(TABLE).rows.values()]


def prepare(crd: Json, before: Json | None, *, others: list[Json], now: str) -> None:
    """Fill in names, the clean-up finalizer and the status."""
    spec = crd.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("names"), dict):
        return
    names = {**spec["names"]}
    kind = str(names.get("kind", ""))
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List")
    crd["spec"] = {"conversion": {"strategy": "None"}, **spec, "names": names}
    metadata = crd["metadata"]
    if before is None:
        metadata["finalizers"] = list(dict.fromkeys([*(metadata.get("finalizers") or []), CLEANUP]))
    refresh(crd, before, others=others, now=now)


def refresh(crd: Json, before: Json | None, *, others: list[Json], now: str) -> None:
    """Write the status: names are accepted unless another CRD has them."""
    crd["status"] = _status(crd, before, clash=_clash(crd, others), now=now)


def _clash(crd: Json, others: list[Json]) -> str:
    """Return which of the names another CRD of the group has already; empty if none."""
    spec, mine = crd["spec"], _names(crd)
    for other in others:
        same = other["metadata"]["name"] == crd["metadata"].get("name")
        if not same and other["spec"]["group"] == spec.get("group"):
            taken = sorted(mine & _names(other))
            if taken:
                return taken[0]
    return ""


def _names(crd: Json) -> set[str]:
    names = crd["spec"]["names"]
    every = [names.get("plural"), names.get("singular"), names.get("kind"), names.get("listKind")]
    return {str(name) for name in [*every, *(names.get("shortNames") or [])] if name}


def _status(crd: Json, before: Json | None, *, clash: str, now: str) -> Json:
    old = (before or {}).get("status") or {}
    stored = [version.get("name", "") for version in crd["spec"].get("versions") or [] if version.get("storage")]
    accepted = ("True", "NoConflicts", "no conflicts found")
    established = ("True", "InitialNamesAccepted", "the initial names have been accepted")
    if clash:
        accepted = ("False", "NameConflict", f'"{clash}" is already in use')
        established = ("False", "NotAccepted", "not all names are accepted")
    wanted = {"NamesAccepted": accepted, "Established": established}
    others = [each for each in old.get("conditions") or [] if each["type"] not in wanted]
    conditions = [_condition(kind, values, old, now=now) for kind, values in wanted.items()]
    return {
        "acceptedNames": old.get("acceptedNames", {"kind": "", "plural": ""}) if clash else crd["spec"]["names"],
        "conditions": [*conditions, *others],
        "storedVersions": list(dict.fromkeys([*(old.get("storedVersions") or []), *stored])),
    }


def _condition(kind: str, values: tuple[str, str, str], old: Json, *, now: str) -> Json:
    status, reason, message = values
    known: Json = next((each for each in old.get("conditions") or [] if each["type"] == kind), {})
    since = known["lastTransitionTime"] if known.get("status") == status else now
    return {"lastTransitionTime": since, "message": message, "reason": reason, "status": status, "type": kind}


def admit(cluster: Cluster, resource: Resource, crd: Json, before: Json | None) -> None:
    """Refuse a CRD that a real API server would refuse.

    Raises:
        ApiError: 422.
    """
    if before is not None and before["spec"] == crd["spec"]:
        return
    problems: list[FieldError] = list(check_crd(crd))
    for path in _IMMUTABLE if before is not None else ():
        value = _at(crd, path)
        if value != _at(before or {}, path):
            problems.append(invalid_field(".".join(path), value, "field is immutable"))
    if (crd["spec"].get("conversion") or {}).get("strategy") == "Webhook":
        problems.append(forbidden_field("spec.conversion.strategy", "this server calls no webhooks"))
    if (builtin := _builtin_group(cluster, crd)) and before is None:
        problems.append(invalid_field("spec.group", builtin, "is served by the API server itself"))
    refused = [problem for problem in problems if problem.reason != NOT_EVALUATED]
    if refused:
        raise invalid(resource, crd["metadata"].get("name", ""), refused)


def warnings(crd: Json) -> list[str]:
    """Return what this server cannot do of a CRD that it accepts."""
    return [f"{found.path}: {found.message}" for found in check_crd(crd) if found.reason == NOT_EVALUATED]


def _builtin_group(cluster: Cluster, crd: Json) -> str:
    group = str(crd["spec"].get("group", ""))
    return group if any(each.group == group and not each.custom for each in cluster.registry) else ""


def _at(obj: Json, path: tuple[str, ...]) -> Any:
    value: Any = obj
    for name in path:
        value = (value or {}).get(name)
    return value


def serve(registry: Registry, crd: Json | None, *, old: Json | None) -> None:
    """Make the registry serve what the CRD defines, and no longer what it defined."""
    if crd is not None and old is not None and crd["spec"] == old["spec"] and _established(crd) is _established(old):
        return
    if old is not None:
        registry.remove(old["spec"]["group"], old["spec"]["names"]["plural"])
    if crd is None or not _established(crd):
        return
    served = [version for version in crd["spec"]["versions"] if version.get("served")]
    best = max((version["name"] for version in served), key=version_priority, default="")
    for version in served:
        registry.add(_resource(crd, version, preferred=version["name"] == best))


def _established(crd: Json) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def _resource(crd: Json, version: Json, *, preferred: bool) -> Resource:
    spec, names = crd["spec"], crd["spec"]["names"]
    subresources = version.get("subresources") or {}
    warning = version.get("deprecationWarning") or f"{spec['group']}/{version['name']} {names['kind']} is deprecated"
    return Resource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        singular=names["singular"],
        list_kind=names["listKind"],
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=frozenset(subresources),
        selectable=tuple(each["jsonPath"].lstrip(".") for each in version.get("selectableFields") or ()),
        scale=_scale(subresources.get("scale")),
        openapi=(version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"},
        columns=tuple(version.get("additionalPrinterColumns") or ()),
        preferred=preferred,
        custom=True,
        deprecation=warning if version.get("deprecated") else "",
    )


def _scale(paths: Json | None) -> ScalePaths | None:
    if not paths:
        return None
    return ScalePaths(paths["specReplicasPath"], paths["statusReplicasPath"], paths.get("labelSelectorPath", ""))
