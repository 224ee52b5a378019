"""Version v1alpha1 of the API, one module per kind."""

from __future__ import annotations

from typing import Final

from fairlead.api.meta import Resource
from fairlead.api.v1alpha1 import agent, model, tool, workflow, workflowrun
from fairlead.api.v1alpha1.agent import Agent, AgentSpec
from fairlead.api.v1alpha1.model import Model, ModelSpec
from fairlead.api.v1alpha1.tool import Tool, ToolSpec
from fairlead.api.v1alpha1.workflow import Workflow, WorkflowSpec
from fairlead.api.v1alpha1.workflowrun import WorkflowRun, WorkflowRunSpec

RESOURCES: Final[dict[str, Resource]] = {
    module.RESOURCE.kind: module.RESOURCE for module in (workflow, workflowrun, agent, model, tool)
}
"""Every kind, by its name."""

__all__ = [
    "RESOURCES",
    "Agent",
    "AgentSpec",
    "Model",
    "ModelSpec",
    "Tool",
    "ToolSpec",
    "Workflow",
    "WorkflowRun",
    "WorkflowRunSpec",
    "WorkflowSpec",
]
