"""What Kopf calls. Everything is handed to `fairlead.services.operator`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import kopf

from fairlead.api.v1alpha1 import RESOURCES
from fairlead.controllers.startup import connect
from fairlead.core import names
from fairlead.core.actions import meta
from fairlead.kube import KubeClient
from fairlead.services.objects import Key
from fairlead.services.operator import Operator

_PLURALS = {kind: resource.plural for kind, resource in RESOURCES.items()}


@dataclass(frozen=True, slots=True)
class Memo:
    """What handlers need."""

    kube: KubeClient
    operator: Operator


def build_registry() -> kopf.OperatorRegistry:
    """Return every handler of the operator."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry, id="login")(login)
    for plural in _PLURALS.values():
        kopf.on.event(names.GROUP, names.VERSION, plural, registry=registry, id="observe")(observe)
    kopf.on.event("v1", "pods", registry=registry, id="observe")(observe)
    for kind, reconcile in RECONCILERS.items():
        where = (names.GROUP, names.VERSION, _PLURALS[kind])
        for on in (kopf.on.resume, kopf.on.create, kopf.on.update):
            on(*where, registry=registry, id=reconcile.__name__)(reconcile)
    return registry


async def login(memo: Memo, **_: Any) -> kopf.ConnectionInfo:
    """Give Kopf the credentials of our own client."""
    return await connect(memo.kube)


async def observe(event: Any, memo: Memo, **_: Any) -> None:
    """Take in an event of a watch."""
    await memo.operator.observe(event["type"], event["object"])


async def reconcile_workflow(body: kopf.Body, memo: Memo, **_: Any) -> None:
    """Reconcile one workflow."""
    await _reconcile("Workflow", body, memo)


async def reconcile_agent(body: kopf.Body, memo: Memo, **_: Any) -> None:
    """Reconcile one agent."""
    await _reconcile("Agent", body, memo)


async def reconcile_model(body: kopf.Body, memo: Memo, **_: Any) -> None:
    """Reconcile one model."""
    await _reconcile("Model", body, memo)


async def reconcile_tool(body: kopf.Body, memo: Memo, **_: Any) -> None:
    """Reconcile one tool."""
    await _reconcile("Tool", body, memo)


RECONCILERS = {
    "Workflow": reconcile_workflow,
    "Agent": reconcile_agent,
    "Model": reconcile_model,
    "Tool": reconcile_tool,
}


async def _reconcile(kind: str, body: kopf.Body, memo: Memo) -> None:
    """Have the object reconciled by our own queue, which is also what the resync and dependents feed.

    It tries again by itself; Kopf's retries would be written onto the object.
    """
    await memo.operator.queue.add(Key(kind, meta(body)["uid"]))
