"""Finds what people call things: kinds by any of their names, objects by a beginning of theirs or ``@latest``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fairlead.cli.exits import NotFound
from fairlead.cli.session import Session
from fairlead.core import names
from fairlead.errors import Refused
from fairlead.kube.errors import HTTP_OK_LIMIT, to_error

LATEST: Final = "@latest"
LATEST_FAILED: Final = "@latest-failed"
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind as the server offers it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    words: frozenset[str]
    categories: frozenset[str]

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str, name: str = "") -> str:
        """Return the URL path of the collection, or of one object."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")

    def title(self, name: str) -> str:
        """Return an object's name as kubectl prints it."""
        group = f".{self.group}" if self.group else ""
        return f"{self.kind.lower()}{group}/{name}"


async def find_kinds(session: Session, word: str) -> list[Kind]:
    """Return the kinds that *word* means: one by any of its names, or all of a category.

    Raises:
        NotFound: none.
    """
    wanted = word.lower()
    async for kinds in _groups(session):
        named = [kind for kind in kinds if wanted in kind.words]
        if named:
            return named[:1]
        members = [kind for kind in kinds if wanted in kind.categories]
        if members:
            return members
    raise NotFound(f'the server has no resource type "{word}"')


async def _groups(session: Session) -> Any:
    """Yield the kinds of one group after the other: Fairlead's own first, since they are meant most often."""
    first = [names.API_VERSION, "v1"]
    for version in first:
        yield await _kinds_of(session, version)
    document = await _get(session, "/apis")
    for group in document.get("groups") or ():
        version = group["preferredVersion"]["groupVersion"]
        if version not in first:
            yield await _kinds_of(session, version)


async def _kinds_of(session: Session, version: str) -> list[Kind]:
    document = await _get(session, f"/apis/{version}" if "/" in version else f"/api/{version}")
    return list(parse_kinds(version, document))


def parse_kinds(version: str, document: dict[str, Any]) -> Iterator[Kind]:
    """Yield the kinds of an ``APIResourceList``."""
    group = version.rpartition("/")[0]
    for item in document.get("resources") or ():
        plural = item["name"]
        if "/" in plural:
            continue
        single = item.get("singularName") or item["kind"].lower()
        short = item.get("shortNames") or ()
        words = {plural, single, item["kind"].lower(), *short, *(f"{word}s" for word in short)}
        words |= {f"{word}.{group}" for word in (plural, single)} if group else set()
        yield Kind(
            version,
            item["kind"],
            plural,
            bool(item.get("namespaced")),
            frozenset(words),
            frozenset(item.get("categories") or ()),
        )


async def _get(session: Session, path: str) -> dict[str, Any]:
    status, headers, body = await session.kube.raw("GET", path)
    if status == 404:  # noqa: PLR2004 - HTTP's
        return {}
    if status >= HTTP_OK_LIMIT:
        raise to_error(status, headers, body, what=f"GET {path}")
    parsed: dict[str, Any] = orjson.loads(body)
    return parsed


async def find_run(session: Session, text: str) -> dict[str, Any]:
    """Return the WorkflowRun that *text* means: a name, its beginning, ``kind/name``, ``@latest``, ``@latest-failed``.

    Raises:
        NotFound: none.
        Refused: several.
    """
    runs = await session.kube.list(names.API_VERSION, "WorkflowRun", namespace=session.namespace)
    return choose(runs, text, what="run", where=session.namespace)


async def find_workflow(session: Session, text: str) -> dict[str, Any]:
    """Return the Workflow that *text* means."""
    workflows = await session.kube.list(names.API_VERSION, "Workflow", namespace=session.namespace)
    return choose(workflows, text, what="workflow", where=session.namespace)


def choose(objects: Sequence[dict[str, Any]], text: str, *, what: str, where: str) -> dict[str, Any]:
    """Return the one object that *text* means.

    Raises:
        NotFound: none.
        Refused: several.
    """
    latest = sorted(objects, key=lambda obj: (obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]))
    if text in (LATEST, LATEST_FAILED):
        found = [obj for obj in latest if text == LATEST or run_failed(obj)]
        if not found:
            raise NotFound(f"there is no {'failed ' if text == LATEST_FAILED else ''}{what} in namespace {where}")
        return found[-1]
    name = text.rpartition("/")[2]
    if not name:  # the beginning of every name
        raise NotFound(f'"{text}" names no {what}: write its name, the beginning of it, or {LATEST}')
    exact = [obj for obj in latest if obj["metadata"]["name"] == name]
    if exact:
        return exact[0]
    found = [obj for obj in latest if obj["metadata"]["name"].startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(obj["metadata"]["name"] for obj in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise Refused(f'"{name}" could be {shown}{more}: write more of the name')
    raise NotFound(f'there is no {what} "{name}" in namespace {where}{_suggestion(name, latest)}')


def _suggestion(name: str, objects: Sequence[dict[str, Any]]) -> str:
    import difflib

    close = difflib.get_close_matches(name, [obj["metadata"]["name"] for obj in objects], 1)
    return f'; did you mean "{close[0]}"?' if close else ""


def condition(obj: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition of an object; empty if it has none of that type."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), {})


def run_failed(run: dict[str, Any]) -> bool:
    """Whether a run has ended without success."""
    return condition(run, "Succeeded").get("status") == "False"
