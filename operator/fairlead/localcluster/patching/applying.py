"""Server-side apply, and keeping track of owners on every other write.

Source: the Kubernetes documentation of server-side apply.
"""

from __future__ import annotations

from typing import Any

from fairlead.localcluster.patching import managers as owners
from fairlead.localcluster.patching.errors import ApplyConflict, ConflictCause, PatchError
from fairlead.localcluster.patching.fieldset import (
    NOTHING,
    Comparison,
    FieldSet,
    Path,
    children,
    compare,
    element,
    is_granular,
    paths_of,
    prefixes,
    show,
)
from fairlead.localcluster.patching.managers import Manager, Managers, Owned
from fairlead.localcluster.patching.migrating import KUBECTL, client_side_fields, with_last_applied
from fairlead.localcluster.schema.tree import Schema

Json = dict[str, Any]


def server_side_apply(  # noqa: PLR0913  (what the request says, one by one)
    live: Json | None,
    applied: Json,
    *,
    schema: Schema | None,
    manager: str,
    force: bool,
    subresource: str,
    now: str,
    has_status: bool = True,
) -> Json:
    """Return the object after *manager* applied *applied*, managedFields included.

    *live* is None when the apply creates the object; *subresource* is ``status``, or empty for the object itself;
    *now* is RFC 3339; *has_status* says that the kind has a status subresource, which its own endpoint leaves alone.

    Raises:
        ApplyConflict: other managers own fields that would change, and *force* is not set.
    """
    if (applied.get("metadata") or {}).get("managedFields"):
        raise PatchError("metadata.managedFields must be nil", status=400)
    wanted = _relevant(applied, subresource, has_status=has_status)
    before = _bare(live) if live is not None else _identity(applied)
    known = _known_owners(live, before, schema, now)
    me = owners.applier(manager, subresource)
    last = known.get(me)
    own = paths_of(schema, wanted)
    version = str(applied.get("apiVersion", ""))
    known[me] = Owned(own, version, last.time if last else None)
    merged = _pruned(schema, merge(schema, before, wanted), last, known)
    change = compare(schema, before, merged)
    inherits = manager == KUBECTL and live is not None
    spared = client_side_fields(before, schema) if inherits and not force else NOTHING
    known = _settled(known, me, change, force=force, spared=spared)
    moved = live is None or _changed(change) or last is None or last.paths != own - owners.stripped()
    if me in known:
        known[me] = Owned(own, version, now if moved else (last.time if last else now))
    return owners.written(with_last_applied(merged, applied) if inherits else merged, known)


def track_update(  # noqa: PLR0913  (what the request says, one by one)
    old: Json | None,
    new: Json,
    *,
    schema: Schema | None,
    manager: str,
    operation: str,
    subresource: str,
    now: str,
    has_status: bool = True,
) -> Json:
    """Return *new* with managedFields kept right after a create, an update or a patch (*operation* ``Update``)."""
    if owners.is_reset(new):
        return owners.written(_bare(new), {})
    given = owners.read(new)
    known = given or (owners.read(old) if old is not None else {})
    after = _bare(new)
    if old is not None and not known:
        return owners.written(after, {})
    before = _bare(old) if old is not None else _identity(new)
    change = compare(
        schema,
        _relevant(before, subresource, has_status=has_status),
        _relevant(after, subresource, has_status=has_status),
    )
    taken = change.added | change.modified
    known = owners.without(known, lambda _: taken | change.removed)
    owned = frozenset(taken) - owners.stripped()
    if owned:
        version = str(new.get("apiVersion", ""))
        me = Manager(manager, operation, version if operation == "Update" else "", subresource)
        earlier = known[me].paths if me in known else NOTHING
        known[me] = Owned(owned | earlier, version, now)
    return owners.written(after, known)


def _pruned(schema: Schema | None, merged: Json, last: Owned | None, known: Managers) -> Json:
    """Return *merged* less what was applied the *last* time and belongs to nobody now."""
    if last is None:
        return merged
    everybody = frozenset[Path]().union(*(owned.paths for owned in known.values()))
    gone = prefixes(last.paths) - prefixes(everybody)
    if not gone:
        return merged
    kept: Json = _without(schema, merged, gone & prefixes(paths_of(schema, merged)), ())
    return kept


def _bare(obj: Json) -> Json:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return obj
    return obj | {"metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _identity(obj: Json) -> Json:
    """Return what every object has before anybody wrote it."""
    return {key: obj[key] for key in ("apiVersion", "kind") if key in obj} | {"metadata": {}}


def _relevant(obj: Json, subresource: str, *, has_status: bool) -> Json:
    """Return the part of *obj* that a write to this endpoint can change."""
    if subresource == "status":
        metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key in {"name", "namespace"}}
        return {key: obj[key] for key in ("apiVersion", "kind", "status") if key in obj} | {"metadata": metadata}
    if has_status and "status" in obj:
        return {key: value for key, value in obj.items() if key != "status"}
    return obj


def _known_owners(live: Json | None, before: Json, schema: Schema | None, now: str) -> Managers:
    if live is None:
        return {}
    known = owners.read(live)
    if known:
        return known
    change = compare(schema, _identity(before), before)
    version = str(before.get("apiVersion", ""))
    legacy = Manager(owners.BEFORE_FIRST_APPLY, "Update", version)
    return {legacy: Owned(frozenset(change.added | change.modified), version, now)}


def _changed(change: Comparison) -> bool:
    return bool(change.added or change.modified or change.removed)


def _settled(known: Managers, me: Manager, change: Comparison, *, force: bool, spared: FieldSet) -> Managers:
    """Take from the others what changed, or refuse; *spared* are fields that change hands without a conflict."""
    taken = change.added | change.modified
    contested = {identity: owned.paths & taken for identity, owned in known.items() if identity != me}
    if not force and frozenset().union(*contested.values()) - spared:
        raise ApplyConflict(
            [
                ConflictCause(show(path), f"conflict with {identity}")
                for identity, paths in contested.items()
                for path in sorted(paths - spared)
            ]
        )
    lost = taken | change.removed
    return owners.without(known, lambda identity: set() if identity == me else lost)


def merge(schema: Schema | None, live: Any, wanted: Any) -> Any:
    """Return *live* with *wanted* merged in, by the schema's rules for maps and lists."""
    if isinstance(live, dict) and isinstance(wanted, dict) and is_granular(schema, wanted):
        merged = dict(live)
        for key, value in wanted.items():
            child = schema.child(key) if schema is not None else None
            merged[key] = merge(child, live[key], value) if key in live else value
        return merged
    if (
        isinstance(live, list)
        and isinstance(wanted, list)
        and is_granular(schema, wanted)
        and is_granular(schema, live)
    ):
        return _merged_lists(schema, live, wanted)
    return wanted


def _merged_lists(schema: Schema | None, live: list[Any], wanted: list[Any]) -> list[Any]:
    """Merge by key. Items that only *live* has keep their place, the others come in the order of *wanted*."""
    items = schema.items if schema is not None else None
    old = [(element(schema, item), item) for item in live]
    new = {element(schema, item): item for item in wanted}
    mine = dict(old)
    rest = list(new)
    result: list[Any] = []

    def emit(name: str | None) -> None:
        result.append(merge(items, mine[name], new[name]) if name in mine else new[name])

    for name, item in old:
        if name not in new:
            result.append(item)
            continue
        while rest and rest[0] not in mine:
            emit(rest.pop(0))
        if rest:
            emit(rest.pop(0))
    for name in rest:
        emit(name)
    return result


def _without(schema: Schema | None, value: Any, gone: FieldSet, path: Path) -> Any:
    """Return *value* less the paths in *gone*, each with all that is below it."""
    if not gone or not is_granular(schema, value):
        return value
    kept = [
        (name, _without(child_schema, child, gone, (*path, name)))
        for name, child_schema, child in children(schema, value)
        if (*path, name) not in gone
    ]
    if isinstance(value, dict):
        return {name[2:]: child for name, child in kept}
    return [child for _, child in kept]
