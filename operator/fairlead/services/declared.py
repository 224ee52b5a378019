"""Plans for Workflows, Agents, Models and Tools: observes everything first, then asks `core`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from fairlead.core.actions import Obj, Plan, meta, spec_of
from fairlead.core.agent import Observed as AgentObserved
from fairlead.core.agent import plan_agent, refusal_of_pod
from fairlead.core.external import Health, plan_external
from fairlead.core.model import plan_model, trouble_of
from fairlead.core.problems import Refusal
from fairlead.core.references import Find, Source, Use, collect, lacking, uses_of_agent, uses_of_model, walk
from fairlead.core.tool import plan_tool
from fairlead.core.workflow import Observed as WorkflowObserved
from fairlead.core.workflow import plan_workflow
from fairlead.errors import FairleadError
from fairlead.redaction import redact
from fairlead.services.graphchecks import GraphChecks
from fairlead.services.modelhealth import ModelHealth
from fairlead.services.objects import Key, Objects
from fairlead.services.podsettings import PodSettingsSource
from fairlead.services.pools import Pools

_Named = frozenset[tuple[str, str]]


def finder(objects: Objects, namespace: str) -> Find:
    """Return how objects of a namespace are found by kind and name."""
    return lambda kind, name: objects.find(kind, namespace, name)


async def problems_of(checks: GraphChecks, source: Source, workflows: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return what is wrong with the graph of a workflow and of those that it runs."""
    return await checks.problems(source.spec, name=source.name, workflows=workflows)


class Lives(Protocol):
    """Knows which pods live."""

    @property
    def alive(self) -> frozenset[str]:
        """The uids of the pods that hold a living Lease."""

    @property
    def draining(self) -> Mapping[str, float]:
        """For how many seconds living pods have been asked to take no more work, by uid."""

    def health(self, agent: Obj) -> Health:
        """Return what is known of an agent that someone else runs."""


class Planner:
    """Makes the plan for one object of a declared kind."""

    def __init__(
        self,
        objects: Objects,
        checks: GraphChecks,
        pods: PodSettingsSource,
        *,
        pools: Pools,
        lives: Lives,
        health: ModelHealth,
    ) -> None:
        self._objects = objects
        self._checks = checks
        self._pods = pods
        self._pools = pools
        self._lives = lives
        self._health = health
        self._uses: dict[Key, tuple[str, _Named]] = {}

    async def plan(self, obj: Obj, *, refused: FairleadError | None = None) -> Plan:
        """Return what is to be done about an object. *refused*: why the cluster did not take what it owns."""
        match obj["kind"]:
            case "Workflow":
                return await self._plan_workflow(obj)
            case "Agent":
                return await self._plan_agent(obj, refused)
            case "Tool":
                return plan_tool(obj)
            case _:
                return self._plan_model(obj)

    def dependents(self, kind: str, namespace: str, name: str) -> list[Key]:
        """Return the objects whose last plan looked at this name, whether there was such an object or not."""
        return [key for key, (where, named) in self._uses.items() if where == namespace and (kind, name) in named]

    def forget(self, key: Key) -> None:
        """Forget an object that is gone."""
        self._uses.pop(key, None)
        self._pools.forget(key.uid)

    def _remember(self, obj: Obj, uses: Iterable[Use]) -> None:
        named = frozenset((use.kind, use.name) for use in uses)
        self._uses[Key(obj["kind"], meta(obj)["uid"])] = (meta(obj)["namespace"], named)

    async def _plan_workflow(self, workflow: Obj) -> Plan:
        source, find = Source.of(workflow), finder(self._objects, meta(workflow)["namespace"])
        self._remember(workflow, (use for use, _ in walk(source.spec, find)))
        there = collect(source.spec, find)
        observed = WorkflowObserved(
            problems=await problems_of(self._checks, source, there.specs("Workflow")),
            there=there,
            runs=self._objects.owned("WorkflowRun", meta(workflow)["uid"]),
        )
        return plan_workflow(workflow, observed)

    def _plan_model(self, model: Obj) -> Plan:
        uses = list(uses_of_model(spec_of(model), "spec"))
        self._remember(model, uses)
        namespace, name = meta(model)["namespace"], meta(model)["name"]
        lacking = self._lacking(namespace, uses) or trouble_of(self._health.trouble(namespace, name), model)
        return plan_model(model, lacking=lacking)

    async def _plan_agent(self, agent: Obj, refused: FairleadError | None) -> Plan:
        if spec_of(agent).get("external"):
            return plan_external(agent, self._objects.owned("Pod", meta(agent)["uid"]), self._lives.health(agent))
        draining = self._lives.draining
        uses = list(uses_of_agent(spec_of(agent), "spec"))
        self._remember(agent, uses)
        observed = AgentObserved(
            pods=self._objects.owned("Pod", meta(agent)["uid"]),
            alive=self._lives.alive,
            load=await self._pools.load(agent, draining=draining),
            settings=await self._pods.get(),
            draining=draining,
            lacking=self._lacking(meta(agent)["namespace"], uses) or self._silence(agent),
            refused=None if refused is None else refusal_of_pod(redact(str(refused))),
        )
        return plan_agent(agent, observed)

    def _silence(self, agent: Obj) -> Refusal | None:
        """Return why the Model that an Agent thinks with does not answer, nor one of its fallbacks."""
        namespace, name = meta(agent)["namespace"], spec_of(agent).get("model") or ""
        model = self._objects.find("Model", namespace, name)
        names = (name, *(spec_of(model).get("fallbacks") or ())) if model is not None else ()
        models = [(one, self._objects.find("Model", namespace, one) or {}) for one in names]
        found = [trouble_of(self._health.trouble(namespace, one), other) for one, other in models]
        if not found or not all(found) or found[0] is None:
            return None
        reason, text = found[0]
        return reason, f'Model "{name}": {text}'

    def _lacking(self, namespace: str, uses: Iterable[Use]) -> Refusal | None:
        find = finder(self._objects, namespace)
        found = (lacking(use, find(use.kind, use.name)) for use in uses)
        return next((refused for refused in found if refused is not None), None)
