"""Sessions: the pods that registered."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, insert, select

from fairlead.storage.base import AgentSession
from fairlead.storage.sql import tasks
from fairlead.storage.sql.rows import build, columns, values
from fairlead.storage.sql.tables import sessions
from fairlead.storage.sql.transaction import Transaction

_SESSION = select(*columns(sessions, AgentSession)).where(sessions.c.revoked.is_(False))
_BY_TOKEN = _SESSION.where(sessions.c.token_digest == bindparam("token_digest"))
_ALL = _SESSION.where(sessions.c.cluster == bindparam("cluster")).order_by(sessions.c.created_at, sessions.c.id)
_ADD = insert(sessions)


def register(tx: Transaction, session: AgentSession, *, at: datetime) -> None:
    """Add a session in place of the pod's earlier ones."""
    tasks.requeue_pod(tx, session.pod_uid, at=at)
    tx.run(_ADD, values(session))
    announce(tx, session)


def announce(tx: Transaction, session: AgentSession) -> None:
    """Say that a pod came or went: to who cares for its Agent, or for the run that it exists for."""
    _, namespace, kind, name = session.pool.rsplit("/", 3)
    if kind == "agent":
        tx.announce("agent", f"{namespace}/{name}")
    else:
        tx.announce("run", name)


def lose_pod(tx: Transaction, pod_uid: str, *, at: datetime) -> list[str]:
    """Take a pod's tasks and sessions."""
    gone = [build(AgentSession, row) for row in tx.all(_SESSION.where(sessions.c.pod_uid == pod_uid))]
    requeued = tasks.requeue_pod(tx, pod_uid, at=at)
    for session in gone:
        announce(tx, session)
    return requeued


def get(tx: Transaction, token_digest: str) -> AgentSession | None:
    """Return the session of a token."""
    row = tx.first(_BY_TOKEN, {"token_digest": token_digest})
    return None if row is None else build(AgentSession, row)


def list_sessions(tx: Transaction, cluster: str) -> list[AgentSession]:
    """Return the sessions that are not revoked."""
    return [build(AgentSession, row) for row in tx.all(_ALL, {"cluster": cluster})]
