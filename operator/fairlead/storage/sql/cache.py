"""Results of nodes that later runs of the same namespace may use."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import bindparam, delete, select

from fairlead.storage.base import CacheEntry
from fairlead.storage.sql.rows import build, columns, values
from fairlead.storage.sql.tables import cache, runs
from fairlead.storage.sql.transaction import Transaction

_GET = select(*columns(cache, CacheEntry)).where(
    cache.c.cluster == bindparam("cluster"),
    cache.c.namespace == bindparam("namespace"),
    cache.c.digest == bindparam("digest"),
    cache.c.expires_at > bindparam("at"),
)
_DROP = delete(cache).where(cache.c.expires_at <= bindparam("at"))
_PLACE = select(runs.c.cluster, runs.c.namespace).where(runs.c.uid == bindparam("uid"))


def keep(tx: Transaction, run_uid: str, entries: Iterable[CacheEntry]) -> None:
    """Keep results of a run; the latest of a digest counts."""
    by_digest = {entry.digest: entry for entry in entries}
    place = tx.first(_PLACE, {"uid": run_uid}) if by_digest else None
    if place is None:
        return
    where = {"cluster": place.cluster, "namespace": place.namespace}
    tx.upsert(cache, [where | values(by_digest[digest]) for digest in sorted(by_digest)])


def get(tx: Transaction, cluster: str, namespace: str, *, digest: str, at: datetime) -> CacheEntry | None:
    """Return what is kept and has not expired."""
    row = tx.first(_GET, {"cluster": cluster, "namespace": namespace, "digest": digest, "at": at})
    return None if row is None else build(CacheEntry, row)


def drop_expired(tx: Transaction, *, at: datetime) -> int:
    """Delete what has expired."""
    return tx.run(_DROP, {"at": at})
