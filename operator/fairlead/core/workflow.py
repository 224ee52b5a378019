"""Decides what to say of a Workflow, and which runs it makes and forgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.core import conditions
from fairlead.core.actions import Action, Create, Delete, Obj, Plan, conditions_of, meta, owned_by, spec_of, status_of
from fairlead.core.manifests import build_started_run
from fairlead.core.problems import Refusal, listed, refusal
from fairlead.core.references import References, Source, missing, revision_of
from fairlead_agent.graph import Problem

_HISTORY: Final = 10


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is besides the Workflow itself."""

    problems: Sequence[Problem]
    """What is wrong with the graph and those of the workflows that it runs."""
    there: References
    runs: Sequence[Obj]
    """The WorkflowRuns of the namespace."""


def refusal_of(spec: Obj, problems: Sequence[Problem]) -> Refusal | None:
    """Return why a workflow can never run as it is, or None."""
    refused = refusal("Workflow", spec)
    if refused is not None:
        return refused
    if problems:
        return Reason(problems[0].reason), listed((problem.path, problem.message) for problem in problems)
    return None


def plan_workflow(workflow: Obj, observed: Observed) -> Plan:
    """Compare *workflow* with what there is and return what to change."""
    spec, generation = spec_of(workflow), meta(workflow)["generation"]
    pruned = tuple(_prune(workflow, observed.runs))
    status: dict[str, object] = {"nodes": len(spec.get("nodes") or ())}
    refused = refusal_of(spec, observed.problems)
    if refused is not None:
        return Plan(pruned, conditions.stalled(ConditionType.READY, *refused, generation=generation), status)
    source = Source.of(workflow)
    waits = missing(source, observed.there)
    if waits is not None:
        return Plan(pruned, conditions.progressing(ConditionType.READY, *waits, generation=generation), status)
    status["revision"] = revision_of(source, observed.there)
    started: tuple[Action, ...] = ()
    if _starts(workflow):
        run = build_started_run(workflow)
        started = (Create(run),)
        status |= {"lastStartedGeneration": generation, "lastRun": run["metadata"]["name"]}
    text = "Valid; make a WorkflowRun to run it."
    if spec.get("startPolicy") == "OnApply":
        text = "Valid; a run starts for each change of the spec."
    return Plan(started + pruned, conditions.ready(Reason.ACCEPTED, text, generation=generation), status)


def _starts(workflow: Obj) -> bool:
    on_apply = spec_of(workflow).get("startPolicy") == "OnApply"
    return on_apply and status_of(workflow).get("lastStartedGeneration") != meta(workflow)["generation"]


def _prune(workflow: Obj, runs: Sequence[Obj]) -> list[Action]:
    """Return what goes because of the history limits: the oldest finished runs that were made for the workflow."""
    spec, uid = spec_of(workflow), meta(workflow)["uid"]
    finished = [
        run for run in runs if owned_by(run, uid) and is_finished(run) and not meta(run).get("deletionTimestamp")
    ]
    finished.sort(key=lambda run: (status_of(run).get("completionTime") or "", meta(run)["name"]), reverse=True)
    good = [run for run in finished if conditions.is_true(conditions_of(run), ConditionType.SUCCEEDED)]
    bad = [run for run in finished if run not in good]
    surplus = (
        good[spec.get("successfulRunsHistoryLimit", _HISTORY) :] + bad[spec.get("failedRunsHistoryLimit", _HISTORY) :]
    )
    return [Delete(run, "history limit") for run in surplus]


def is_finished(run: Obj) -> bool:
    """Return whether a WorkflowRun's status says that it has ended."""
    return conditions.is_true(conditions_of(run), ConditionType.FINISHED)
