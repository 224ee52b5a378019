"""Uses tools for the nodes of a run."""

from __future__ import annotations

import base64

from fairlead.errors import RetryableError
from fairlead.kube import KubeClient, Ref
from fairlead.services.outcomes import Outcome
from fairlead.services.tasks import TaskContext
from fairlead.tools.base import ToolContext
from fairlead.tools.registry import Registry
from fairlead.tracing.attributes import attributes
from fairlead_agent.protocol import CallReply, ToolRequest


class Toolbox:
    """Finds tools by their names and gives them what they may read."""

    def __init__(self, kube: KubeClient, registry: Registry, *, timeout_seconds: float) -> None:
        self._kube = kube
        self._registry = registry
        self._timeout_seconds = timeout_seconds

    async def use(self, context: TaskContext, request: ToolRequest, *, timeout_seconds: float) -> Outcome:
        """Return what a tool gives."""

        async def read(name: str, key: str) -> bytes:
            return await self._config_map(context.namespace, name, key)

        surroundings = ToolContext(read, min(timeout_seconds, self._timeout_seconds))
        result = await self._registry.use(request.name, request.arguments, surroundings)
        shown = attributes(gen_ai__operation__name="execute_tool", gen_ai__tool__name=request.name)
        return Outcome(CallReply(result=result), cost=0, attributes=shown)

    async def _config_map(self, namespace: str, name: str, key: str) -> bytes:
        found = await self._kube.get(Ref("v1", "ConfigMap", name, namespace))
        if found is None:
            raise RetryableError(
                f"there is no ConfigMap {namespace}/{name}: apply it in the run's namespace", reason="ToolFailed"
            )
        text = (found.get("data") or {}).get(key)
        if text is not None:
            return str(text).encode()
        encoded = (found.get("binaryData") or {}).get(key)
        if encoded is not None:
            return base64.b64decode(encoded)
        keys = ", ".join(sorted({*(found.get("data") or {}), *(found.get("binaryData") or {})})) or "none"
        raise RetryableError(f"ConfigMap {namespace}/{name} has no key {key}; it has: {keys}", reason="ToolFailed")
