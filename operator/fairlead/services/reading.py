"""What people read of runs: who may, which run they mean, and how it is shown. camelCase, as everything on a wire."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.errors import Refused
from fairlead.kube import KubeClient, TokenIdentity
from fairlead.services.approvals import show_approval
from fairlead.services.outcomes import dollars
from fairlead.services.sessions import Unauthenticated
from fairlead.services.showing import MONEY, camel, money
from fairlead.services.traces import load_trace
from fairlead.storage.base import CallRecord, LogRecord, NodeRecord, Run, Span, Storage
from fairlead.tracing.ids import trace_id

_UID: Final = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_TRUST_SECONDS: Final = 10.0
_KEPT: Final = 1024
_FOLLOW_SECONDS: Final = 0.5
_LOG_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are meant."""

    namespace: str = ""
    workflow: str = ""
    active: bool = False
    limit: int = 100


class Readers:
    """Decides who may read the runs of a namespace, or decide about them: whoever may do so to its WorkflowRuns."""

    def __init__(self, kube: KubeClient, clock: Clock) -> None:
        self._kube = kube
        self._clock = clock
        self._granted: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def check(self, token: str, namespace: str, *, verb: str = "get") -> None:
        """Return if the bearer of *token* may do this to the runs of a namespace; a yes holds for a few seconds.

        An empty *namespace* stands for all of them.

        Raises:
            Unauthenticated: nobody is known by this token.
            Refused: somebody is, and may not.
        """
        key = (hashlib.sha256(token.encode()).hexdigest(), namespace, verb)
        if self._granted.get(key, 0.0) > self._clock.monotonic():
            return
        await self.identify(token, namespace, verb=verb)
        self._granted[key] = self._clock.monotonic() + _TRUST_SECONDS
        while len(self._granted) > _KEPT:
            self._granted.popitem(last=False)

    async def identify(self, token: str, namespace: str, *, verb: str) -> TokenIdentity:
        """Return who bears *token*, if they may do this to the namespace's runs now.

        Raises:
            Unauthenticated: nobody is known by this token.
            Refused: somebody is, and may not; or it is the token of an agent's pod, which decides nothing.
        """
        identity = await self._identify(token)
        if verb != "get" and identity.pod_name and names.AUDIENCE in identity.audiences:
            raise Refused(f"{identity.username} is an agent's pod: it may not {verb} runs", reason="Forbidden")
        allowed = await self._kube.review_access(
            identity, verb=verb, group=names.GROUP, resource="workflowruns", namespace=namespace
        )
        if not allowed:
            where = f"in namespace {namespace}" if namespace else "in all namespaces"
            raise Refused(f"{identity.username} may not {verb} workflowruns {where}", reason="Forbidden")
        return identity

    async def _identify(self, token: str) -> TokenIdentity:
        if not token:
            raise Unauthenticated("send a Kubernetes token as Authorization: Bearer")
        for audiences in ((), (names.AUDIENCE,)):
            identity = await self._kube.review_token(token, audiences=audiences)
            if identity is not None:
                return identity
        raise Unauthenticated("the token is not valid for this cluster")


class Reading:
    """Reads runs for people."""

    def __init__(self, storage: Storage, clock: Clock, *, cluster: str) -> None:
        self._storage = storage
        self._clock = clock
        self._cluster = cluster

    async def find(self, namespace: str, run: str) -> Run | None:
        """Return a run by its uid or its name: of several that had the name, the latest."""
        if _UID.match(run):
            found = await self._storage.get_run(run)
            known = found is not None and (found.cluster, found.namespace) == (self._cluster, namespace)
            return found if known else None
        return await self._storage.find_run(self._cluster, namespace, run)

    async def runs(self, asked: RunFilter) -> list[dict[str, Any]]:
        """Return the latest runs."""
        runs = await self._storage.list_runs(
            self._cluster,
            namespace=asked.namespace,
            workflow=asked.workflow,
            active=asked.active,
            limit=asked.limit,
        )
        return [show_run(run) for run in runs]

    async def show(self, run: Run) -> dict[str, Any]:
        """Return a run with its nodes and approvals."""
        return {
            **show_run(run),
            "nodes": [show_node(node) for node in await self._storage.nodes_of_run(run.uid)],
            "approvals": [show_approval(one) for one in await self._storage.approvals_of_run(run.uid)],
        }

    async def journal(self, run: Run) -> list[Mapping[str, Any]]:
        """Return the journals of a run's tasks, its own and those of agents' turns, one after the other."""
        tasks = await self._storage.tasks_of_run(run.uid)
        return [{**entry, "task": task.id} for task in tasks for entry in await self._storage.journal(task.id)]

    async def calls(self, run: Run) -> list[dict[str, Any]]:
        """Return a run's calls."""
        return [show_call(call) for call in await self._storage.calls_of_run(run.uid)]

    async def trace(self, run: Run) -> list[dict[str, Any]]:
        """Return a run's spans by their starts, what is outside before what is inside."""
        return [show_span(span) for span in await load_trace(self._storage, run)]

    async def logs(self, run: Run, *, after: int, limit: int = _LOG_PAGE) -> list[dict[str, Any]]:
        """Return lines of a run's log."""
        return [show_log(line) for line in await self._storage.logs_of_run(run.uid, after=after, limit=limit)]

    async def follow_logs(self, run: Run, *, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of a run's log as they come, until the run has ended."""
        while True:
            now = await self._storage.get_run(run.uid)
            lines = await self.logs(run, after=after)
            for line in lines:
                after = line["id"]
                yield line
            if not lines and (now is None or now.state.final):
                return
            if not lines:
                await self._clock.sleep(_FOLLOW_SECONDS)


def show_run(run: Run) -> dict[str, Any]:
    """Return a run as JSON. ``cost.total`` is null while the price of a call is unknown: `known` is the rest."""
    raw = camel(run, without=MONEY | {"output", "exported"})
    return {**raw, "traceId": trace_id(run.uid), **money(run)}


def show_node(node: NodeRecord) -> dict[str, Any]:
    """Return a node's record as JSON, with what its calls used and cost."""
    return {**camel(node, without=MONEY | {"run_uid"}), **money(node)}


def show_span(span: Span) -> dict[str, Any]:
    """Return a span as JSON."""
    return camel(span, without=frozenset({"run_uid"}))


def show_log(line: LogRecord) -> dict[str, Any]:
    """Return a line of a log as JSON."""
    return camel(line, without=frozenset({"run_uid"}))


def show_call(call: CallRecord) -> dict[str, Any]:
    """Return a call as JSON, with its answer."""
    hidden = frozenset({"task_id", "run_uid", "gateway", "reservation"})
    answer = call.answer
    return {
        **camel(call.intent, without=hidden),
        "state": call.state.value,
        "repeats": call.repeats,
        "finishedAt": None if answer is None else answer.finished_at,
        "reply": None if answer is None else answer.reply,
        "usage": None if answer is None else {"inputTokens": answer.input_tokens, "outputTokens": answer.output_tokens},
        "cost": None if answer is None else dollars(answer.cost),
    }
