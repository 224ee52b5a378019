"""``get``: what there is, as the server shows it."""

from __future__ import annotations

from typing import Any

import click

from fairlead.cli.options import Target, command, output_option, target_options

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@command(
    examples="""
    fairlead get                               # everything of Fairlead's
    fairlead get run -o wide
    fairlead get flow triage -o yaml
    fairlead get run @latest -o json
    """
)
@click.argument("kind", default="fairlead")
@click.argument("names", nargs=-1)
@click.option("-l", "--selector", default="", help="Only objects with these labels: k=v,k2!=v2.")
@click.option("--no-headers", is_flag=True, help="Leave the table's headers out.")
@output_option
@target_options(everywhere=True)
def get(target: Target, *, kind: str, names: tuple[str, ...], selector: str, no_headers: bool, fmt: str) -> int:
    """List objects of KIND, or show those with NAMES.

    KIND is any name of a kind (flow, run, fagent, llm, pods, …), kind/name, or a category; without it, everything of
    Fairlead's. A name may be the beginning of one; @latest is the latest.
    """
    from fairlead.cli.session import run_session

    if "/" in kind and not names:
        kind, _, name = kind.partition("/")
        names = (name,)
    return run_session(
        target, lambda session: _get(session, kind, names, fmt=fmt, selector=selector, headers=not no_headers)
    )


async def _get(session: Any, word: str, wanted: tuple[str, ...], *, fmt: str, selector: str, headers: bool) -> int:
    from fairlead.cli import exits, printing
    from fairlead.cli.kinds import find_kinds

    kinds = await find_kinds(session, word)
    shown = 0
    objects: list[dict[str, Any]] = []
    for kind in kinds:
        page = await _fetch(session, kind, wanted, selector=selector, table=fmt in ("table", "wide"))
        rows = page.get("rows") if "columnDefinitions" in page else page.get("items")
        if not rows:
            continue
        if "columnDefinitions" in page:
            if shown and headers:
                click.echo()
            _print_table(page, kind if len(kinds) > 1 else None, wide=fmt == "wide", session=session, headers=headers)
        objects += page.get("items") or []
        shown += len(rows)
    if fmt == "name":
        for obj in objects:
            group = obj["apiVersion"].rpartition("/")[0]
            click.echo(f"{obj['kind'].lower()}{f'.{group}' if group else ''}/{obj['metadata']['name']}")
    elif fmt in ("json", "yaml"):
        single = len(wanted) == 1 and len(objects) == 1
        listed = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects}
        (printing.print_json if fmt == "json" else printing.print_yaml)(objects[0] if single else listed)
    if not shown:
        printing.hint("No resources found" + (f" in {session.scope} namespace." if session.scope else "."))
    return exits.OK


async def _fetch(session: Any, kind: Any, wanted: tuple[str, ...], *, selector: str, table: bool) -> dict[str, Any]:
    """Return a Table or a list of what is wanted of one kind."""
    import orjson

    from fairlead.kube.errors import HTTP_OK_LIMIT, to_error

    query = {"labelSelector": selector} if selector else {}
    scope = session.scope if kind.namespaced else ""
    headers = {"Accept": _TABLE} if table else {}
    status, more, body = await session.kube.raw("GET", kind.path(scope), query=query, headers=headers)
    if status >= HTTP_OK_LIMIT:
        raise to_error(status, more, body, what=f"list {kind.plural}")
    page: dict[str, Any] = orjson.loads(body)
    for item in page.get("items") or ():
        item.setdefault("apiVersion", kind.api_version)
        item.setdefault("kind", kind.kind)
    return _only(page, wanted, kind=kind, where=scope) if wanted else page


def _only(page: dict[str, Any], wanted: tuple[str, ...], *, kind: Any, where: str) -> dict[str, Any]:
    from fairlead.cli.kinds import choose

    key = "rows" if "rows" in page else "items"
    by_uid = {(row.get("object") or row)["metadata"]["uid"]: row for row in page[key]}
    objects = [row.get("object") or row for row in page[key]]
    chosen = [choose(objects, name, what=kind.kind.lower(), where=where) for name in wanted]
    return {**page, key: [by_uid[obj["metadata"]["uid"]] for obj in chosen]}


def _print_table(page: dict[str, Any], prefix: Any, *, wide: bool, session: Any, headers: bool) -> None:
    from fairlead.cli.printing import print_rows

    columns = [(i, c) for i, c in enumerate(page["columnDefinitions"]) if wide or not c.get("priority")]
    titles = [column["name"].upper() for _, column in columns]
    rows = []
    for row in page["rows"]:
        meta = row["object"]["metadata"]
        cells = ["<none>" if row["cells"][i] is None else str(row["cells"][i]) for i, _ in columns]
        if prefix is not None:
            cells[0] = prefix.title(cells[0])
        rows.append([meta.get("namespace", ""), *cells] if session.target.all_namespaces else cells)
    if session.target.all_namespaces:
        titles = ["NAMESPACE", *titles]
    print_rows(rows, headers=titles if headers else ())
