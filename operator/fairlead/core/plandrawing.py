"""Draws plans: as JSON, as text, as a Mermaid flowchart. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fairlead.core.estimates import Range
    from fairlead.core.profile import Spread
    from fairlead.core.runplan import Needed, PlannedNode, RunPlan

_PICO: Final = Decimal(10) ** 12
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9 _.,:/=+()-]")
_SPACES: Final = "   "
_LABEL: Final = 60
_MARK: Final = {True: "there", False: "missing", None: "not looked up"}
_SHAPES: Final = {
    "llm": ('(["', '"])'),
    "agent": ('[["', '"]]'),
    "workflow": ('[["', '"]]'),
    "approval": ('{{"', '"}}'),
    "wait": ('(("', '"))'),
}


def usd(picodollars: int | None) -> str:
    """Return an amount as a decimal; n/a where it is not known."""
    if picodollars is None:
        return "n/a"
    text = f"{Decimal(picodollars) / _PICO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rounded(picodollars: int, *, up: bool = False) -> str:
    """Return an amount for people: two digits that matter, and at least cents."""
    if not picodollars:
        return "$0"
    amount = Decimal(picodollars) / _PICO
    places = max(2, 1 - amount.adjusted())
    unit = Decimal(1).scaleb(-places)
    shown = amount.quantize(unit, rounding="ROUND_CEILING" if up else "ROUND_FLOOR")
    return f"${shown:f}"


def _cost(cost: Range | None) -> str:
    if cost is None:
        return "n/a"
    least, most = rounded(cost.least), rounded(cost.most, up=True)
    return least if least == most else f"{least} to {most}"


def _count(count: Range) -> str:
    return f"{count.least:,}" if count.least == count.most else f"{count.least:,} to {count.most:,}"


def to_json(plan: RunPlan) -> dict[str, Any]:
    """Return a plan as JSON."""
    return {
        "workflow": plan.name,
        "waves": [list(wave) for wave in plan.waves],
        "nodes": [_node_json(node) for node in plan.nodes],
        "needs": [_needed_json(one) for one in plan.needed],
        "problems": [
            {"path": problem.path, "reason": str(problem.reason), "message": problem.message}
            for problem in plan.problems
        ],
        "estimate": {
            "modelCalls": _range_json(plan.model_calls),
            "toolCalls": _range_json(plan.tool_calls),
            "inputTokens": _range_json(plan.input_tokens),
            "outputTokens": _range_json(plan.output_tokens),
            "cost": _cost_json(plan.cost),
            "unpricedModels": list(plan.unpriced),
            "budget": None if plan.budget is None else dict(plan.budget),
            "assumptions": list(plan.assumptions),
        },
        "history": _history_json(plan),
        "graph": to_mermaid(plan),
    }


def _range_json(one: Range) -> dict[str, int]:
    return {"least": one.least, "most": one.most}


def _cost_json(cost: Range | None) -> dict[str, str]:
    if cost is None:
        return {"least": "n/a", "most": "n/a", "currency": "USD"}
    return {"least": usd(cost.least), "most": usd(cost.most), "currency": "USD"}


def _node_json(node: PlannedNode) -> dict[str, Any]:
    estimate = node.estimate
    shown = {
        "node": node.path,
        "wave": node.wave,
        "action": node.action,
        "target": node.target,
        "needs": list(node.needs),
        "when": node.when,
        "notes": list(node.notes),
        "executions": _range_json(node.executions),
        "modelCalls": _range_json(estimate.model_calls),
        "toolCalls": _range_json(estimate.tool_calls),
        "inputTokens": _range_json(estimate.input_tokens),
        "outputTokens": _range_json(estimate.output_tokens),
        "cost": _cost_json(node.cost),
    }
    if node.history is not None:
        shown["history"] = {
            "runs": node.history.runs,
            "seconds": _spread_json(node.history.seconds),
            "cost": _money_json(node.history.cost),
        }
    return shown


def _spread_json(one: Spread) -> dict[str, float]:
    return {"p50": one.p50, "p95": one.p95}


def _money_json(one: Spread | None) -> dict[str, str]:
    return {"p50": usd(None if one is None else int(one.p50)), "p95": usd(None if one is None else int(one.p95))}


def _needed_json(one: Needed) -> dict[str, Any]:
    shown = {"kind": one.kind, "name": one.name, "there": one.there, "usedBy": list(one.used_by)}
    return {**shown, "detail": one.detail} if one.detail else shown


def _history_json(plan: RunPlan) -> dict[str, Any] | None:
    if plan.history is None:
        return None
    seconds, cost = _spread_json(plan.history.seconds), _money_json(plan.history.cost)
    return {"runs": plan.history.runs, "seconds": seconds, "cost": cost}


def to_text(plan: RunPlan) -> str:
    """Return a plan as text."""
    title = f"{plan.name or 'workflow'}: {_many(len(plan.nodes), 'node')} in {_many(len(plan.waves), 'wave')}"
    parts = [
        [title],
        list(_table(_graph_rows(plan.nodes), headers=("WAVE", "NODE", "ACTION", "NEEDS", "CALLS", "COST", "NOTES"))),
    ]
    if plan.needed:
        rows = [(one.kind, one.name, _MARK[one.there], one.detail, ", ".join(one.used_by)) for one in plan.needed]
        parts.append(list(_table(rows, headers=("NEEDS", "NAME", "STATE", "WHAT", "USED BY"))))
    parts.append(list(_estimate_lines(plan)))
    if plan.problems:
        lines = [f"  {problem.reason}: {problem.message}" for problem in plan.problems]
        parts.append(["problems", *lines])
    return "\n\n".join("\n".join(lines) for lines in parts)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _graph_rows(nodes: Sequence[PlannedNode]) -> Iterator[Sequence[str]]:
    last = 0
    for node in nodes:
        depth = node.path.count("/")
        wave = "" if depth or node.wave in (0, last) else str(node.wave)
        last = last if depth else node.wave
        calls = node.estimate.model_calls + node.estimate.tool_calls
        notes = [f"when {node.when}"] if node.when else []
        yield (
            wave,
            "  " * depth + node.path.rpartition("/")[2],
            f"{node.action} {node.target}".strip(),
            ", ".join(node.needs),
            _count(calls) if calls.most else "",
            _cost(node.cost) if node.estimate.model_calls.most or (node.cost and node.cost.most) else "",
            "; ".join([*notes, *node.notes]),
        )


def _estimate_lines(plan: RunPlan) -> Iterator[str]:
    yield "estimate for one run"
    yield f"  cost     {_cost(plan.cost)}"
    if plan.budget:
        yield f"  budget   {_budget(plan)}"
    if plan.unpriced:
        yield f"           the price of {', '.join(plan.unpriced)} is not known: state it in Model.spec.price"
    yield f"  calls    {_count(plan.model_calls)} of models, {_count(plan.tool_calls)} of tools"
    yield f"  tokens   {_count(plan.input_tokens)} in, {_count(plan.output_tokens)} out"
    if plan.history is not None:
        cost = plan.history.cost
        paid = "cost n/a" if cost is None else f"{rounded(int(cost.p50))} (p95 {rounded(int(cost.p95), up=True)})"
        took = f"{plan.history.seconds.p50:.1f}s (p95 {plan.history.seconds.p95:.1f}s)"
        yield f"  earlier  {_many(plan.history.runs, 'run')}: {paid}, {took}"
    for text in plan.assumptions:
        yield f"  assumed  {text}"


def _budget(plan: RunPlan) -> str:
    """Return what the workflow may spend, and whether one run may need more."""
    budget = plan.budget or {}
    money, count = budget.get("maxCostUSD"), budget.get("maxTokens")
    limits = ([f"${money}"] if money else []) + ([f"{count:,} tokens"] if count else [])
    whole = plan.input_tokens.most + plan.output_tokens.most
    over = bool(count and whole > count)
    over |= bool(money and plan.cost is not None and plan.cost.most > Decimal(money) * _PICO)
    warning = "; the upper end is over it: the run would end as BudgetExceeded" if over else ""
    return f"{' and '.join(limits)} for each {str(budget.get('period') or 'Run').lower()}{warning}"


def _table(rows: Iterable[Sequence[str]], *, headers: Sequence[str]) -> Iterator[str]:
    """Yield aligned lines; a column that is empty throughout is left out."""
    lines = [list(row) for row in rows]
    columns = [index for index in range(len(headers)) if any(line[index] for line in lines)]
    shown = [[line[index] for index in columns] for line in ([*headers], *lines)]
    widths = [max(len(line[column]) for line in shown) for column in range(len(columns))]
    for line in shown:
        yield _SPACES.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def to_mermaid(plan: RunPlan) -> str:
    """Return the graph as a Mermaid flowchart. Names never become syntax: ids are numbers, labels are escaped."""
    ids = {node.path: f"n{number}" for number, node in enumerate(plan.nodes)}
    lines = ["flowchart TD"]
    for node in plan.nodes:
        before, after = _SHAPES.get(node.action, ('["', '"]'))
        label = f"{_label(node.path)}<br/>{_label(f'{node.action} {node.target}'.strip())}"
        lines.append(f"  {ids[node.path]}{before}{label}{after}")
    for node in plan.nodes:
        scope, slash, _ = node.path.rpartition("/")
        for need in node.needs:
            source = ids.get(f"{scope}{slash}{need}")
            if source:
                condition = f'|"{_label(node.when)}"|' if node.when else ""
                lines.append(f"  {source} -->{condition} {ids[node.path]}")
        if slash and not node.needs and scope in ids:
            lines.append(f"  {ids[scope]} -.-> {ids[node.path]}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    """Return a text for a quoted label: every character that could mean something as its number."""
    short = text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"
    return _UNSAFE.sub(lambda found: f"#{ord(found[0])};", short)
