"""What a request asks for: its attributes as authorization sees them, its options, and its body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson
import yaml

from fairlead.localcluster.apiserver.errors import Json, bad_request, too_large, unsupported_media
from fairlead.localcluster.apiserver.negotiation import media_type
from fairlead.localcluster.apiserver.protobuf import parse_protobuf

MAX_BODY_BYTES = 3 * 1024 * 1024
MAX_YAML_NODES = 50_000
"""What the aliases of a YAML body may expand to."""

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}
_COLLECTION_VERBS = {"GET": "list", "HEAD": "list", "DELETE": "deletecollection"}
_TRUE = ("true", "1", "True", "TRUE", "t", "T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Who is asking is not part of it; what for is."""

    verb: str
    path: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def is_resource(self) -> bool:
        """Tell whether this is about objects, not a plain path."""
        return bool(self.resource)

    @property
    def full_resource(self) -> str:
        """Return ``pods`` or ``pods/log``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class User:
    """Who is asking."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> Json:
        """Return it as a ``UserInfo``."""
        info: Json = {"username": self.name}
        if self.uid:
            info["uid"] = self.uid
        if self.groups:
            info["groups"] = list(self.groups)
        if self.extra:
            info["extra"] = {key: list(values) for key, values in self.extra.items()}
        return info


@dataclass(slots=True)
class Call:
    """One HTTP request, its user known and its body read."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    attributes: Attributes
    body: bytes = b""
    user: User = User("system:anonymous", ("system:unauthenticated",))
    warnings: list[str] = field(default_factory=list)

    def arg(self, name: str) -> str:
        """Return a query parameter, or the empty string."""
        return self.query.get(name, [""])[0]

    def flag(self, name: str) -> bool:
        """Return whether a query parameter is true."""
        return self.arg(name) in _TRUE

    def number(self, name: str) -> int | None:
        """Return a query parameter that is a number, or None."""
        text = self.arg(name)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None

    def revision(self) -> int | None:
        """Return the resourceVersion that a read names, or None."""
        text = self.arg("resourceVersion")
        if text and not text.isdigit():
            raise bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
        return int(text) if text else None

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be written."""
        values = self.query.get("dryRun", [])
        for value in values:
            if value not in {"All", ""}:
                raise bad_request(f'dryRun: Unsupported value: "{value}": supported values: "All"')
        return "All" in values

    @property
    def manager(self) -> str:
        """The field manager: as given, or from the client's name."""
        return self.arg("fieldManager") or self.headers.get("user-agent", "").split("/")[0] or "unknown"

    def content_type(self) -> str:
        """Return the media type of the body without its parameters."""
        return media_type(self.headers.get("content-type", "application/json"))

    def json_body(self, *, optional: bool = False) -> Any:
        """Return the body as JSON values.

        Raises:
            ApiError: it is neither JSON nor YAML.
        """
        if not self.body and optional:
            return {}
        match self.content_type():
            case "application/json" | "":
                return parse_json(self.body)
            case "application/yaml" | "application/apply-patch+yaml":
                return parse_yaml(self.body)
            case "application/vnd.kubernetes.protobuf":
                return parse_protobuf(self.body)
            case _:
                raise unsupported_media(("application/json", "application/yaml"))


def parse_json(body: bytes) -> Any:
    """Parse JSON.

    Raises:
        ApiError: 400.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the object provided is unrecognized (must be of type JSON): {error}") from None


def parse_yaml(body: bytes) -> Any:
    """Parse one YAML document into what JSON can hold.

    Raises:
        ApiError: 400; also when aliases make the document far larger than it is written.
    """
    if body.lstrip()[:1] == b"{":
        return parse_json(body)
    try:
        document = yaml.load(body, Loader=yaml.CSafeLoader)
        _check_size(document)
        return orjson.loads(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))
    except (yaml.YAMLError, orjson.JSONEncodeError, RecursionError) as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from None


def _check_size(document: Any) -> None:
    pending, seen = [document], 0
    while pending:
        value = pending.pop()
        seen += 1
        if seen > MAX_YAML_NODES:
            raise bad_request("error converting YAML to JSON: document contains excessive aliasing")
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def parse_query(raw: bytes) -> dict[str, list[str]]:
    """Return the query's parameters."""
    return parse_qs(raw.decode("latin-1"), keep_blank_values=True) if raw else {}


def attributes_of(method: str, path: str, query: Mapping[str, list[str]]) -> Attributes:
    """Return what the request is about, as authorization sees it.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
    """
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return Attributes(verb=method.lower(), path=path)
    return _resource_attributes(method, path, query, where=(group, version, rest))


def _resource_attributes(
    method: str, path: str, query: Mapping[str, list[str]], *, where: tuple[str, str, list[str]]
) -> Attributes:
    group, version, rest = where
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in {"status", "finalize"}:  # noqa: PLR2004
            rest = rest[2:]
    resource, name, subresource = [*rest, "", "", ""][:3]
    verb = _VERBS.get(method, "") if name else _COLLECTION_VERBS.get(method, _VERBS.get(method, ""))
    if verb == "list":
        if query.get("watch", [""])[0] in _TRUE:
            verb = "watch"
        name = _selected_name(query)
    return Attributes(
        verb=verb,
        path=path,
        group=group,
        version=version,
        resource=resource,
        subresource="/".join([subresource, *rest[3:]]) if len(rest) > 3 else subresource,  # noqa: PLR2004
        namespace=namespace,
        name=name,
    )


def _selected_name(query: Mapping[str, list[str]]) -> str:
    """Return the name that a field selector limits a list to: RBAC may allow just that one."""
    for term in query.get("fieldSelector", [""])[0].split(","):
        field_name, _, value = term.replace("==", "=").partition("=")
        if field_name == "metadata.name":
            return value
    return ""


def check_length(size: int) -> None:
    """Refuse a body that is too large.

    Raises:
        ApiError: 413.
    """
    if size > MAX_BODY_BYTES:
        raise too_large(f"Request entity too large: limit is {MAX_BODY_BYTES}")
