"""``x-kubernetes-validations`` of a CRD: do they compile, and can a server afford them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from fairlead.localcluster.schema import errors
from fairlead.localcluster.schema.cel_cost import UNBOUNDED, CelTypeError, Checker, Value
from fairlead.localcluster.schema.cel_syntax import CelSyntaxError, parse
from fairlead.localcluster.schema.cel_types import MAX_REQUEST, CelType, cel_type
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.functions import kubernetes_functions
from fairlead.localcluster.schema.rules import program
from fairlead.localcluster.schema.tree import Rule, Schema

RULE_LIMIT: Final = 10_000_000
"""StaticEstimatedCostLimit: the most that one rule may cost, at all places it applies to."""
CRD_LIMIT: Final = 100_000_000
"""StaticEstimatedCRDCostLimit: the most that all rules together may cost."""
NOT_EVALUATED: Final = "RuleNotEvaluated"
"""Reason of a finding that refuses nothing: this server cannot run the rule, a larger one can. Show it as a warning."""

_REASONS: Final = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_ADVICE: Final = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings "
    "are declared)"
)
_HUGE: Final = 100.0
_NEAR: Final = 1.5


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule stands.

    Args:
        count: how often its place can occur in one object; None when nothing bounds it.
        uncorrelated: the list above it whose items cannot be told apart between two versions of the object.
    """

    path: str
    count: int | None = 1
    uncorrelated: str = ""


@dataclass(slots=True)
class _Total:
    cost: int = 0
    costly: list[str] = field(default_factory=list)


def check_rules_of(schema: Schema, path: str) -> Iterator[FieldError]:
    """Yield what is wrong with the rules of a version's schema."""
    total = _Total()
    yield from _walk(schema, Place(path), total, root=True)
    if total.cost > CRD_LIMIT:
        text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        for where in total.costly:
            yield errors.forbidden(where, text)
        name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        yield errors.forbidden(path, over_budget(name, total.cost, CRD_LIMIT))


def over_budget(name: str, cost: int, limit: int) -> str:
    """Return how far over its limit something is."""
    factor = cost / limit
    precise = f"{factor:.6f}x" if factor < _NEAR else f"{factor:.1f}x"
    shown = "more than 100x" if factor > _HUGE else precise
    return f"{name} exceeds budget by factor of {shown} {_ADVICE}"


def _walk(schema: Schema, place: Place, total: _Total, *, root: bool) -> Iterator[FieldError]:
    if schema.rules:
        known = cel_type(schema, root=root)
        for index, rule in enumerate(schema.rules):
            where = replace(place, path=f"{place.path}.x-kubernetes-validations[{index}]")
            yield from _check_rule(rule, known, where, total)
    for name, child in schema.properties.items():
        if child.has_rules:
            yield from _walk(child, replace(place, path=f"{place.path}.properties[{name}]"), total, root=False)
    if schema.items is not None and schema.items.has_rules:
        below = _inside(schema, place, "items")
        if schema.list_type != "map":
            below = replace(below, uncorrelated=place.uncorrelated or place.path)
        yield from _walk(schema.items, below, total, root=False)
    if schema.additional is not None and schema.additional.has_rules:
        yield from _walk(schema.additional, _inside(schema, place, "additionalProperties"), total, root=False)


def _inside(schema: Schema, place: Place, keyword: str) -> Place:
    bounds = schema.bounds
    most = (bounds.max_items if keyword == "items" else bounds.max_properties) if bounds is not None else None
    count = None if place.count is None or most is None else place.count * most
    return replace(place, path=f"{place.path}.{keyword}", count=count)


def _check_rule(rule: Rule, known: CelType | None, place: Place, total: _Total) -> Iterator[FieldError]:
    yield from _check_texts(rule, place.path)
    if not rule.rule.strip():
        yield errors.required(f"{place.path}.rule", "rule is not specified")
        return
    if known is None:
        text = "rules are not allowed where the schema is unknown"
        yield errors.invalid(f"{place.path}.rule", rule.rule, text)
        return
    expressions = [("rule", rule.rule, "bool", "estimated rule cost")]
    if rule.message_expression:
        named = "estimated messageExpression cost"
        expressions.append(("messageExpression", rule.message_expression, "string", named))
    for keyword, text, wanted, title in expressions:
        yield from _check_expression(f"{place.path}.{keyword}", (text, wanted, title), known, rule, place, total)


def _check_texts(rule: Rule, path: str) -> Iterator[FieldError]:
    if "\n" in rule.message:
        yield errors.invalid(f"{path}.message", rule.message, "message must not contain line breaks")
    if "\n" in rule.rule.strip() and not rule.message and not rule.message_expression:
        yield errors.required(f"{path}.message", "message must be specified if rule contains line breaks")
    if rule.reason and rule.reason not in _REASONS:
        yield errors.unsupported(f"{path}.reason", rule.reason, _REASONS)


def _check_expression(
    path: str, expression: tuple[str, str, str], known: CelType, rule: Rule, place: Place, total: _Total
) -> Iterator[FieldError]:
    text, wanted, title = expression
    self = Value(0, known, known.size)
    checker = Checker({"self": self, "oldSelf": self})
    try:
        result = checker.check(parse(text))
    except CelSyntaxError as error:
        yield errors.invalid(path, text, f"compilation failed: {error}")
        return
    except CelTypeError as error:
        yield errors.invalid(path, text, f"compilation failed: ERROR: <input>:1:1: {error}\n | {text}")
        return
    unknown = sorted(name for name in checker.unknown if name.rpartition(".")[2] not in kubernetes_functions())
    compiled = program(text)
    if compiled is None or unknown:
        why = f"function {', '.join(unknown)} is not known here" if unknown else "its syntax is not supported here"
        yield FieldError(path, f"this server accepts the rule but does not evaluate it: {why}: {text}", NOT_EVALUATED)
        return
    if result.type.kind not in {wanted, "dyn"}:
        yield errors.invalid(path, text, f"cel expression must evaluate to a {wanted}")
    if compiled.uses_old and place.uncorrelated and not rule.optional_old_self:
        inside = place.uncorrelated
        reach = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {inside}"
        yield errors.invalid(path, text, reach)
    yield from _charge(path, title, result.cost, known, place, total)


def _charge(path: str, title: str, cost: int, known: CelType, place: Place, total: _Total) -> Iterator[FieldError]:
    count = MAX_REQUEST // (known.smallest + 1) if place.count is None else place.count
    spent = min(cost * count, UNBOUNDED)
    total.cost = min(total.cost + spent, UNBOUNDED)
    if spent > CRD_LIMIT:
        total.costly.append(path)
    if spent > RULE_LIMIT:
        yield errors.forbidden(path, over_budget(title, spent, RULE_LIMIT))
