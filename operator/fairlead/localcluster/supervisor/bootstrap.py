"""Brings a fresh API server to where ``kubectl apply -k manifests/base`` brings a cluster, but for the Deployments."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.errors import Unavailable
from fairlead.kube import KubeClient, Ref
from fairlead.localcluster.data import find_data
from fairlead.localcluster.supervisor.home import write_file

Json = dict[str, Any]

MANAGER: Final = "fairlead-up"
GATEWAY_ROLE: Final = "fairlead-gateway-namespace"
_RBAC: Final = "rbac.authorization.k8s.io/v1"
_CRD: Final = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
_KINDS: Final = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "Role")
_BINDINGS: Final = ("ClusterRoleBinding", "RoleBinding")
_NAMESPACED: Final = ("ServiceAccount", "Role", "RoleBinding")
_ESTABLISH_SECONDS: Final = 30.0
_TOKEN_LIFE: Final = timedelta(hours=24)


def install_documents() -> list[Json]:
    """Return what has to be there, in the order in which it can be applied."""
    base = find_data("manifests") / "base"
    documents = [*_documents(find_data("crds")), *_documents(base)]
    wanted = [document for document in documents if document["kind"] in (*_KINDS, *_BINDINGS)]
    unique = {_key(document): document for document in wanted}
    order = (*_KINDS, *_BINDINGS)
    return sorted(unique.values(), key=lambda document: order.index(document["kind"]))


def _documents(folder: Path) -> Iterator[Json]:
    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader=_LOADER):
            if not isinstance(document, dict) or "metadata" not in document:
                continue
            if document["kind"] in _NAMESPACED:
                document["metadata"].setdefault("namespace", names.SYSTEM_NAMESPACE)
            yield document


_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _key(document: Json) -> tuple[str, str, str]:
    meta = document["metadata"]
    return document["kind"], meta.get("namespace", ""), meta["name"]


async def install(client: KubeClient, clock: Clock) -> None:
    """Apply all of it on the server's side, and wait until the kinds are served."""
    for document in install_documents():
        await client.apply(document, manager=MANAGER, force=True)
    ends = clock.monotonic() + _ESTABLISH_SECONDS
    for document in install_documents():
        if document["kind"] != _CRD[1]:
            continue
        while not _established(await client.get(Ref(*_CRD, document["metadata"]["name"]))):
            if clock.monotonic() > ends:
                raise Unavailable(f"the API server does not serve {document['metadata']['name']}")
            await clock.sleep(0.05)


def _established(crd: Json | None) -> bool:
    conditions = ((crd or {}).get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


async def allow_gateway(client: KubeClient, *, namespace: str) -> None:
    """Let the gateway serve agents in *namespace*: the same binding that a cluster's administrator makes there."""
    binding = {
        "apiVersion": _RBAC,
        "kind": "RoleBinding",
        "metadata": {"name": GATEWAY_ROLE, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": GATEWAY_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": "fairlead-gateway", "namespace": names.SYSTEM_NAMESPACE}],
    }
    await client.apply(binding, manager=MANAGER, force=True)


async def write_credentials(client: KubeClient, clock: Clock, *, account: str, base: Json, path: Path) -> datetime:
    """Write a kubeconfig with a fresh token of a service account of the system namespace; return when to do it again.

    Args:
        client: the administrator's.
        clock: the time.
        account: the service account's name.
        base: a kubeconfig whose user's credentials are replaced.
        path: where it is written, readable by its owner only.
    """
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"namespace": names.SYSTEM_NAMESPACE},
        "spec": {"audiences": [], "expirationSeconds": int(_TOKEN_LIFE.total_seconds())},
    }
    now = clock.now()
    answer = await client.create(request, subresource="token", name=account)
    ends = datetime.fromisoformat(answer["status"]["expirationTimestamp"])
    write_file(path, kubeconfig_for(base, account, token=answer["status"]["token"]).encode())
    return now + (ends - now) / 2


def kubeconfig_for(base: Json, user: str, *, token: str) -> str:
    """Return the kubeconfig *base* for another user."""
    context = {**base["contexts"][0]["context"], "user": user}
    document = {
        **base,
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{**base["contexts"][0], "context": context}],
    }
    return yaml.safe_dump(document, sort_keys=False)
