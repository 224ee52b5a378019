"""The state that every part of the server works on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairlead.clock import Clock
from fairlead.localcluster.apiserver.errors import Json
from fairlead.localcluster.apiserver.rbac import Authorizer
from fairlead.localcluster.apiserver.requests import User
from fairlead.localcluster.apiserver.resources import Registry, Resource
from fairlead.localcluster.apiserver.store import Store, Stored
from fairlead.localcluster.apiserver.times import now_text
from fairlead.localcluster.apiserver.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One server's parts."""

    store: Store
    registry: Registry
    authorizer: Authorizer
    tokens: Tokens
    clock: Clock
    ca_pem: str
    static_users: Mapping[str, User]
    """Who the data folder's own tokens stand for."""
    pod_log_dir: Path | None = None
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> str:
        """Return the present second in RFC 3339."""
        return now_text(self.clock)

    def get(self, resource: Resource, namespace: str, name: str) -> Stored | None:
        """Return the stored object, or None."""
        return self.store.get(resource.table, namespace, name)

    def core(self, plural: str, namespace: str, name: str) -> Json | None:
        """Return an object of the core group, or None."""
        stored = self.store.get(("", plural), namespace, name)
        return stored.obj if stored else None
