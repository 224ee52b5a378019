"""Plans for Workflows, Agents and Models: observes everything first, then asks `core`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.core import names
from fairlead.core.actions import Obj, Plan, meta, spec_of
from fairlead.core.agent import Observed as AgentObserved
from fairlead.core.agent import plan_agent
from fairlead.core.model import plan_model
from fairlead.core.references import References, agent_of, models_of
from fairlead.core.workflow import Observed as WorkflowObserved
from fairlead.core.workflow import plan_workflow
from fairlead.services.graphchecks import GraphChecks
from fairlead.services.objects import Objects
from fairlead.services.podsettings import PodSettingsSource


def references_of(objects: Objects, namespace: str, spec: Mapping[str, Any]) -> References:
    """Return those objects that a workflow refers to and that exist."""
    agent = agent_of(spec)
    return References(
        models=objects.named("Model", namespace, models_of(spec)),
        agents=objects.named("Agent", namespace, [agent] if agent else []),
    )


class Planner:
    """Makes the plan for one object of a declared kind."""

    def __init__(self, objects: Objects, checks: GraphChecks, pods: PodSettingsSource, *, cluster: str) -> None:
        self._objects = objects
        self._checks = checks
        self._pods = pods
        self._cluster = cluster
        self.alive: frozenset[str] = frozenset()
        """The uids of the pods that hold a living Lease."""
        self.depths: Mapping[str, tuple[int, int]] = {}
        """By pool, how many tasks wait and how many are claimed."""

    async def plan(self, obj: Obj) -> Plan:
        """Return what is to be done about an object."""
        if obj["kind"] == "Workflow":
            return await self._plan_workflow(obj)
        if obj["kind"] == "Agent":
            return await self._plan_agent(obj)
        return plan_model(obj)

    async def _plan_workflow(self, workflow: Obj) -> Plan:
        spec, namespace = spec_of(workflow), meta(workflow)["namespace"]
        observed = WorkflowObserved(
            problems=await self._checks.problems(spec),
            there=references_of(self._objects, namespace, spec),
            runs=self._objects.owned("WorkflowRun", meta(workflow)["uid"]),
        )
        return plan_workflow(workflow, observed)

    async def _plan_agent(self, agent: Obj) -> Plan:
        namespace, name, model = meta(agent)["namespace"], meta(agent)["name"], spec_of(agent).get("model")
        waiting, _ = self.depths.get(names.agent_pool(self._cluster, namespace, name), (0, 0))
        observed = AgentObserved(
            pods=self._objects.owned("Pod", meta(agent)["uid"]),
            alive=self.alive,
            queue=waiting,
            settings=await self._pods.get(),
            model_missing=model if model and self._objects.find("Model", namespace, model) is None else "",
        )
        return plan_agent(agent, observed)
