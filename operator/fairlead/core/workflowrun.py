"""Decides whether a run can start, what it is frozen into, and when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.api.conditions import Reason
from fairlead.core import names
from fairlead.core.actions import Action, Create, Delete, Obj, meta, owned_by, spec_of
from fairlead.core.agent import is_over
from fairlead.core.manifests import PodSettings, build_run_pod
from fairlead.core.problems import listed, refusal
from fairlead.core.references import References, Source, agent_of, freeze, missing
from fairlead.core.workflow import refusal_of
from fairlead_agent.graph import Problem
from fairlead_agent.inputs import check_inputs


@dataclass(frozen=True, slots=True)
class Accepted:
    """The run can be queued."""

    source: Source
    revision: str
    document: Mapping[str, Any]
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something is not there yet."""

    reason: Reason
    message: str
    seconds: float
    """How long the run waits for it."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The run can never start."""

    reason: Reason
    message: str


Verdict = Accepted | Waiting | Rejected
_PENDING_SECONDS = 300.0


def source_of(run: Obj, workflow: Obj | None) -> Source | None:
    """Return the workflow that a run is of; None: its Workflow object is not there."""
    inline = spec_of(run).get("workflow")
    if inline is not None:
        return Source("", meta(run)["uid"], 1, inline)
    return Source.of(workflow) if workflow is not None else None


def accept(run: Obj, source: Source | None, there: References, *, problems: Sequence[Problem]) -> Verdict:
    """Decide whether a run can be queued now, later or never.

    *problems* are what `fairlead_agent.graph.check` says of the source's spec.
    """
    refused = refusal("WorkflowRun", spec_of(run))
    if refused is not None:
        return Rejected(*refused)
    if source is None:
        name = (spec_of(run).get("workflowRef") or {}).get("name")
        text = f'Workflow "{name}" does not exist in this namespace: apply it, or correct spec.workflowRef.name.'
        return Waiting(Reason.WORKFLOW_NOT_FOUND, text, _PENDING_SECONDS)
    mistake = refusal_of(source.spec, problems)
    if mistake is not None:
        return _mistaken(source, *mistake)
    waits = missing(source, there)
    if waits is not None:
        return Waiting(*waits, seconds=float(source.spec.get("pendingTimeoutSeconds", _PENDING_SECONDS)))
    return _accept_inputs(run, source, there)


def _mistaken(source: Source, reason: Reason, message: str) -> Verdict:
    if not source.name:
        return Rejected(reason, message.replace("spec.", "spec.workflow.", 1))
    return Rejected(reason, f'Workflow "{source.name}" cannot run: {message}')


def _accept_inputs(run: Obj, source: Source, there: References) -> Verdict:
    inputs, problems = check_inputs(source.spec.get("inputs"), spec_of(run).get("inputs"))
    if problems:
        return Rejected(Reason.INVALID_INPUTS, listed((problem.path, problem.message) for problem in problems))
    document = freeze(source, there)
    revision = names.digest(document)
    asked = (spec_of(run).get("workflowRef") or {}).get("revision")
    if asked and asked != revision:
        text = f'Workflow "{source.name}" has revision {revision}, not {asked}: correct spec.workflowRef.revision.'
        return Rejected(Reason.REVISION_NOT_FOUND, text)
    return Accepted(source, revision, document, inputs)


def pool_of(run: Obj, source: Source, cluster: str) -> str:
    """Return the pool whose pods may take the run."""
    agent, namespace = agent_of(source.spec), meta(run)["namespace"]
    if agent:
        return names.agent_pool(cluster, namespace, agent)
    return names.run_pool(cluster, namespace, meta(run)["uid"])


def plan_run_pods(
    run: Obj, pods: Sequence[Obj], *, attempt: int, active: bool, settings: PodSettings | None
) -> tuple[Action, ...]:
    """Return what to change so that a run with a pod of its own has one while it is active, and none that is over.

    *attempt* is the number of times that the run was claimed: a pod that replaces one that took it gets a new name.
    """
    own = [pod for pod in pods if owned_by(pod, meta(run)["uid"])]
    over = [pod for pod in own if is_over(pod) and not meta(pod).get("deletionTimestamp")]
    if not active or settings is None:
        return ()
    if over:
        return tuple(Delete(pod, "the pod has ended and the run has not") for pod in over)
    if own:
        return ()
    return (Create(build_run_pod(run, attempt, settings)),)
