"""GET: one object, lists in pages, watches."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import orjson

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import ApiError, Json, bad_request, expired, not_found
from fairlead.localcluster.apiserver.negotiation import negotiate
from fairlead.localcluster.apiserver.output import LIST_FORMS, OBJECT_FORMS, Response, Style
from fairlead.localcluster.apiserver.requests import Call
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.selectors import Selection, parse_selection
from fairlead.localcluster.apiserver.store import Key, Stored, Table, check_version
from fairlead.localcluster.apiserver.watch import parse_watch, watch

_EXPIRED_TEXT = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter."
)


def style_of(cluster: Cluster, call: Call, resource: Resource, *, kinds: frozenset[str] = OBJECT_FORMS) -> Style:
    """Return how the client wants to see objects."""
    form = negotiate(call.headers.get("accept", ""), kinds=kinds)
    include = call.arg("includeObject") or "Metadata"
    return Style(resource=resource, form=form, include_object=include, now=cluster.now())


def namespace_of(call: Call, resource: Resource) -> str:
    """Return the namespace to read or write in; a Namespace itself is in none."""
    return call.attributes.namespace if resource.namespaced else ""


def selection_of(call: Call, resource: Resource) -> Selection:
    """Return the call's selectors."""
    return parse_selection(call.arg("labelSelector"), call.arg("fieldSelector"), known=resource.selectable)


async def get(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Answer with one object."""
    style = style_of(cluster, call, resource)
    check_version(call.revision() or 0, cluster.store)
    stored = cluster.get(resource, namespace_of(call, resource), call.attributes.name)
    if stored is None:
        await cluster.store.settled()
        raise not_found(resource, call.attributes.name)
    await cluster.store.settled(stored.rv)
    return Response(body=style.one(stored), content_type=style.form.content_type)


async def watch_resource(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Answer with a stream of changes."""
    style = style_of(cluster, call, resource)
    request = parse_watch(call, resource, selection=selection_of(call, resource), style=style)
    return Response(stream=await watch(cluster, request))


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    items: list[Stored]
    last: Key | None
    """Where the next page goes on; None at the end."""
    remaining: int


async def list_resource(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Answer with a list, or with a page of one."""
    style = style_of(cluster, call, resource, kinds=LIST_FORMS)
    selection, limit = selection_of(call, resource), call.number("limit") or 0
    table = cluster.store.table(resource.table)
    revision, after, table = _starting_point(cluster, call, table)
    page = _page(table, style, selection, namespace=namespace_of(call, resource), limit=limit, after=after)
    metadata: Json = {"resourceVersion": str(revision)}
    if page.last is not None:
        metadata["continue"] = _continue_token(revision, page.last)
        if not selection:
            metadata["remainingItemCount"] = page.remaining
    await cluster.store.settled(revision)
    return Response(body=style.many(page.items, metadata), content_type=style.form.content_type)


def _starting_point(cluster: Cluster, call: Call, table: Table) -> tuple[int, Key | None, Table]:
    """Return the revision of the list, where it goes on, and the table as it was then."""
    asked, match, token = call.revision() or 0, call.arg("resourceVersionMatch"), call.arg("continue")
    if token:
        if asked:
            raise bad_request("specifying resource version is not allowed when using continue")
        revision, after = _read_token(token)
        try:
            return revision, after, table.at(revision)
        except ApiError as error:
            raise expired(_EXPIRED_TEXT) from error
    if match and not call.arg("resourceVersion"):
        raise bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match not in {"", "Exact", "NotOlderThan"}:
        raise bad_request(
            f'resourceVersionMatch: Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
        )
    check_version(asked, cluster.store)
    if match == "Exact":
        return asked, None, table.at(asked)
    return cluster.store.head, None, table


def _page(table: Table, style: Style, selection: Selection, *, namespace: str, limit: int, after: Key | None) -> Page:
    items: list[Stored] = []
    candidates = table.select(namespace, after=after)
    for stored in candidates:
        if selection and not selection.matches(style.view(stored)):
            continue
        if limit and len(items) == limit:
            return Page(items, items[-1].key, 1 + sum(1 for _ in candidates))
        items.append(stored)
    return Page(items, None, 0)


def _continue_token(revision: int, last: Key) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": revision, "start": list(last)}
    return base64.urlsafe_b64encode(orjson.dumps(token)).decode().rstrip("=")


def _read_token(text: str) -> tuple[int, Key]:
    try:
        token = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        namespace, name = token["start"]
        return int(token["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError):
        raise bad_request("continue key is not valid: the token is not one of ours") from None
