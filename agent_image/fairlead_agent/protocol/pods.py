"""A pod's own messages: it registers, beats and claims."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead_agent.protocol.base import MAX_TASKS, PROTOCOL, Count, Wire


class Register(Wire):
    """An agent pod says what it is."""

    protocol: Count = PROTOCOL
    version: str
    """The version of `fairlead_agent` in the pod."""
    capabilities: Annotated[tuple[str, ...], Field(max_length=MAX_TASKS)] = ()
    """The node actions that it can run: ``llm``, ``tool`` …"""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 1


class Session(Wire):
    """What `register` answers."""

    session: str
    """The bearer token of everything that follows. Secret; valid until the lease is lost or the pod registers again."""
    pod: str
    pool: str
    heartbeat_seconds: float
    lease_duration_seconds: float
    once: bool = False
    """The pod exists for one run: exit 0 when its task is finished or parked."""


class Heartbeat(Wire):
    """Sent every `Session.heartbeat_seconds`, by a thread that does nothing else."""

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_TASKS)] = ()


class HeartbeatReply(Wire):
    """What the pod should do about its tasks."""

    cancel: tuple[str, ...] = ()
    """Tasks to end with `State.CANCELLED`: the run was stopped or deleted."""
    lost: tuple[str, ...] = ()
    """Tasks that are no longer this pod's: drop them without another word."""
    suspend: tuple[str, ...] = ()
    """Tasks whose run is suspended: start nothing more, let what runs finish, then park until `RESUME` comes."""
    drain: bool = False
    """Claim nothing more, finish what runs."""


class Claim(Wire):
    """Ask for work; only as much as there is room for."""

    limit: Annotated[int, Field(ge=1, le=100)] = 1
    wait_seconds: Annotated[float, Field(ge=0, le=30)] = 20
