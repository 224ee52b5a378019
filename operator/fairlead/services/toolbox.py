"""Uses tools for the nodes of a run: built-in ones, and the Tools of its frozen revision."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import ValidationError

from fairlead.api.v1alpha1.tool import Builtin, HttpCall, ToolSpec
from fairlead.errors import InvalidObject, NotSupported, RetryableError
from fairlead.kube import KubeClient, Ref
from fairlead.services.outcomes import Outcome
from fairlead.services.permits import tool_spec
from fairlead.services.secrets import read_secret
from fairlead.services.tasks import TaskContext
from fairlead.tools.base import ToolContext, ToolFailed
from fairlead.tools.checks import check_arguments, check_declared
from fairlead.tools.child import Children
from fairlead.tools.http_call import call_http, check_header
from fairlead.tools.http_request import READS
from fairlead.tools.placing import parameters_of
from fairlead.tools.registry import Registry
from fairlead.tracing.attributes import attributes
from fairlead_agent.protocol import CallReply, ToolInfo, ToolRequest


class Toolbox:
    """Finds tools by their names and gives them what they may read.

    Args:
        web: asks the addresses that Tools name.
        children: check arguments that take long to check.
    """

    def __init__(
        self,
        kube: KubeClient,
        registry: Registry,
        web: httpx.AsyncClient,
        *,
        children: Children,
        timeout_seconds: float,
    ) -> None:
        self._kube = kube
        self._registry = registry
        self._web = web
        self._children = children
        self._timeout_seconds = timeout_seconds

    def info(self, context: TaskContext, name: str) -> ToolInfo | None:
        """Return what a model, and the agent, are told of a tool; None: there is no such tool."""
        return self.describe(context.document, name)

    def describe(self, document: Mapping[str, Any], name: str) -> ToolInfo | None:
        """Return what is told of a tool of a frozen revision; None: there is no such tool."""
        spec = _spec(document, name)
        if spec is None:
            built_in = self._registry.find(name)
            if built_in is None:
                return None
            return ToolInfo(name=name, description=built_in.description, parameters=dict(built_in.schema))
        described, schema = spec.description, parameters_of(spec)
        if spec.builtin is not None:
            under = self._registry.find(spec.builtin.name)
            described = described or ("" if under is None else under.description)
            schema = {} if under is None else _without(under.schema, spec.builtin)
        return ToolInfo(
            name=name,
            description=described,
            parameters=dict(schema),
            require_approval=spec.require_approval,
            approvers=spec.approvers or (),
        )

    def is_idempotent(self, context: TaskContext, request: ToolRequest) -> bool:
        """Whether a call may be made again when nobody knows whether it was made."""
        spec = _spec(context.document, request.name)
        if spec is not None and spec.idempotent is not None:
            return spec.idempotent
        if spec is not None and spec.http is not None:
            return spec.http.method in READS
        name, arguments = request.name, dict(request.arguments)
        if spec is not None and spec.builtin is not None:
            name, arguments = spec.builtin.name, arguments | (spec.builtin.config or {})
        built_in = self._registry.find(name)
        return built_in is not None and built_in.is_idempotent(arguments)

    async def use(self, context: TaskContext, request: ToolRequest, *, timeout_seconds: float) -> Outcome:
        """Return what a tool gives."""

        async def read(name: str, key: str) -> bytes:
            return await self._config_map(context.namespace, name, key)

        spec = _spec(context.document, request.name)
        longest = self._timeout_seconds if spec is None or spec.http is None else spec.http.timeout_seconds
        surroundings = ToolContext(read, min(timeout_seconds, longest), context.namespace)
        if spec is None:
            result = await self._registry.use(request.name, request.arguments, surroundings)
        else:
            result = await self._declared(context, spec, request, surroundings=surroundings)
        shown = attributes(gen_ai__operation__name="execute_tool", gen_ai__tool__name=request.name)
        return Outcome(CallReply(result=result), cost=0, attributes=shown)

    async def _declared(
        self, context: TaskContext, spec: ToolSpec, request: ToolRequest, *, surroundings: ToolContext
    ) -> Any:
        if spec.mcp is not None:
            raise NotSupported(f"Tool {request.name}: mcp is not supported yet: use builtin or http")
        if spec.builtin is not None:
            return await self._configured(spec.builtin, request, surroundings)
        if spec.http is None:
            raise InvalidObject(f"Tool {request.name} has neither builtin nor http")
        schema, given = parameters_of(spec), request.arguments
        await check_declared(request.name, schema, given, children=self._children, context=surroundings)
        headers, secrets = await self._headers(context.namespace, spec.http, f"Tool {request.name}")
        return await call_http(
            self._web, spec.http, request.arguments, headers=headers, secrets=secrets, context=surroundings
        )

    async def _configured(self, builtin: Builtin, request: ToolRequest, surroundings: ToolContext) -> Any:
        under = self._registry.find(builtin.name)
        if under is None:
            raise ToolFailed(
                f"Tool {request.name} configures the built-in tool {builtin.name}, which does not exist",
                reason="ToolNotFound",
            )
        check_arguments(request.name, _without(under.schema, builtin), request.arguments)
        return await self._registry.use(builtin.name, request.arguments, surroundings, config=builtin.config)

    async def _headers(self, namespace: str, call: HttpCall, whose: str) -> tuple[dict[str, str], list[str]]:
        """Return the headers of a request, and which texts in them are secret."""
        headers: dict[str, str] = {}
        secrets: list[str] = []
        for header in call.headers or ():
            value = header.value or ""
            if header.value_from is not None:
                value = await read_secret(self._kube, namespace, header.value_from.secret_key_ref, whose=whose)
                secrets += [value, *value.split()]
            headers[header.name] = check_header(header.name, f"{header.prefix or ''}{value}", whose)
        return headers, sorted(secrets, key=len, reverse=True)

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


def _spec(document: Mapping[str, Any], name: str) -> ToolSpec | None:
    raw = tool_spec(document, name)
    if not raw:
        return None
    try:
        return ToolSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidObject(f"Tool {name}: {place}: {first['msg']}", field=place) from None


def _without(schema: Mapping[str, Any], builtin: Builtin) -> dict[str, Any]:
    """Return the schema of the arguments that are left when some are fixed."""
    fixed = set(builtin.config or ())
    left = {name: part for name, part in (schema.get("properties") or {}).items() if name not in fixed}
    required = [name for name in schema.get("required") or () if name not in fixed]
    return {**schema, "properties": left, "required": required}
