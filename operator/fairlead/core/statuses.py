"""Turns a plan into the patch of a status: only what differs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.conditions import ConditionType, Reason
from fairlead.core import conditions
from fairlead.core.actions import Obj, Plan, conditions_of, meta, status_of
from fairlead.core.runstatus import cut


def status_patch(obj: Obj, plan: Plan, *, now: datetime) -> dict[str, Any]:
    """Return the merge patch that brings the object's status to the plan's; empty if it is there."""
    wanted = dict(plan.status)
    wanted["observedGeneration"] = meta(obj)["generation"]
    wanted["conditions"] = conditions.merge(conditions_of(obj), plan.conditions, now=now)
    status = status_of(obj)
    return {key: value for key, value in wanted.items() if status.get(key) != value}


def hindered(kind: str, reason: Reason, message: str, *, generation: int) -> Plan:
    """Return the plan for an object that could not be looked after now; it is tried again by itself."""
    summary = ConditionType.SUCCEEDED if kind == "WorkflowRun" else ConditionType.READY
    return Plan((), conditions.progressing(summary, reason, cut(message), generation=generation))
