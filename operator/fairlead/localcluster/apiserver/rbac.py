"""Role-based access control, evaluated as Kubernetes does.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from fairlead.localcluster.apiserver.errors import Json
from fairlead.localcluster.apiserver.requests import Attributes, User
from fairlead.localcluster.apiserver.store import Change, Store, TableKey

GROUP = "rbac.authorization.k8s.io"
SUPERUSERS = "system:masters"
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Grant:
    """The rules that one binding gives; in one namespace, or everywhere when it is empty."""

    namespace: str
    rules: tuple[Json, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Decision:
    """May they, and by what."""

    allowed: bool
    reason: str = ""


class Authorizer:
    """Answers from the roles and bindings in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._grants: dict[tuple[str, str], list[Grant]] | None = None
        store.listen(self._on_change)

    def _on_change(self, table: TableKey, _change: Change) -> None:
        if table[0] == GROUP:
            self._grants = None

    def decide(self, user: User, attributes: Attributes) -> Decision:
        """Return whether *user* may do what *attributes* say."""
        if SUPERUSERS in user.groups:
            return Decision(allowed=True)
        for grant in self.grants(user, attributes.namespace):
            if grant.namespace and not attributes.is_resource:
                continue
            if any(rule_allows(rule, attributes) for rule in grant.rules):
                return Decision(allowed=True, reason=f"RBAC: allowed by {grant.source}")
        return Decision(allowed=False)

    def grants(self, user: User, namespace: str) -> Iterator[Grant]:
        """Yield what *user* has everywhere and in *namespace*."""
        if self._grants is None:
            self._grants = self._index()
        subjects = [("User", user.name), *(("Group", group) for group in user.groups)]
        for subject in subjects:
            for grant in self._grants.get(subject, ()):
                if not grant.namespace or grant.namespace == namespace:
                    yield grant

    def rules(self, user: User, namespace: str) -> list[Json]:
        """Return every rule that applies to *user* in *namespace*."""
        if SUPERUSERS in user.groups:
            return [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]
        return [rule for grant in self.grants(user, namespace) for rule in grant.rules]

    def role_rules(self, reference: Json, namespace: str) -> list[Json] | None:
        """Return the rules of a role that a binding in *namespace* refers to; None when there is no such role."""
        cluster_wide = reference.get("kind") == "ClusterRole"
        table = (GROUP, "clusterroles" if cluster_wide else "roles")
        role = self._store.get(table, "" if cluster_wide else namespace, reference.get("name", ""))
        return None if role is None else role.obj.get("rules") or []

    def _index(self) -> dict[tuple[str, str], list[Grant]]:
        grants: dict[tuple[str, str], list[Grant]] = {}
        for plural in ("clusterrolebindings", "rolebindings"):
            for stored in self._store.table((GROUP, plural)).rows.values():
                for subject, grant in self._granted(stored.obj):
                    grants.setdefault(subject, []).append(grant)
        return grants

    def _granted(self, binding: Json) -> Iterator[tuple[tuple[str, str], Grant]]:
        namespace = binding["metadata"].get("namespace", "")
        reference = binding.get("roleRef") or {}
        rules = tuple(self.role_rules(reference, namespace) or ())
        source = (
            f'{binding["kind"]} "{binding["metadata"]["name"]}" of {reference.get("kind")} "{reference.get("name")}"'
        )
        for subject in binding.get("subjects") or ():
            kind, name = subject.get("kind", ""), subject.get("name", "")
            if kind == "ServiceAccount":
                name = f"{_SERVICE_ACCOUNT}{subject.get('namespace') or namespace}:{name}"
            key = ("Group" if kind == "Group" else "User", name)
            yield key, Grant(namespace, rules, f'{source} to {kind} "{subject.get("name", "")}"')


def _has(values: Iterable[str] | None, wanted: str) -> bool:
    return bool(values) and ("*" in (values or ()) or wanted in (values or ()))


def rule_allows(rule: Json, attributes: Attributes) -> bool:
    """Tell whether one rule covers the request."""
    if not _has(rule.get("verbs"), attributes.verb):
        return False
    if not attributes.is_resource:
        return any(_path_matches(pattern, attributes.path) for pattern in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames") or ()
    return (
        _has(rule.get("apiGroups"), attributes.group)
        and _resource_matches(rule.get("resources") or (), attributes)
        and (not names or attributes.name in names)
    )


def _resource_matches(resources: Iterable[str], attributes: Attributes) -> bool:
    wanted = {"*", attributes.full_resource}
    if attributes.subresource:
        wanted.add(f"*/{attributes.subresource}")
    return any(resource in wanted for resource in resources)


def _path_matches(pattern: str, path: str) -> bool:
    return pattern == path or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def uncovered(held: list[Json], wanted: list[Json]) -> list[Json]:
    """Return those *wanted* rules, broken into atoms, that the *held* ones do not cover.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
    """
    atoms = [atom for rule in wanted for atom in _atoms(rule)]
    return [atom for atom in atoms if not any(_covers(rule, atom) for rule in held)]


def _atoms(rule: Json) -> Iterator[Json]:
    verbs = rule.get("verbs") or []
    for verb, url in product(verbs, rule.get("nonResourceURLs") or []):
        yield {"nonResourceURLs": [url], "verbs": [verb]}
    names: list[str | None] = list(rule.get("resourceNames") or [None])
    for group, resource, name, verb in product(rule.get("apiGroups") or [], rule.get("resources") or [], names, verbs):
        atom: Json = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        yield atom if name is None else {**atom, "resourceNames": [name]}


def _covers(rule: Json, atom: Json) -> bool:
    if not _has(rule.get("verbs"), atom["verbs"][0]):
        return False
    if "nonResourceURLs" in atom:
        url = atom["nonResourceURLs"][0]
        return any(_path_matches(pattern, url) for pattern in rule.get("nonResourceURLs") or ())
    resource = atom["resources"][0]
    _, _, subresource = resource.partition("/")
    resources = {"*", resource} | ({f"*/{subresource}"} if subresource else set())
    names, wanted = rule.get("resourceNames") or (), atom.get("resourceNames")
    return (
        _has(rule.get("apiGroups"), atom["apiGroups"][0])
        and bool(resources.intersection(rule.get("resources") or ()))
        and (not names or (wanted is not None and wanted[0] in names))
    )


def describe_rule(atom: Json) -> str:
    """Return an atom as Kubernetes prints it in a refusal."""
    titles: dict[str, str] = {
        "apiGroups": "APIGroups",
        "resources": "Resources",
        "resourceNames": "ResourceNames",
        "nonResourceURLs": "NonResourceURLs",
        "verbs": "Verbs",
    }
    parts = [f"{title}:[{', '.join(_quoted(atom[name]))}]" for name, title in titles.items() if name in atom]
    return "{" + ", ".join(parts) + "}"


def _quoted(values: list[Any]) -> list[str]:
    return [f'"{value}"' for value in values]


def denial(user: User, attributes: Attributes) -> str:
    """Return why, as Kubernetes words it."""
    if not attributes.is_resource:
        return f'User "{user.name}" cannot {attributes.verb} path "{attributes.path}"'
    scope = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    what = f'resource "{attributes.full_resource}" in API group "{attributes.group}"'
    return f'User "{user.name}" cannot {attributes.verb} {what} {scope}'
