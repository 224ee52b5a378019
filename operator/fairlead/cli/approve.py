"""``approvals``, ``approve``, ``reject``: what runs ask of people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, command, program, run_argument, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

_TEXT: Final = 60
_VERBS: Final = {True: ("approve", "approved"), False: ("reject", "rejected")}


@command(
    examples="""
    fairlead approvals                 # all that waits in the namespace
    fairlead approvals triage-x1       # everything that this run asked, with who decided, when and why
    """
)
@run_argument(default="")
@click.option("-o", "--output", "fmt", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@target_options(everywhere=True, gateway=True)
def approvals(target: Target, *, run: str, fmt: str) -> int:
    """List what waits for a decision, oldest first; of a RUN also what was decided."""
    from fairlead.cli.session import run_session

    async def work(session: Session) -> int:
        from fairlead.cli import exits, printing
        from fairlead.cli.gateway import open_gateway
        from fairlead.cli.reading import find_record

        async with open_gateway(session) as gateway:
            record = await find_record(session, gateway, run) if run else None
            where = (record["namespace"], record["uid"]) if record else (session.scope,)
            found = await gateway.approvals(*where)
        if fmt != "table":
            printing.print_as(found, fmt)
        elif not found:
            printing.hint("nothing waits for a decision" if not run else f"{run} has asked nothing")
        else:
            now = session.clock.now()
            head = ["RUN", "NODE", "STATE", "ASKED" if not run else "DECIDED BY", "LEFT" if not run else "COMMENT"]
            rows = [(decided_row if run else pending_row)(approval, now) for approval in found]
            printing.print_rows(rows, headers=[*head, "APPROVERS", "MESSAGE"])
        return exits.OK

    return run_session(target, work)


def place(approval: Mapping[str, Any]) -> str:
    """Return the node that asks, with its item."""
    return f"{approval['node']}[{approval['item']}]" if approval.get("item") else str(approval["node"])


def pending_row(approval: Mapping[str, Any], now: Any) -> list[str]:
    """Return the row of an approval that waits."""
    from fairlead.cli.printing import age, parse_time

    deadline = parse_time(approval.get("deadline"))
    left = age(deadline - now) if deadline else ""
    asked = age(now - (parse_time(approval["requestedAt"]) or now))
    return [approval["runName"], place(approval), approval["state"], f"{asked} ago", left, *_asked(approval)]


def decided_row(approval: Mapping[str, Any], _now: Any) -> list[str]:
    """Return the row of an approval that was decided, or waits."""
    by = str(approval.get("decidedBy") or "")
    via = str(approval.get("via") or "")
    if not approval.get("verified", True):
        by = f"{by or via} (not verified)"
    return [
        *(approval["runName"], place(approval), approval["state"]),
        *(by or via, str(approval.get("comment") or ""), *_asked(approval)),
    ]


def _asked(approval: Mapping[str, Any]) -> list[str]:
    from fairlead.cli.printing import shorten

    return [",".join(approval.get("approvers") or ()) or "<any>", shorten(str(approval.get("message") or ""), _TEXT)]


def _decision_options(function: Callable[..., Any]) -> Callable[..., Any]:
    decorated: Any = function
    for option in (
        click.option(
            "--unverified",
            is_flag=True,
            help="Say it by an annotation, without proof of who you are; refused where approvers are named.",
        ),
        click.option("--all", "everything", is_flag=True, help="Everything that the run, or its NODE, asks."),
        click.option("--item", default=None, help="Of a forEach: the item that is meant."),
        click.option("-m", "--comment", default="", help="Why; it is kept with the decision."),
        click.argument("node", required=False),
        run_argument(),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@command(
    examples="""
    fairlead approve @latest                       # the only thing that it asks
    fairlead approve triage-x1 ship -m "checked"   # that of node ship
    """
)
@_decision_options
@target_options(gateway=True)
def approve(target: Target, *, run: str, node: str | None, **how: Any) -> int:
    """Say yes to what RUN asks. Who you are is proven by your Kubernetes token and kept with the decision."""
    return _decide(target, run, node or "", approved=True, how=how)


@command(
    examples="""
    fairlead reject @latest -m "the tone is wrong"
    fairlead reject triage-x1 ship --item 3
    """
)
@_decision_options
@target_options(gateway=True)
def reject(target: Target, *, run: str, node: str | None, **how: Any) -> int:
    """Say no to what RUN asks. A rejected node fails; a rejected tool call is told to the model."""
    return _decide(target, run, node or "", approved=False, how=how)


def _decide(target: Target, run: str, node: str, *, approved: bool, how: Mapping[str, Any]) -> int:
    from fairlead.cli.session import run_session

    async def work(session: Session) -> int:
        from fairlead.cli import exits
        from fairlead.cli.gateway import open_gateway, own_token
        from fairlead.cli.reading import find_record

        async with open_gateway(session) as gateway:
            record = await find_record(session, gateway, run)
            asked = await gateway.approvals(record["namespace"], record["uid"])
            chosen = choose(asked, run=record["name"], node=node, item=how["item"], everything=how["everything"])
            if not how["unverified"]:
                await _need_token(await own_token(session), record["name"], chosen[0]["node"], approved=approved)
            else:
                check_annotation(chosen)
            for approval in chosen:
                if how["unverified"]:
                    await _annotate(session, approval, approved=approved, comment=how["comment"])
                else:
                    verdict = {"key": approval["key"], "approved": approved, "comment": how["comment"]}
                    await gateway.decide(record["namespace"], record["uid"], verdict)
                _say(approval, approved=approved, verified=not how["unverified"])
        return exits.OK

    return run_session(target, work)


def _open(approval: Mapping[str, Any]) -> bool:
    return bool(approval["state"] == "Pending")


def _say(approval: Mapping[str, Any], *, approved: bool, verified: bool) -> None:
    from fairlead.cli.printing import hint, say

    said = _VERBS[approved][1] + ("" if verified else " by annotation, not verified")
    say(f"{approval['runName']} {place(approval)} {said}")
    hint(f"  {approval.get('message') or ''}".rstrip())
    if tool := approval.get("tool"):
        import json

        hint(f"  {tool['name']} {json.dumps(tool.get('arguments') or {}, ensure_ascii=False)}")


def choose(
    asked: Sequence[dict[str, Any]], *, run: str, node: str, item: str | None, everything: bool
) -> list[dict[str, Any]]:
    """Return what is decided: the one thing that is meant, or all of it.

    What was decided before is meant where it is named and nothing of that name waits: the gateway says who was first.

    Raises:
        NotFound: nothing waits there.
        Refused: several things do, and not all are meant.
    """
    from fairlead.cli.exits import NotFound
    from fairlead.errors import Refused

    meant = [one for one in asked if node in ("", one["node"], place(one)) and _is_item(one, item)]
    found = [one for one in meant if _open(one)]
    if not found and node and len({place(one) for one in meant}) == 1:
        return [max(meant, key=lambda one: str(one["requestedAt"]))]
    if not found:
        there = ", ".join(place(one) for one in asked if _open(one))
        raise NotFound(f"{run} does not wait for a decision{f' of {node}; it waits for {there}' if there else ''}")
    if len(found) > 1 and not everything:
        shown = ", ".join(place(one) for one in found)
        raise Refused(f"{run} waits for several decisions: {shown}. Name the node (and --item), or say --all")
    return found


def _is_item(approval: Mapping[str, Any], item: str | None) -> bool:
    """Return whether an approval is of an item; that with the empty name is kept as two quotation marks."""
    return item is None or approval.get("item") == (item or '""')


def check_annotation(chosen: Sequence[Mapping[str, Any]]) -> None:
    """Check that an annotation can decide *chosen*: the next one would take its place before it is read.

    Raises:
        Refused: it is more than one thing, was decided before, or may be decided by those only who show who they are.
    """
    from fairlead.errors import Refused

    first = chosen[0]
    if len(chosen) > 1:
        shown = ", ".join(place(one) for one in chosen)
        raise Refused(f"--unverified decides one thing at a time: name one of {shown}")
    if not _open(first):
        raise Refused(f"{place(first)} waits for no decision: it is {first['state']}", reason="AlreadyDecided")
    if approvers := first.get("approvers"):
        who = ", ".join(approvers)
        raise Refused(f"{place(first)} may be decided by {who} only, and an annotation does not show who wrote it")


async def _need_token(token: str, run: str, node: str, *, approved: bool) -> None:
    """Raise if the person cannot show the gateway who they are."""
    from fairlead.errors import Refused

    if token:
        return
    verb = _VERBS[approved][0]
    raise Refused(
        "a decision is kept with who made it, which takes a token; your kubeconfig has a certificate, which only the "
        f"API server can check. Use a user with a token, or: {program()} {verb} {run} {node} --unverified",
        reason="Unauthorized",
    )


async def _annotate(session: Session, approval: Mapping[str, Any], *, approved: bool, comment: str) -> None:
    from fairlead.core import names
    from fairlead.kube import Ref

    text = place(approval) + (f"={comment}" if comment else "")
    change = {"metadata": {"annotations": {f"fairlead.dev/{_VERBS[approved][0]}": text}}}
    ref = Ref(names.API_VERSION, "WorkflowRun", approval["runName"], approval["namespace"])
    await session.kube.merge_patch(ref, change)
