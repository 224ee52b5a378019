"""Tool: what models and nodes may call: a configured built-in tool, an HTTP call, or an MCP server."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from fairlead.api.meta import (
    AGE,
    LIST_MAP_BY_NAME,
    LIST_SET,
    Column,
    JsonObject,
    KubeModel,
    ObjectMeta,
    Resource,
    StatusBase,
    ToolName,
    Url,
    ValueFrom,
    condition_column,
    rule,
    rules,
)

Argument = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class Builtin(KubeModel):
    """A built-in tool with some of its arguments fixed."""

    name: ToolName
    """The built-in tool: `sql`, `json_query`, `http_request`, `python`, `shell`."""
    config: JsonObject | None = None
    """Arguments that are always the same. Whoever calls the tool neither sees nor sets them. `python` and `shell` have
    two more that nobody else can set: `network: {allow: [host]}` and `limits`, as in `code`."""


class Header(KubeModel):
    """A header of the request."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.value) != has(self.valueFrom)",
                "set exactly one of value and valueFrom",
                reason="FieldValueRequired",
            )
        )
    )

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
    """Its name."""
    value: Annotated[str | None, Field(max_length=4096, pattern=r"^[^\r\n]*$")] = None
    """Its value. Never a secret: use `valueFrom`."""
    value_from: ValueFrom | None = None
    """A secret value; the gateway reads it when it sends the request."""
    prefix: Annotated[str | None, Field(max_length=64, pattern=r"^[^\r\n]*$")] = None
    """What stands before the value, such as `"Bearer "`."""


class HttpCall(KubeModel):
    """A request to one address. The arguments are placed by their names; everything else is fixed here."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """How it is asked."""
    url: Url
    """The address. `{name}` in its path or query stands for the argument of that name, escaped."""
    headers: Annotated[tuple[Header, ...] | None, Field(max_length=32, json_schema_extra=LIST_MAP_BY_NAME)] = None
    """Headers of every request."""
    query: Annotated[tuple[Argument, ...] | None, Field(max_length=64, json_schema_extra=LIST_SET)] = None
    """Arguments that are put into the query; absent: all that are neither in `url` nor in `body`, for GET, HEAD and
    DELETE."""
    body: Annotated[tuple[Argument, ...] | None, Field(max_length=64, json_schema_extra=LIST_SET)] = None
    """Arguments that are sent as one JSON object; absent: all that are neither in `url` nor in `query`, for POST, PUT
    and PATCH."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """The longest that an answer may take."""


class McpServer(KubeModel):
    """A server of tools (Model Context Protocol)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("has(self.url) != has(self.image)", "set exactly one of url and image", reason="FieldValueRequired")
        )
    )

    url: Url | None = None
    """The server's address."""
    image: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """An image that serves it."""
    allow: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] | None,
        Field(min_length=1, max_length=256, json_schema_extra=LIST_SET),
    ] = None
    """Names of its tools that may be called; absent: all."""


class ToolSpec(KubeModel):
    """What is called (`builtin`, `http` or `mcp`), and what has to be heeded."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.builtin), has(self.http), has(self.mcp)].filter(x, x).size() == 1",
                "set exactly one of builtin, http and mcp",
                reason="FieldValueRequired",
            ),
            rule(
                "!has(self.parameters) || has(self.http)",
                "parameters is for http, the other tools have their own: remove it",
                field=".parameters",
                reason="FieldValueForbidden",
            ),
            rule(
                "!has(self.approvers) || self.requireApproval",
                "approvers decide only where an approval is required: set requireApproval: true or remove approvers",
                field=".approvers",
            ),
        )
    )

    description: Annotated[str, Field(max_length=4096)] = ""
    """What it does and when to use it, as models are told; absent: the built-in tool's own description."""
    builtin: Builtin | None = None
    """A built-in tool with some of its arguments fixed."""
    http: HttpCall | None = None
    """A request to one address."""
    mcp: McpServer | None = None
    """A server of tools (Model Context Protocol)."""
    parameters: JsonObject | None = None
    """For `http`: a JSON Schema of the arguments, an object; absent: every name in `url`, `query` and `body` is a text
    that must be given."""
    require_approval: bool = False
    """Whether a person has to approve each call before it is made."""
    approvers: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] | None,
        Field(min_length=1, max_length=64, json_schema_extra=LIST_SET),
    ] = None
    """Users or groups that may approve, of those who may update runs; absent: all of them."""
    idempotent: bool | None = None
    """Whether a call may be made twice. One whose outcome a crash left unknown is made again if it may, and fails as
    `OutcomeUnknown` if not. Absent: true for `sql`, `json_query`, for http GET and HEAD, and for `python` and `shell`
    without a network; else false."""


class ToolStatus(StatusBase):
    """What the operator found."""

    type: Annotated[str, Field(max_length=253)] = ""
    """The built-in tool, `http` or `mcp`."""


class Tool(KubeModel):
    """Something that nodes, models and agents may call by name. It stands before a built-in tool of the same name."""

    api_version: str = ""
    kind: Literal["Tool"] = "Tool"
    metadata: ObjectMeta = ObjectMeta()
    spec: ToolSpec
    """What is called."""
    status: ToolStatus = ToolStatus()
    """What the operator found."""


RESOURCE: Final = Resource(
    kind="Tool",
    plural="tools",
    short_names=("ftool",),
    model=Tool,
    columns=(
        condition_column("Ready", "Ready", "status", "Whether it can be called."),
        Column("Type", ".status.type", "The built-in tool, http or mcp."),
        AGE,
        condition_column("Reason", "Ready", "reason", "Why it is ready or not.", wide=True),
        condition_column("Message", "Ready", "message", "What to do next.", wide=True),
    ),
)
