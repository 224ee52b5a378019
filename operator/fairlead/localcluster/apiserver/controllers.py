"""What the server does by itself: namespaces, service accounts, aggregated roles, CRD clean-up, garbage, old events."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from datetime import timedelta

import orjson
import structlog

from fairlead.localcluster.apiserver import crds
from fairlead.localcluster.apiserver.bootstrap import bootstrap_objects
from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.deletion import DeleteOptions, delete
from fairlead.localcluster.apiserver.errors import ApiError, Json
from fairlead.localcluster.apiserver.gc import GarbageCollector, Place
from fairlead.localcluster.apiserver.rbac import GROUP as RBAC
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.selectors import requirements_of
from fairlead.localcluster.apiserver.store import Change, Key, Stored, TableKey
from fairlead.localcluster.apiserver.times import parse_time
from fairlead.localcluster.apiserver.tokens import AUDIENCE
from fairlead.localcluster.apiserver.writes import WriteOptions, amend, create

NAMESPACES: TableKey = ("", "namespaces")
EVENTS: TableKey = ("", "events")
ROLES: TableKey = (RBAC, "clusterroles")
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
EVENT_LIFETIME = timedelta(hours=1)
_SWEEP_SECONDS = 60.0
_AT_ONCE = 64
_CA_DESCRIPTION = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints."


class Controllers:
    """A queue of places to look at, filled by the store's changes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._dirty: dict[Place, None] = {}
        self._wake = asyncio.Event()
        self._collector = GarbageCollector(cluster, self._enqueue)
        self._kinds: Mapping[TableKey, Callable[[Key], None]] = {
            NAMESPACES: self._look_at_namespace,
            ROLES: self._look_at_role,
            crds.TABLE: self._look_at_crd,
            ("", "secrets"): self._look_at_secret,
        }
        self._log = structlog.get_logger("fairlead.apiserver")

    def start(self) -> None:
        """Serve the stored CRDs, learn what is there, and make what every cluster has."""
        for crd in crds.all_crds(self._cluster):
            crds.serve(self._cluster.registry, crd, old=None)
        self._cluster.store.listen(self._on_change)
        self._collector.load()
        for table, rows in self._cluster.store.tables():
            if table in self._kinds:
                for key in rows.rows:
                    self._enqueue((table, key))
        for name in SYSTEM_NAMESPACES:
            self._ensure("v1", "Namespace", {"metadata": {"name": name}})
        for plural, obj in bootstrap_objects():
            self._ensure_role(plural, obj)
        self.drain()

    async def run(self) -> None:
        """Look at what has changed, until cancelled."""
        sweeper = asyncio.create_task(self._sweep_events())
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._dirty:
                    self.drain(limit=_AT_ONCE)
                    await asyncio.sleep(0)
        finally:
            sweeper.cancel()

    def drain(self, limit: int | None = None) -> None:
        """Look at up to *limit* places."""
        while self._dirty and limit != 0:
            place = next(iter(self._dirty))
            del self._dirty[place]
            self._look(place)
            limit = None if limit is None else limit - 1

    def _look(self, place: Place) -> None:
        table, key = place
        try:
            if table in self._kinds:
                self._kinds[table](key)
            self._collector.look(place)
        except ApiError as error:
            self._log.warning("controller refused", table="/".join(table), key="/".join(key), error=error.message)
        except Exception:  # noqa: BLE001 - a bug in one place must not stop the others
            self._log.exception("controller failed", table="/".join(table), key="/".join(key))

    def _enqueue(self, place: Place) -> None:
        self._dirty[place] = None
        self._wake.set()

    def _on_change(self, table: TableKey, change: Change) -> None:
        if table == crds.TABLE:
            gone = change.type == "DELETED"
            old = change.old.obj if change.old is not None else None
            crds.serve(self._cluster.registry, None if gone else change.new.obj, old=old)
        self._collector.on_change(table, change)
        if table in self._kinds and change.type != "DELETED":
            self._enqueue((table, change.new.key))
        if table == ROLES:
            self._enqueue_aggregates()
        if change.type == "DELETED":
            self._enqueue_containers(table, change)

    def _enqueue_aggregates(self) -> None:
        for key, stored in self._cluster.store.table(ROLES).rows.items():
            if stored.obj.get("aggregationRule"):
                self._enqueue((ROLES, key))

    def _enqueue_containers(self, table: TableKey, change: Change) -> None:
        """Something is gone: its namespace, its CRD, or a default of its namespace may be waiting for that."""
        if change.new.key[0]:
            self._enqueue((NAMESPACES, ("", change.new.key[0])))
        if table == crds.TABLE:
            self._cluster.store.wake_all()
            for key in self._cluster.store.table(table).rows:
                self._enqueue((table, key))
        self._enqueue((crds.TABLE, ("", f"{table[1]}.{table[0]}")))

    def _resource(self, api_version: str, kind: str) -> Resource:
        resource = self._cluster.registry.of_kind(api_version, kind)
        if resource is None:
            message = f"{api_version} {kind} is not served"
            raise LookupError(message)
        return resource

    def _ensure(self, api_version: str, kind: str, obj: Json) -> None:
        """Create the object unless it is there."""
        resource = self._resource(api_version, kind)
        metadata = obj["metadata"]
        if self._cluster.get(resource, metadata.get("namespace", ""), metadata["name"]) is None:
            fresh = orjson.loads(orjson.dumps({**obj, "apiVersion": api_version, "kind": kind}))
            create(self._cluster, resource, fresh, options=WriteOptions())

    def _ensure_role(self, plural: str, obj: Json) -> None:
        """Create a role or binding of ours, or bring its rules to those of this version."""
        stored = self._cluster.store.get((RBAC, plural), "", obj["metadata"]["name"])
        if stored is None:
            self._ensure(obj["apiVersion"], obj["kind"], obj)
        elif obj.get("rules"):
            resource = self._resource(obj["apiVersion"], obj["kind"])
            amend(self._cluster, resource, stored, lambda role: role.update(rules=obj["rules"]))

    def _look_at_namespace(self, key: Key) -> None:
        stored = self._cluster.store.table(NAMESPACES).rows.get(key)
        if stored is None:
            return
        name = key[1]
        if stored.obj["metadata"].get("deletionTimestamp"):
            self._empty_namespace(name)
            return
        self._ensure("v1", "ServiceAccount", {"metadata": {"name": "default", "namespace": name}})
        certificate = {
            "metadata": {
                "name": "kube-root-ca.crt",
                "namespace": name,
                "annotations": {"kubernetes.io/description": _CA_DESCRIPTION},
            },
            "data": {"ca.crt": self._cluster.ca_pem},
        }
        self._ensure("v1", "ConfigMap", certificate)

    def _empty_namespace(self, name: str) -> None:
        """Delete everything in the namespace; once nothing is left, let the namespace go."""
        for table, rows in self._cluster.store.tables():
            resource = self._cluster.registry.stored_in(table)
            if resource is not None and resource.namespaced:
                self._delete_all(resource, list(rows.select(name)))
        if any(rows.holds(name) for table, rows in self._cluster.store.tables()):
            return
        namespace = self._cluster.store.get(NAMESPACES, "", name)
        if namespace is not None:
            amend(self._cluster, self._resource("v1", "Namespace"), namespace, _finalized)

    def _delete_all(self, resource: Resource, objects: list[Stored]) -> None:
        for stored in objects:
            if not stored.obj["metadata"].get("deletionTimestamp"):
                delete(self._cluster, resource, stored, DeleteOptions(policy="Background"))

    def _look_at_crd(self, key: Key) -> None:
        stored = self._cluster.store.table(crds.TABLE).rows.get(key)
        if stored is None:
            return
        metadata, spec = stored.obj["metadata"], stored.obj["spec"]
        kind = self._resource("apiextensions.k8s.io/v1", "CustomResourceDefinition")
        if not metadata.get("deletionTimestamp"):
            others, now = crds.all_crds(self._cluster), self._cluster.now()
            amend(self._cluster, kind, stored, lambda crd: crds.refresh(crd, stored.obj, others=others, now=now))
            return
        if crds.CLEANUP not in (metadata.get("finalizers") or []):
            return
        table = (spec["group"], spec["names"]["plural"])
        resource = self._cluster.registry.stored_in(table)
        if resource is not None:
            self._delete_all(resource, list(self._cluster.store.table(table).rows.values()))
        if not self._cluster.store.table(table).rows:
            amend(self._cluster, kind, stored, _cleaned_up)

    def _look_at_role(self, key: Key) -> None:
        stored = self._cluster.store.table(ROLES).rows.get(key)
        if stored is not None and stored.obj.get("aggregationRule"):
            rules = aggregated_rules(self._cluster, stored.obj)
            kind = self._resource(f"{RBAC}/v1", "ClusterRole")
            amend(self._cluster, kind, stored, lambda obj: obj.update(rules=rules))

    def _look_at_secret(self, key: Key) -> None:
        """Fill a secret of type service-account-token, or delete it when its account is gone."""
        stored = self._cluster.store.table(("", "secrets")).rows.get(key)
        if stored is None or stored.obj.get("type") != "kubernetes.io/service-account-token":
            return
        name = (stored.obj["metadata"].get("annotations") or {}).get("kubernetes.io/service-account.name", "")
        account = self._cluster.store.get(("", "serviceaccounts"), key[0], name)
        if account is None or (stored.obj.get("data") or {}).get("token"):
            return
        bound = {"kind": "Secret", "name": key[1], "uid": stored.uid}
        token = self._cluster.tokens.issue(account, bound, audiences=[AUDIENCE], lifetime=None)
        values = {"ca.crt": self._cluster.ca_pem, "namespace": key[0], "token": token}
        data = {field: base64.b64encode(value.encode()).decode() for field, value in values.items()}
        amend(self._cluster, self._resource("v1", "Secret"), stored, lambda obj: obj.update(data=data))

    async def _sweep_events(self) -> None:
        while True:
            await self._cluster.clock.sleep(_SWEEP_SECONDS)
            self.sweep_events()

    def sweep_events(self) -> None:
        """Delete events that nobody needs any more."""
        oldest = self._cluster.clock.now() - EVENT_LIFETIME
        for stored in list(self._cluster.store.table(EVENTS).rows.values()):
            times = (stored.obj.get("lastTimestamp"), (stored.obj.get("series") or {}).get("lastObservedTime"))
            seen = max(filter(None, (*times, stored.obj["metadata"]["creationTimestamp"])))
            if parse_time(seen) < oldest:
                self._cluster.store.delete(EVENTS, stored)


def aggregated_rules(cluster: Cluster, role: Json) -> list[Json]:
    """Return the rules of every role that the aggregation rule selects, each once."""
    selectors = [requirements_of(each) for each in role["aggregationRule"].get("clusterRoleSelectors") or []]
    rules: list[Json] = []
    for stored in cluster.store.table(ROLES).select(""):
        labels = stored.obj["metadata"].get("labels") or {}
        chosen = any(all(term.matches(labels) for term in selector) for selector in selectors)
        if chosen and stored.obj["metadata"]["name"] != role["metadata"]["name"]:
            rules += [rule for rule in stored.obj.get("rules") or [] if rule not in rules]
    return rules


def _finalized(namespace: Json) -> None:
    namespace["spec"]["finalizers"] = [
        name for name in namespace["spec"].get("finalizers") or [] if name != "kubernetes"
    ]


def _cleaned_up(crd: Json) -> None:
    crd["metadata"]["finalizers"] = [name for name in crd["metadata"]["finalizers"] if name != crds.CLEANUP]
