"""A claimed task as its pod gets it: a `fairlead_agent.protocol.Task` as JSON, with all that the engine needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from fairlead.core import names
from fairlead.errors import InvalidObject
from fairlead.services.results import Results
from fairlead.services.tasks import TaskContext, build_context
from fairlead.services.turns import build_turn_info
from fairlead.services.waiting import show_signals
from fairlead.storage.base import Claimed, Revision
from fairlead_agent.protocol import ToolInfo

Describe = Callable[[Mapping[str, Any], str], ToolInfo | None]
_NOT_THE_ANSWER: Final[Mapping[str, frozenset[str]]] = {
    "models": frozenset({"apiKey", "retries", "timeoutSeconds", "rateLimit", "budget", "price", "fallbacks"}),
    "agents": frozenset(
        {"description", "scale", "concurrency", "leaseDurationSeconds", "drainSeconds", "turnTimeoutSeconds"}
        | {"resources", "budget", "skills"}
    ),
    "tools": frozenset({"requireApproval", "approvers", "idempotent"}),
}
"""Fields that do not change what comes of the same request: they are no part of a definition's digest."""
_KEPT: Final = 64


class Handout:
    """Shows tasks to the pods that claimed them.

    Args:
        describe: returns what is told of a tool of a frozen revision.
    """

    def __init__(self, results: Results, describe: Describe) -> None:
        self._results = results
        self._describe = describe
        self._digests: OrderedDict[str, dict[str, str]] = OrderedDict()

    async def show(self, claimed: Claimed, now: datetime) -> dict[str, Any]:
        """Return a task as JSON."""
        task, run = claimed.task, claimed.run
        left = None if task.deadline is None else max(0.0, (task.deadline - now).total_seconds())
        shown = {
            "id": task.id,
            "attempt": task.attempt,
            "kind": task.kind,
            "run": {"uid": run.uid, "namespace": run.namespace, "name": run.name, "workflow": run.workflow},
            "inputs": run.inputs,
            "remainingSeconds": left,
            "journal": claimed.journal,
            "signals": [_wire(one) for one in show_signals(claimed.signals)],
            "suspended": run.suspended,
        }
        context = build_context(task, run, claimed.revision.document)
        if context.turn is not None:
            return {**shown, **self._of_turn(context)}
        return {
            **shown,
            **self._of_run(claimed.revision),
            "cancel": bool(run.cancel_reason),
            "rerun": await self._results.rerun(run),
        }

    def _of_run(self, revision: Revision) -> dict[str, Any]:
        document = revision.document
        workflows = document.get("workflows") or {}
        specs = [document["workflow"]["spec"], *workflows.values()]
        return {
            "spec": document["workflow"]["spec"],
            "workflows": workflows,
            "tools": self._tools(document, (name for spec in specs for name in _tools_of(spec))),
            "definitions": self._definitions(revision),
            "external": [name for name, spec in (document.get("agents") or {}).items() if spec.get("external")],
        }

    def _of_turn(self, context: TaskContext) -> dict[str, Any]:
        info = build_turn_info(context)
        if info is None:
            return {}
        return {"spec": {}, "tools": self._tools(context.document, info.tools), "turn": _wire(info)}

    def _tools(self, document: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
        found = {name: self._described(document, name) for name in dict.fromkeys(wanted)}
        return {name: _wire(info) for name, info in found.items() if info is not None}

    def _described(self, document: Mapping[str, Any], name: str) -> ToolInfo | None:
        try:
            return self._describe(document, name)
        except InvalidObject:  # whoever uses it is told; the rest of the run goes on
            return None

    def _definitions(self, revision: Revision) -> dict[str, str]:
        known = self._digests.get(revision.digest)
        if known is None:
            known = definitions(revision.document)
        self._digests[revision.digest] = known
        self._digests.move_to_end(revision.digest)
        while len(self._digests) > _KEPT:
            self._digests.popitem(last=False)
        return known


def definitions(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each frozen Model, Tool and Agent; an Agent's covers the model and tools that it uses.

    Without a model of its own it asks that of the workflow whose node it works for.
    """
    found = {
        f"{kind[:-1]}:{name}": names.digest(_relevant(kind, spec))
        for kind in ("models", "tools")
        for name, spec in (document.get(kind) or {}).items()
    }
    workflows = {"": document["workflow"]["spec"], **(document.get("workflows") or {})}
    usual = {name: found.get(f"model:{spec.get('model')}", "") for name, spec in workflows.items()}
    for name, spec in (document.get("agents") or {}).items():
        model = found.get(f"model:{spec['model']}", "") if spec.get("model") else usual
        tools = {tool: found.get(f"tool:{tool}", "") for tool in spec.get("tools") or ()}
        found[f"agent:{name}"] = names.digest({**_relevant("agents", spec), "uses": [model, tools]})
    return found


def _relevant(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in spec.items() if field not in _NOT_THE_ANSWER[kind]}


def _tools_of(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tools that a workflow's nodes and handlers name."""
    for step in (*(spec.get("nodes") or ()), spec.get("onFailure") or {}, spec.get("finally") or {}):
        if step.get("tool"):
            yield step["tool"]["name"]
        yield from (step.get("llm") or {}).get("tools") or ()


def _wire(message: Any) -> dict[str, Any]:
    shown: dict[str, Any] = message.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return shown
