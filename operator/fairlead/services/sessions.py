"""Agent pods: how they register, stay known by their Leases, and take work."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.conditions import EventReason
from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.actions import owner_of
from fairlead.core.leases import wants_drain
from fairlead.core.manifests import build_event
from fairlead.errors import Conflict, FairleadError, Refused, RetryableError, TerminalError
from fairlead.kube import KubeClient, Ref
from fairlead.logs import get_logger
from fairlead.services.leases import UNWRITTEN, build_lease, describe_agent, lease_ref, renewal, take_over
from fairlead.services.tasks import Tasks
from fairlead.services.wakeups import Wakeups
from fairlead.storage.base import AgentSession, Claimed, Event, Fence, Fenced, Storage
from fairlead_agent.protocol import PROTOCOL, Claim, Heartbeat, HeartbeatReply, Register, Session

_log = get_logger(__name__)
_REPORTER: Final = "fairlead-gateway"
_DEFAULT_LEASE_SECONDS: Final = 15
_MIN_LEASE_SECONDS: Final = 3
_MAX_LEASE_DIGITS: Final = 5
_BEATS_PER_LEASE: Final = 3
_LOOK_AGAIN_SECONDS: Final = 5.0
_FORGOTTEN_AFTER_BEATS: Final = 2
_LATE_SECONDS: Final = 0.5
"""What writing a Lease may take before the operator is told of the heartbeat: short ones are renewed each second."""
TOPIC: Final = "queue"
_TRUST_SECONDS: Final = 2.0
_KEPT: Final = 4096
_DEAD_PHASES: Final = frozenset({"Succeeded", "Failed"})


class Unauthenticated(TerminalError):
    """Whoever asks has not shown who it is."""

    reason = "Unauthenticated"


class UnknownProtocol(TerminalError):
    """The agent speaks another version of the wire contract."""

    reason = "UnknownProtocol"


@dataclass(frozen=True, slots=True)
class Pool:
    """Whose work a pod does."""

    key: str
    labels: Mapping[str, str]
    """Of the Lease."""
    event: Event
    once: bool = False


def pool_of(pod: Mapping[str, Any], cluster: str) -> Pool:
    """Return the pool that a pod belongs to, from its labels.

    Raises:
        Refused: it is no agent pod.
    """
    meta = pod["metadata"]
    namespace = meta["namespace"]
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    run_uid = annotations.get(names.POOL_ANNOTATION, "")
    if names.RUN_LABEL in labels and run_uid:
        shown = {names.RUN_LABEL: labels[names.RUN_LABEL]}
        return Pool(names.run_pool(cluster, namespace, run_uid), shown, Event("run", run_uid), once=True)
    agent = labels.get(names.AGENT_LABEL, "")
    if agent:
        event = Event("agent", f"{namespace}/{agent}")
        return Pool(names.agent_pool(cluster, namespace, agent), {names.AGENT_LABEL: agent}, event)
    raise Refused(f"pod {namespace}/{meta['name']} has no label {names.AGENT_LABEL}: it is no agent pod")


def token_digest(token: str) -> str:
    """Return what is kept of a session's token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Sessions:
    """Registers pods, keeps their Leases, and hands out tasks."""

    def __init__(
        self, storage: Storage, kube: KubeClient, clock: Clock, *, cluster: str, tasks: Tasks, wakeups: Wakeups
    ) -> None:
        self._storage = storage
        self._kube = kube
        self._clock = clock
        self._cluster = cluster
        self._tasks = tasks
        self._wakeups = wakeups
        self._unclaimed: dict[tuple[str, str, int], int] = {}
        self._recognised: OrderedDict[str, tuple[AgentSession, float]] = OrderedDict()
        self.closing = False
        """Set while the process ends: nothing more is handed out."""

    async def register(self, token: str, request: Register) -> Session:
        """Check who the pod is, make its Lease, and give it a session.

        Raises:
            Unauthenticated: the token is not that of a live pod.
            Refused: the pod is no agent pod.
            UnknownProtocol: it speaks another version.
        """
        if request.protocol != PROTOCOL:
            raise UnknownProtocol(
                f"the gateway speaks protocol {PROTOCOL}, the agent {request.protocol}: use the image of its version"
            )
        pod = await self._live_pod(token)
        pool = pool_of(pod, self._cluster)
        seconds = _lease_seconds(pod)
        secret = secrets.token_urlsafe(32)
        session = self._build_session(pod, pool, request, digest=token_digest(secret))
        await self._write_lease(pod, pool, session)
        await self._storage.register(session, at=self._clock.now())
        await self._storage.publish(pool.event)
        await self._tell(pod, session)
        _log.info("agent_registered", namespace=session.namespace, pod=session.pod, pool=pool.key, session=session.id)
        return Session(
            session=secret,
            pod=session.pod,
            pool=pool.key,
            heartbeat_seconds=seconds / _BEATS_PER_LEASE,
            lease_duration_seconds=seconds,
            once=pool.once,
        )

    async def authenticate(self, token: str) -> AgentSession:
        """Return the session of a bearer token.

        Raises:
            Unauthenticated: it is not known, or revoked.
        """
        session = await self._storage.get_session(token_digest(token)) if token else None
        if session is None:
            raise Unauthenticated("the session is over: register again", reason="SessionExpired")
        return session

    async def recognise(self, token: str) -> AgentSession:
        """Return the session of a bearer token, as it was a moment ago: for requests that storage fences anyway.

        Raises:
            Unauthenticated: it was not known, or revoked.
        """
        digest = token_digest(token)
        known = self._recognised.get(digest)
        if known is not None and known[1] > self._clock.monotonic():
            return known[0]
        session = await self.authenticate(token)
        self._recognised[digest] = session, self._clock.monotonic() + _TRUST_SECONDS
        while len(self._recognised) > _KEPT:
            self._recognised.popitem(last=False)
        return session

    async def heartbeat(self, session: AgentSession, request: Heartbeat) -> HeartbeatReply:
        """Renew the pod's Lease and say what it should do about its tasks.

        A turn is not cancelled with its run, which may still need an agent for its ``finally``: whoever asked for it
        ends it, and with the run's end it is lost.
        """
        drain = await self._renew(session)
        held = [task for task in await self._storage.tasks_of_pod(session.pod_uid) if task.session == session.id]
        runs = {run.uid: run for run in await self._storage.get_runs([task.run_uid for task in held])}
        mine = {task.id for task in held}
        await self._give_back_unclaimed(session, {task.id: task.attempt for task in held}, set(request.tasks))
        return HeartbeatReply(
            cancel=tuple(t.id for t in held if t.kind == "run" and t.run_uid in runs and runs[t.run_uid].cancel_reason),
            lost=tuple(task for task in request.tasks if task not in mine),
            suspend=tuple(t.id for t in held if t.run_uid in runs and runs[t.run_uid].suspended),
            drain=drain,
        )

    async def claim(
        self, session: AgentSession, request: Claim, *, gone: Callable[[], Awaitable[bool]]
    ) -> list[Claimed]:
        """Take up to as many tasks as asked for; wait for the first one, but no longer than asked.

        *gone* says whether the asker has hung up: what it would be given then, would be lost.
        """
        deadline = self._clock.monotonic() + request.wait_seconds
        while True:
            armed = self._wakeups.arm(TOPIC, session.pool)
            try:
                if self.closing or await gone():
                    return []
                claimed = await self._storage.claim(session, limit=request.limit, at=self._clock.now())
                left = deadline - self._clock.monotonic()
                if claimed or left <= 0:
                    return await self._hand_out(session, claimed, gone=gone)
                await asyncio.wait((armed,), timeout=min(left, _LOOK_AGAIN_SECONDS))
            finally:
                self._wakeups.disarm(armed, TOPIC, key=session.pool)

    async def release(self, fence: Fence, *, reason: str) -> None:
        """Take a task back from a pod.

        Raises:
            Fenced: the claim is over.
        """
        await self._storage.release(fence, at=self._clock.now())
        _log.info("task_released", task=fence.task_id, attempt=fence.attempt, reason=reason[:64])

    async def take_back(self, session: AgentSession, claimed: Sequence[Claimed], *, lost: str = "") -> None:
        """Put tasks back that the pod will not hear of. With the task *lost*, if it is among them, something is wrong.

        Its attempt counts, so that it does not go round for ever.
        """
        for one in claimed:
            await self._release(Fence(one.task.id, session.id, one.task.attempt), lost=one.task.id == lost)

    async def _hand_out(
        self, session: AgentSession, claimed: list[Claimed], *, gone: Callable[[], Awaitable[bool]]
    ) -> list[Claimed]:
        if claimed and await gone():
            await self.take_back(session, claimed)
            return []
        for one in claimed:
            fence = Fence(one.task.id, session.id, one.task.attempt)
            self._tasks.remember(fence, one.task, one.run, document=one.revision.document)
            _log.info(
                "task_claimed",
                task=one.task.id,
                attempt=one.task.attempt,
                namespace=one.run.namespace,
                name=one.run.name,
                uid=one.run.uid,
            )
        return claimed

    async def _live_pod(self, token: str) -> dict[str, Any]:
        identity = await self._kube.review_token(token, audiences=(names.AUDIENCE,)) if token else None
        if identity is None:
            raise Unauthenticated(f"the token is not valid for the audience {names.AUDIENCE}")
        namespace, _ = identity.service_account
        if not namespace or not identity.pod_name:
            raise Unauthenticated("the token is not bound to a pod: use a projected service account token")
        pod = await self._kube.get(Ref("v1", "Pod", identity.pod_name, namespace))
        if pod is None or pod["metadata"].get("uid") != identity.pod_uid:
            raise Unauthenticated(f"pod {namespace}/{identity.pod_name} of this token is gone")
        ending = pod["metadata"].get("deletionTimestamp") or (pod.get("status") or {}).get("phase") in _DEAD_PHASES
        if ending:
            raise Unauthenticated(f"pod {namespace}/{identity.pod_name} is ending")
        return pod

    def _build_session(self, pod: Mapping[str, Any], pool: Pool, request: Register, *, digest: str) -> AgentSession:
        meta = pod["metadata"]
        return AgentSession(
            id=secrets.token_hex(8),
            token_digest=digest,
            cluster=self._cluster,
            namespace=meta["namespace"],
            pod=meta["name"],
            pod_uid=meta["uid"],
            pool=pool.key,
            concurrency=request.concurrency,
            version=request.version[:64],
            capabilities=tuple(request.capabilities[:64]),
            created_at=self._clock.now(),
        )

    async def _tell(self, pod: Mapping[str, Any], session: AgentSession) -> None:
        """Write the Event of a registration; that it cannot be written stops nothing."""
        does = f"version {session.version}, {session.concurrency} tasks at once, session {session.id}"
        event = build_event(
            owner_of(pod) or pod,
            reason=EventReason.AGENT_REGISTERED,
            message=f"Pod {session.pod} has registered: {does}.",
            at=self._clock.now(),
            reporter=_REPORTER,
            related=pod,
        )
        try:
            await self._kube.create(event)
        except FairleadError as error:
            _log.warning("event_not_written", kind="Pod", name=session.pod, error=str(error))

    async def _write_lease(self, pod: Mapping[str, Any], pool: Pool, session: AgentSession) -> None:
        about = describe_agent(session.version, session.capabilities, capacity=1 if pool.once else session.concurrency)
        lease = build_lease(
            pod, labels=pool.labels, annotations=about, seconds=_lease_seconds(pod), now=self._clock.now()
        )
        try:
            await self._kube.create(lease)
        except Conflict:  # of an earlier container of this pod, or of an earlier pod of this name
            await self._take_lease(lease)

    async def _take_lease(self, lease: Mapping[str, Any]) -> None:
        """Take over a Lease of ours, and never one that somebody else elects a leader with."""
        ref = lease_ref(lease["metadata"]["namespace"], lease["metadata"]["name"])
        found = await self._kube.get(ref)
        labels = {} if found is None else found["metadata"].get("labels") or {}
        if found is not None and not names.PART_OF_LABELS.items() <= labels.items():
            raise Refused(f"the Lease {ref.namespace}/{ref.name} belongs to something else: give the pod another name")
        await self._kube.merge_patch(ref, take_over(lease, found or {}))

    async def _renew(self, session: AgentSession) -> bool:
        """Write the Lease; while that fails, or takes long, the pod goes on, and the operator is told that it lives."""
        ref = lease_ref(session.namespace, session.pod)
        try:
            async with self._telling_late(session):
                lease = await self._kube.merge_patch(ref, renewal(session.pod_uid, self._clock.now()))
                if lease is None:
                    await self._mend_lease(session)
        except Unauthenticated:
            raise
        except FairleadError as error:
            _log.warning("lease_not_renewed", namespace=session.namespace, pod=session.pod, error=str(error))
            await self._tell_unwritten(session)
            return False
        return lease is not None and wants_drain(lease)

    @asynccontextmanager
    async def _telling_late(self, session: AgentSession) -> AsyncIterator[None]:
        async def tell() -> None:
            await self._clock.sleep(_LATE_SECONDS)
            await self._tell_unwritten(session)

        late = asyncio.create_task(tell())
        try:
            yield
        finally:
            late.cancel()

    async def _tell_unwritten(self, session: AgentSession) -> None:
        try:
            await self._storage.publish(Event(UNWRITTEN, session.pod_uid))
        except RetryableError as error:  # the operator asks whether storage answers before it believes a silence
            _log.warning("heartbeat_not_announced", namespace=session.namespace, pod=session.pod, error=str(error))

    async def _mend_lease(self, session: AgentSession) -> None:
        """Somebody deleted the Lease; while its pod is there, it is there."""
        pod = await self._kube.get(Ref("v1", "Pod", session.pod, session.namespace))
        if pod is None or pod["metadata"].get("uid") != session.pod_uid:
            raise Unauthenticated(f"pod {session.namespace}/{session.pod} is gone", reason="SessionExpired")
        await self._write_lease(pod, pool_of(pod, self._cluster), session)

    async def _give_back_unclaimed(self, session: AgentSession, held: Mapping[str, int], known: set[str]) -> None:
        """A pod that does not know of a task it holds never got the answer to its claim, or dropped the task."""
        for key in [key for key in self._unclaimed if key[0] == session.id and held.get(key[1]) != key[2]]:
            del self._unclaimed[key]
        for task_id, attempt in held.items():
            key = (session.id, task_id, attempt)
            if task_id in known:
                self._unclaimed.pop(key, None)
                continue
            beats = self._unclaimed.get(key, 0) + 1
            self._unclaimed[key] = beats
            if beats > _FORGOTTEN_AFTER_BEATS:
                del self._unclaimed[key]
                await self._release(Fence(task_id, session.id, attempt), lost=True)

    async def _release(self, fence: Fence, *, lost: bool) -> None:
        try:
            await self._storage.release(fence, at=self._clock.now(), lost=lost)
        except Fenced:
            return
        _log.info("unclaimed_task_released", task=fence.task_id, attempt=fence.attempt, counted=lost)


def _lease_seconds(pod: Mapping[str, Any]) -> int:
    given = (pod["metadata"].get("annotations") or {}).get(names.LEASE_SECONDS_ANNOTATION, "")
    if not given.isdecimal() or len(given) > _MAX_LEASE_DIGITS:
        return _DEFAULT_LEASE_SECONDS
    return max(int(given), _MIN_LEASE_SECONDS)
