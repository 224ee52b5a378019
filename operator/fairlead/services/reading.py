"""What people read of runs: who may, which run they mean, and how it is shown. camelCase, as everything on a wire."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any, Final

from pydantic.alias_generators import to_camel

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.errors import Refused
from fairlead.kube import KubeClient, TokenIdentity
from fairlead.services.outcomes import dollars
from fairlead.services.sessions import Unauthenticated
from fairlead.storage.base import CallRecord, LogRecord, NodeRecord, Run, Span, Storage
from fairlead.tracing.ids import trace_id

_UID: Final = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_TRUST_SECONDS: Final = 10.0
_KEPT: Final = 1024
_FOLLOW_SECONDS: Final = 0.5
_LOG_PAGE: Final = 1000
_DEPTH: Final = {"run": 0, "node": 1, "item": 2, "call": 3}
MAX_COST_RUNS: Final = 10_000


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are meant."""

    namespace: str = ""
    workflow: str = ""
    active: bool = False
    since: datetime | None = None
    limit: int = 100


class Readers:
    """Decides who may read the runs of a namespace: whoever may read its WorkflowRuns."""

    def __init__(self, kube: KubeClient, clock: Clock) -> None:
        self._kube = kube
        self._clock = clock
        self._granted: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def check(self, token: str, namespace: str) -> None:
        """Return if the bearer of *token* may read; a yes holds for a few seconds. Empty *namespace*: all of them.

        Raises:
            Unauthenticated: nobody is known by this token.
            Refused: somebody is, and may not.
        """
        key = (hashlib.sha256(token.encode()).hexdigest(), namespace)
        if self._granted.get(key, 0.0) > self._clock.monotonic():
            return
        identity = await self._identify(token)
        allowed = await self._kube.review_access(
            identity, verb="get", group=names.GROUP, resource="workflowruns", namespace=namespace
        )
        if not allowed:
            where = f"in namespace {namespace}" if namespace else "in all namespaces"
            raise Refused(f"{identity.username} may not get workflowruns {where}", reason="Forbidden")
        self._granted[key] = self._clock.monotonic() + _TRUST_SECONDS
        while len(self._granted) > _KEPT:
            self._granted.popitem(last=False)

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
        return [show_run(run) for run in await self._runs(asked)]

    async def show(self, run: Run) -> dict[str, Any]:
        """Return a run with its nodes."""
        return {**show_run(run), "nodes": [show_node(node) for node in await self._storage.nodes_of_run(run.uid)]}

    async def journal(self, run: Run) -> list[Mapping[str, Any]]:
        """Return the journals of a run's tasks, one after the other."""
        tasks = await self._storage.tasks_of_run(run.uid)
        return [entry for task in tasks for entry in await self._storage.journal(task.id)]

    async def calls(self, run: Run) -> list[dict[str, Any]]:
        """Return a run's calls."""
        return [show_call(call) for call in await self._storage.calls_of_run(run.uid)]

    async def trace(self, run: Run) -> list[dict[str, Any]]:
        """Return a run's spans by their starts, what is outside before what is inside."""
        spans = await self._storage.spans_of_run(run.uid)
        return [show_span(span) for span in sorted(spans, key=lambda span: (span.started_at, _DEPTH[span.kind]))]

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

    async def costs(self, asked: RunFilter) -> dict[str, Any]:
        """Return what runs cost, in all and by workflow."""
        runs = await self._runs(asked)
        by_workflow: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            by_workflow.setdefault((run.namespace, run.workflow), []).append(run)
        workflows = [
            {"namespace": namespace, "workflow": workflow, **_sum(part)}
            for (namespace, workflow), part in sorted(by_workflow.items())
        ]
        return {**_sum(runs), "currency": "USD", "workflows": workflows, "truncated": len(runs) >= asked.limit}

    async def _runs(self, asked: RunFilter) -> Sequence[Run]:
        runs = await self._storage.list_runs(
            self._cluster,
            namespace=asked.namespace,
            workflow=asked.workflow,
            active=asked.active,
            limit=asked.limit,
        )
        return [run for run in runs if asked.since is None or run.created_at >= asked.since]


def _sum(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "runs": len(runs),
        "cost": dollars(sum(run.cost for run in runs)),
        "unpricedCalls": sum(run.unpriced_calls for run in runs),
        "usage": {
            "inputTokens": sum(run.input_tokens for run in runs),
            "outputTokens": sum(run.output_tokens for run in runs),
        },
    }


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _camel(record: Any, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    return {
        to_camel(field.name): _plain(getattr(record, field.name))
        for field in fields(record)
        if field.name not in without
    }


def show_run(run: Run) -> dict[str, Any]:
    """Return a run as JSON. ``cost.total`` is null while the price of a call is unknown: `known` is the rest."""
    raw = _camel(run, without=frozenset({"cost", "input_tokens", "output_tokens", "unpriced_calls", "output"}))
    known = dollars(run.cost)
    return {
        **raw,
        "traceId": trace_id(run.uid),
        "usage": {"inputTokens": run.input_tokens, "outputTokens": run.output_tokens},
        "cost": {
            "total": None if run.unpriced_calls else known,
            "known": known,
            "unpricedCalls": run.unpriced_calls,
            "currency": "USD",
        },
    }


def show_node(node: NodeRecord) -> dict[str, Any]:
    """Return a node's record as JSON."""
    return _camel(node, without=frozenset({"run_uid"}))


def show_span(span: Span) -> dict[str, Any]:
    """Return a span as JSON."""
    return _camel(span, without=frozenset({"run_uid"}))


def show_log(line: LogRecord) -> dict[str, Any]:
    """Return a line of a log as JSON."""
    return _camel(line, without=frozenset({"run_uid"}))


def show_call(call: CallRecord) -> dict[str, Any]:
    """Return a call as JSON, with its answer."""
    hidden = frozenset({"task_id", "run_uid", "gateway"})
    answer = call.answer
    return {
        **_camel(call.intent, without=hidden),
        "state": call.state.value,
        "repeats": call.repeats,
        "finishedAt": None if answer is None else answer.finished_at,
        "reply": None if answer is None else answer.reply,
        "usage": None if answer is None else {"inputTokens": answer.input_tokens, "outputTokens": answer.output_tokens},
        "cost": None if answer is None else dollars(answer.cost),
    }
