"""Decides whether a run can start, what it is frozen into, and which pods it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.core import names
from fairlead.core.actions import Action, Create, Delete, Obj, meta, owned_by, spec_of
from fairlead.core.manifests import PodSettings, build_run_pod
from fairlead.core.pool import has_stopped, is_leaving, is_over
from fairlead.core.problems import Refusal, listed, refusal
from fairlead.core.references import HANDLERS, Find, References, Source, agent_of, freeze, missing, thawed
from fairlead.core.workflow import refusal_of
from fairlead_agent.graph import Problem
from fairlead_agent.inputs import check_inputs

_PENDING_SECONDS: Final = 300.0
_HANDLER_SECONDS: Final = 60.0
"""What a try of a handler may take when it has no ``timeoutSeconds``."""
_BEGINNINGS: Final = frozenset({"Failed", "Start"})


@dataclass(frozen=True, slots=True)
class Earlier:
    """The run that ``rerunOf`` names, as history knows it."""

    uid: str
    ended: bool
    inputs: Mapping[str, Any]
    document: Mapping[str, Any] | None
    """What it was frozen into."""


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


def source_of(run: Obj, find: Find, earlier: Earlier | None = None) -> tuple[Source | None, Find]:
    """Return the workflow that a run is of and how it finds what it uses; None: its Workflow object is not there.

    A rerun that names no workflow is of the earlier run's.
    """
    spec = spec_of(run)
    if spec.get("workflow") is not None:
        return Source("", meta(run)["uid"], 1, spec["workflow"]), find
    if spec.get("workflowRef") is None and earlier is not None and earlier.document is not None:
        return thawed(earlier.document, find)
    workflow = find("Workflow", (spec.get("workflowRef") or {}).get("name") or "")
    return (Source.of(workflow) if workflow is not None else None), find


def refuse_rerun(run: Obj, earlier: Earlier | None) -> Refusal | None:
    """Return why the results of an earlier run cannot be used again, or None."""
    asked = spec_of(run).get("rerunOf")
    if not asked:
        return None
    which = f'"{asked["name"]}"' + (f" with the uid {asked['uid']}" if asked.get("uid") else "")
    if earlier is None:
        text = f"There is no run {which} in this namespace's history: correct spec.rerunOf."
        return Reason.RERUN_NOT_FOUND, text
    if not earlier.ended:
        return Reason.RERUN_NOT_POSSIBLE, f"The run {which} has not ended: wait for it, or stop it."
    if earlier.document is None and not (spec_of(run).get("workflowRef") or spec_of(run).get("workflow")):
        return (
            Reason.RERUN_NOT_POSSIBLE,
            f"The workflow of the run {which} is not known any more: set spec.workflowRef.",
        )
    return None


def accept(
    run: Obj,
    source: Source | None,
    there: References,
    *,
    problems: Sequence[Problem],
    earlier: Earlier | None = None,
) -> Verdict:
    """Decide whether a run can be queued now, later or never.

    *problems* are what is wrong with the graph of the source and of the workflows that it runs.
    """
    refused = refusal("WorkflowRun", spec_of(run)) or refuse_rerun(run, earlier)
    if refused is not None:
        return Rejected(*refused)
    if source is None:
        name = (spec_of(run).get("workflowRef") or {}).get("name")
        text = f'Workflow "{name}" does not exist in this namespace: apply it, or correct spec.workflowRef.name.'
        return Waiting(Reason.WORKFLOW_NOT_FOUND, text, _PENDING_SECONDS)
    mistake = refusal_of(source.spec, problems)
    if mistake is not None:
        return _mistaken(source, *mistake)
    begins = _refuse_beginning(run, source)
    if begins is not None:
        return Rejected(*begins)
    waits = None if spec_of(run).get("dryRun") else missing(source, there)
    if waits is not None:
        return Waiting(*waits, seconds=float(source.spec.get("pendingTimeoutSeconds", _PENDING_SECONDS)))
    return _accept_inputs(run, source, there, earlier)


def _mistaken(source: Source, reason: Reason, message: str) -> Verdict:
    if not source.name:
        return Rejected(reason, message.replace("spec.", "spec.workflow.", 1))
    return Rejected(reason, f'Workflow "{source.name}" cannot run: {message}')


def _refuse_beginning(run: Obj, source: Source) -> Refusal | None:
    begin = (spec_of(run).get("rerunOf") or {}).get("from", "Failed")
    known = [node["name"] for node in source.spec["nodes"]]
    if begin in _BEGINNINGS or begin in known:
        return None
    text = f'The workflow has no node "{begin}": set spec.rerunOf.from to Failed, Start or one of {", ".join(known)}.'
    return Reason.NODE_NOT_FOUND, text


def _accept_inputs(run: Obj, source: Source, there: References, earlier: Earlier | None) -> Verdict:
    declared = source.spec.get("inputs")
    inputs, problems = check_inputs(declared, _given(run, declared, earlier))
    if problems:
        return Rejected(Reason.INVALID_INPUTS, listed((problem.path, problem.message) for problem in problems))
    document = freeze(source, there)
    revision = names.digest(document)
    asked = (spec_of(run).get("workflowRef") or {}).get("revision")
    if asked and asked != revision:
        text = f'Workflow "{source.name}" has revision {revision}, not {asked}: correct spec.workflowRef.revision.'
        return Rejected(Reason.REVISION_NOT_FOUND, text)
    return Accepted(source, revision, document, inputs)


def _given(run: Obj, declared: Any, earlier: Earlier | None) -> Any:
    """Return what the run is given: its own inputs over those of the earlier run that the workflow still has."""
    own = spec_of(run).get("inputs") or {}
    known = {entry["name"] for entry in declared or ()}
    before = earlier.inputs if earlier is not None else {}
    return {name: value for name, value in before.items() if name in known and value is not None} | own


def pool_of(run: Obj, source: Source, cluster: str) -> str:
    """Return the pool whose pods may take the run."""
    agent, namespace = agent_of(source.spec), meta(run)["namespace"]
    if agent:
        return names.agent_pool(cluster, namespace, agent)
    return names.run_pool(cluster, namespace, meta(run)["uid"])


def has_finally(document: Mapping[str, Any]) -> bool:
    """Return whether a frozen workflow, or one inside it, has something to do when its run is stopped."""
    specs = (document["workflow"]["spec"], *document.get("workflows", {}).values())
    return any(spec.get("finally") for spec in specs)


def handler_seconds(document: Mapping[str, Any]) -> float:
    """Return how long handlers may take at most beyond a run's deadline: those inside, and then those of its workflow.

    Args:
        document: a frozen revision (`fairlead.core.references.freeze`).
    """
    known: dict[str, float] = {}

    def of_runner(wire: Mapping[str, Any]) -> float:
        name: str = (wire.get("workflow") or {}).get("name", "")
        if name not in known:
            known[name] = 0.0  # ends a cycle, which is refused elsewhere
            known[name] = of(document.get("workflows", {}).get(name, {}))
        return known[name]

    def of(spec: Mapping[str, Any]) -> float:
        own = sum(_longest(spec[name], of_runner(spec[name])) for name in HANDLERS if spec.get(name))
        return own + max(map(of_runner, spec.get("nodes", ())), default=0.0)

    return of(document["workflow"]["spec"])


def _longest(handler: Mapping[str, Any], inside: float) -> float:
    """Return how long a handler may take, given what handlers inside it take after each try."""
    retry, seconds = handler.get("retry"), float(handler.get("timeoutSeconds") or _HANDLER_SECONDS) + inside
    limit = 0 if retry is None else int(retry.get("limit", 3))
    pause, total = float((retry or {}).get("backoffSeconds", 1)), seconds
    for _ in range(limit):
        total += seconds + min(pause, float((retry or {}).get("maxBackoffSeconds", 60)))
        pause *= float((retry or {}).get("factor", 2))
    return total


def budget_of(run: Mapping[str, Any], workflow: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the strictest of a run's own limits and its workflow's for each run; None: there is none.

    Args:
        run: the spec of the WorkflowRun.
        workflow: the spec of the workflow.
    """
    shared = workflow.get("budget") or {}
    limits = [run.get("budget") or {}, shared if shared.get("period", "Run") == "Run" else {}]
    costs = [limit["maxCostUSD"] for limit in limits if limit.get("maxCostUSD")]
    tokens = [limit["maxTokens"] for limit in limits if limit.get("maxTokens")]
    found: dict[str, Any] = {"maxCostUSD": min(costs, key=Decimal)} if costs else {}
    return found | ({"maxTokens": min(tokens)} if tokens else {}) or None


def plan_run_pods(
    run: Obj, pods: Sequence[Obj], *, number: int, wanted: bool, settings: PodSettings | None
) -> tuple[Action, ...]:
    """Return what to change so that a run with a pod of its own has one while it is *wanted*, and none that is over.

    *number* grows with every claim of the task: a pod that replaces one that took it gets a new name.
    """
    own = [pod for pod in pods if owned_by(pod, meta(run)["uid"])]
    over = [pod for pod in own if is_over(pod) and not is_leaving(pod)]
    if not wanted:
        beside = "the agent has ended and what was injected beside it has not"
        return tuple(Delete(pod, beside) for pod in over if not has_stopped(pod))
    if settings is None:
        return ()
    if over:
        return tuple(Delete(pod, "the pod has ended and the run has not") for pod in over)
    if own:
        return ()
    return (Create(build_run_pod(run, number, settings)),)
