"""Decides what to say of an Agent that someone else runs: it has no pods, and a Lease that the gateway keeps. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.core import conditions, names
from fairlead.core.actions import Delete, Obj, Plan, meta, spec_of
from fairlead.core.conditions import Condition
from fairlead.core.problems import refusal

PODS: Final = "external"
"""What the column Pods says."""
_MAX_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Health:
    """What the gateway found when it read the agent's card last, as it is written on the Lease."""

    alive: bool = False
    card: str = ""
    version: str = ""
    skills: tuple[str, ...] = ()
    reason: str = ""
    """Why the card could not be read last; empty: it could, or nobody has tried yet."""
    message: str = ""
    digest: str = ""
    """Of the `spec.external` that this was found with."""


def read_health(lease: Obj | None, alive: frozenset[str]) -> Health:
    """Return what the Lease of an external agent says."""
    if lease is None:
        return Health()
    notes: dict[str, str] = meta(lease).get("annotations") or {}
    skills = notes.get(names.CAPABILITIES_ANNOTATION) or ""
    return Health(
        alive=(spec_of(lease).get("holderIdentity") or "") in alive,
        card=notes.get(names.CARD_ANNOTATION) or "",
        version=notes.get(names.VERSION_ANNOTATION) or "",
        skills=tuple(skill for skill in skills.split(",") if skill),
        reason=notes.get(names.PROBE_REASON_ANNOTATION) or "",
        message=notes.get(names.PROBE_MESSAGE_ANNOTATION) or "",
        digest=notes.get(names.SPEC_DIGEST_ANNOTATION) or "",
    )


def plan_external(agent: Obj, pods: Iterable[Obj], health: Health) -> Plan:
    """Return what to say of an external agent; pods that it had before it was one are deleted."""
    left = tuple(Delete(pod, "the agent is external") for pod in pods if not meta(pod).get("deletionTimestamp"))
    refused = refusal("Agent", spec_of(agent))
    if health.digest not in ("", names.digest(spec_of(agent)["external"])):
        health = Health()  # it is about another address, and the gateway is about to ask this one
    counts: dict[str, Any] = {"ready": int(health.alive), "total": 1, "pods": PODS, "queue": 0}
    if refused is not None:
        wrong = conditions.stalled(ConditionType.READY, *refused, generation=meta(agent)["generation"])
        return Plan(left, wrong, counts)
    return Plan(left, _conditions(agent, health), counts)


def _conditions(agent: Obj, health: Health) -> tuple[Condition, ...]:
    generation, url = meta(agent)["generation"], spec_of(agent)["external"]["url"]
    if health.alive:
        return conditions.ready(Reason.AVAILABLE, _described(health), generation=generation)
    if not health.reason:
        text = f"The gateway has not read the card of {url} yet; is it running?"
        return conditions.progressing(ConditionType.READY, Reason.PROGRESSING, text, generation=generation)
    known = Reason(health.reason) if health.reason in {*Reason} else Reason.EXTERNAL_UNREACHABLE
    return conditions.progressing(ConditionType.READY, known, health.message, generation=generation)


def _described(health: Health) -> str:
    version = f" {health.version}" if health.version else ""
    shown = ", ".join(health.skills[:_MAX_SHOWN])
    more = " …" if len(health.skills) > _MAX_SHOWN else ""
    skills = f"its skills are {shown}{more}" if shown else "it names no skills"
    return f'Its card is "{health.card}"{version}; {skills}.'
