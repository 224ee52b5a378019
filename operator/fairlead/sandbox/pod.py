"""Sandboxes that are pods of a cluster: for each job one pod and one Secret, in a namespace where nothing else is.

The job comes in through the Secret, the result out through the pod's log: nobody needs ``pods/exec``. What a pod may
reach is nothing (the namespace has a NetworkPolicy that denies everything), and how far its kernel is from the node's
is the cluster's choice (``runtimeClassName``: gVisor, Kata). There are no warm ones, and no network for programs.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fairlead.clock import Clock
from fairlead.errors import FairleadError, RetryableError
from fairlead.sandbox import runner
from fairlead.sandbox.base import Ended, Job, JobRefused, Limits, Result, Sandbox, SandboxBroken
from fairlead.sandbox.jobs import (
    READY,
    RUNNER_BYTES,
    Inside,
    check_job,
    max_result,
    no_result,
    parse_result,
    parse_size,
    to_frame,
)
from fairlead.sandbox.owners import own_id

Object = dict[str, Any]

LABEL: Final = "fairlead.dev/sandbox"
SELECTOR: Final = f"{LABEL}=job"
UNTIL: Final = "fairlead.dev/sandbox-until"
"""Annotation: the second, since 1970 by this gateway's clock, after which anybody may remove it."""
USER: Final = 10001
_LABELS: Final = {LABEL: "job", "app.kubernetes.io/managed-by": "fairlead-gateway"}
_LOOK_SECONDS: Final = 0.5
_START_SECONDS: Final = 120
_SWEEP_SECONDS: Final = 60
_MAX_SECRET: Final = 1 << 20
_MAX_DISK: Final = 1 << 30
"""Bytes: a program may write as much into its termination log, too, which is a file of the node."""
_POLICY: Final = "sandboxes"
_WAITING: Final = frozenset({
    "ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError",
})  # fmt: skip
_NEVER_RAN: Final = frozenset({"StartError", "ContainerCannotRun", "ContainerStatusUnknown"})
"""What a kubelet says of a container that it could not start, or lost."""
_OWN_FAULT: Final = frozenset({"DeadlineExceeded", "Evicted"})
"""Why a pod was ended whose program may have used more than it should."""


class PodApi(Protocol):
    """What this back end asks of a cluster, in the namespace of the sandboxes; kinds are Pod and Secret.

    A NetworkPolicy is only read.
    """

    async def create(self, obj: Object) -> Object:
        """Create an object and return it."""

    async def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None."""

    async def list(self, kind: str, labels: str) -> list[Object]:
        """Return the objects that a label selector chooses."""

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object; it is no error if it is gone."""

    async def log(self, pod_name: str, limit_bytes: int) -> bytes:
        """Return the first bytes of what a pod's only container wrote."""


@dataclass(frozen=True, slots=True)
class PodShape:
    """What the pods are made of."""

    image: str
    namespace: str
    runtime_class: str = ""
    fixed_user: bool = True
    """Whether they run as `USER`; else as whom the cluster says, which has to be in a group that `fsGroup` names."""


class PodSandbox(Sandbox):
    """Runs each job in a pod of its own."""

    name = "pod"

    def __init__(self, pods: PodApi, shape: PodShape, *, parallel: int, clock: Clock) -> None:
        self._pods = pods
        self._shape = shape
        self._room = asyncio.Semaphore(parallel)
        self._clock = clock
        self._closing: set[asyncio.Task[None]] = set()
        self._asked: asyncio.Task[str | None] | None = None
        self._swept = clock.monotonic()

    async def unavailable(self) -> str | None:
        """Ask the cluster, once, whether this may be done and is closed in; remove what nobody waits for any more."""
        if self._asked is None:
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)

    async def _ask(self) -> str | None:
        try:
            await self._remove_leftovers()
            policy = await self._pods.get("NetworkPolicy", _POLICY)
        except RetryableError as error:
            self._asked = None  # ask again, the next time
            return f"the cluster does not answer: {error}"
        except FairleadError as error:
            return f"the gateway may not make pods in the namespace {self._shape.namespace}: {error}"
        if policy is None or not denies_egress(policy):
            return (
                f"in the namespace {self._shape.namespace} no NetworkPolicy {_POLICY} keeps all pods from reaching "
                "anything: kubectl apply -f manifests/base/sandboxes.yaml"
            )
        return None

    def _sweep(self) -> None:
        """Remove, in the background, what others left and nobody waits for any more; now and then."""
        if self._clock.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = self._clock.monotonic()
            self._spawn(self._remove_leftovers())

    async def _remove_leftovers(self) -> None:
        for kind in ("Pod", "Secret"):
            for found in await self._pods.list(kind, SELECTOR):
                until = (found["metadata"].get("annotations") or {}).get(UNTIL, "")
                if not until.isdigit() or int(until) < self._now():
                    await self._pods.delete(kind, found["metadata"]["name"])

    async def run(self, job: Job) -> Result:
        """Make the pod, wait for its end, read its log, remove it."""
        check_job(job)
        if job.network:
            raise JobRefused("network: sandboxes that are pods have none: use the back end docker or bubblewrap for it")
        if job.limits.disk_bytes > _MAX_DISK:
            raise JobRefused(f"limits.diskMiB: sandboxes that are pods have at most {_MAX_DISK >> 20}")
        frame = to_frame(job, Inside())
        if len(frame) > _MAX_SECRET * 3 // 4:
            raise JobRefused("the job is larger than what a Secret can hold: a pod's files and inputs end at 700 KiB")
        self._sweep()
        async with self._room:
            name = f"sandbox-{secrets.token_hex(8)}"
            try:
                return await self._run(name, frame, job.limits)
            except RetryableError as error:
                raise SandboxBroken(f"the cluster did not run the sandbox: {error}") from error
            finally:
                await self._remove(name)

    async def _run(self, name: str, frame: bytes, limits: Limits) -> Result:
        until = int(self._now() + limits.wall_seconds + _START_SECONDS + 60)
        for obj in (build_secret(self._shape, name, frame, until), build_pod(self._shape, name, limits, until)):
            await self._pods.create(obj)
        try:
            async with asyncio.timeout(limits.wall_seconds + _START_SECONDS):
                pod = await self._ended(name)
        except TimeoutError:
            return over_time(await self._pods.get("Pod", name) or {}, limits)
        if lost := never_began(pod):
            raise SandboxBroken(f"the sandbox's pod did not run: {lost}")
        return parse_log(await self._pods.log(name, max_result(limits) + 100), pod, limits)

    async def _ended(self, name: str) -> Object:
        while True:
            try:
                pod = await self._pods.get("Pod", name)
            except RetryableError:  # the program runs on: look again, until its time is up
                await self._clock.sleep(_LOOK_SECONDS)
                continue
            if pod is None:
                raise SandboxBroken("the sandbox's pod was deleted by somebody else")
            if _status(pod).get("phase") in {"Succeeded", "Failed"}:
                return pod
            problem = waiting_for(pod)
            if problem:
                raise SandboxBroken(f"the sandbox's pod does not start: {problem}")
            await self._clock.sleep(_LOOK_SECONDS)

    async def _remove(self, name: str) -> None:
        """Delete both, even if whoever asked is cancelled meanwhile."""
        await asyncio.shield(self._spawn(self._delete(name)))

    async def _delete(self, name: str) -> None:
        for kind in ("Pod", "Secret"):
            with suppress(FairleadError):  # its time is written on it: what is left now goes later
                await self._pods.delete(kind, name)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_quietly(work))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def _now(self) -> float:
        return self._clock.now().timestamp()

    async def aclose(self) -> None:
        """Wait for what is being deleted."""
        await asyncio.gather(*self._closing, return_exceptions=True)


async def _quietly(work: Coroutine[None, None, None]) -> None:
    with suppress(FairleadError):  # what the cluster does not remove now goes with the next sweep
        await work


def denies_egress(policy: Object) -> bool:
    """Return whether a NetworkPolicy keeps every pod of its namespace from reaching anything."""
    spec = policy.get("spec") or {}
    everybody = not any((spec.get("podSelector") or {}).values())
    return everybody and "Egress" in (spec.get("policyTypes") or ()) and not spec.get("egress")


def waiting_for(pod: Object) -> str:
    """Return why a pod's container will not start, or nothing."""
    for status in _status(pod).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _WAITING:
            return f"{waiting['reason']}: {waiting.get('message', '')}"[:500]
    return ""


def over_time(pod: Object, limits: Limits) -> Result:
    """Return that a program ran for too long.

    Raises:
        SandboxBroken: it never ran: no node had room for it, or its image took too long.
    """
    states = [each.get("state") or {} for each in _status(pod).get("containerStatuses") or ()]
    if not any("running" in state or "terminated" in state for state in states):
        unmet = (each for each in _status(pod).get("conditions") or () if each.get("status") == "False")
        why = next((_words(each) for each in unmet if each.get("reason")), "no further words")
        raise SandboxBroken(f"the sandbox's pod did not start within {_START_SECONDS} s: {why}")
    return Result(ended=Ended.TIMEOUT, message=f"it ran for more than {limits.wall_seconds:g} s")


def never_began(pod: Object) -> str:
    """Return why a pod is over without having run its program, or nothing: it may have."""
    status = _status(pod)
    ends = [(each.get("state") or {}).get("terminated") or {} for each in status.get("containerStatuses") or ()]
    if any(end and (end.get("reason") not in _NEVER_RAN or status.get("reason") in _OWN_FAULT) for end in ends):
        return ""
    return _words(next((end for end in ends if end), status))


def _words(about: Object) -> str:
    return f"{about.get('reason') or 'no container was started'}: {about.get('message') or 'no further words'}"[:500]


def _status(pod: Object) -> Object:
    found: Object = pod.get("status") or {}
    return found


def parse_log(text: bytes, pod: Object, limits: Limits) -> Result:
    """Return what a pod's log and its end say of the program: pure.

    Raises:
        SandboxBroken: the program was not what ended it, or the runner says that it could not begin.
    """
    ready, _, rest = text.partition(READY)
    header, newline, body = rest.partition(b"\n")
    try:
        size = parse_size(header + newline, limits)
    except ValueError as error:
        return _without_result(pod, limits) or no_result(error)
    if ready or len(body) < size:
        return _without_result(pod, limits) or no_result("it is not complete")
    return parse_result(body[:size], limits)


def _without_result(pod: Object, limits: Limits) -> Result | None:
    status = _status(pod)
    if status.get("reason") == "DeadlineExceeded":
        return Result(ended=Ended.TIMEOUT, message=f"it ran for more than {limits.wall_seconds:g} s")
    if status.get("reason") == "Evicted":
        return Result(ended=Ended.KILLED, message=f"the node evicted it: {status.get('message', '')}"[:500])
    for each in status.get("containerStatuses") or ():
        if ((each.get("state") or {}).get("terminated") or {}).get("reason") == "OOMKilled":
            return Result(ended=Ended.MEMORY, message=f"it used more than {limits.memory_bytes >> 20} MiB of memory")
    if status.get("reason"):  # its node was shut down, for one
        raise SandboxBroken(f"the sandbox's pod was ended: {_words(status)}")
    return None


def _metadata(shape: PodShape, name: str, until: int) -> Object:
    annotations = {UNTIL: str(until), "fairlead.dev/sandbox-owner": own_id()}
    return {"name": name, "namespace": shape.namespace, "labels": dict(_LABELS), "annotations": annotations}


def build_secret(shape: PodShape, name: str, frame: bytes, until: int) -> Object:
    """Return the Secret that carries a job into its pod."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(shape, name, until),
        "type": "Opaque",
        "immutable": True,
        "data": {"job": base64.b64encode(frame).decode()},
    }


def build_pod(shape: PodShape, name: str, limits: Limits, until: int) -> Object:
    """Return the pod of a job; it satisfies Pod Security "restricted", and more."""
    user = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER} if shape.fixed_user else {}
    spec: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": int(limits.wall_seconds) + _START_SECONDS,
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {
            "runAsNonRoot": True,
            **user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(shape, limits)],
        "volumes": [
            {"name": "job", "secret": {"secretName": name, "defaultMode": 0o440}},
            {"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": str(limits.disk_bytes)}},
        ],
    }
    if shape.runtime_class:
        spec["runtimeClassName"] = shape.runtime_class
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(shape, name, until), "spec": spec}


def _container(shape: PodShape, limits: Limits) -> Object:
    memory = str(limits.memory_bytes + RUNNER_BYTES + limits.disk_bytes)
    return {
        "name": "program",
        "image": shape.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["--job", "/job/job"],
        "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi", "ephemeral-storage": "1Mi"},
            "limits": {"cpu": "1", "memory": memory, "ephemeral-storage": "16Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "job", "mountPath": "/job", "readOnly": True},
            {"name": "work", "mountPath": runner.WORK},
        ],
    }


def build_network_policy(shape: PodShape) -> Object:
    """Return the policy that keeps the sandboxes' namespace from reaching, and being reached by, anything."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": _POLICY, "namespace": shape.namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []},
    }
