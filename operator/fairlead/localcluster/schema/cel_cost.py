"""What an expression means for a type and what evaluating it can cost at worst.

Source: the cost model that CEL's specification of Kubernetes' limits describes; calibrated on a real API server.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fairlead.localcluster.schema.cel_syntax import Call, Items, Literal, Macro, Name, Node, Select
from fairlead.localcluster.schema.cel_types import BOOL, DOUBLE, DYN, INT, STRING, TYPE, CelType

UNBOUNDED: Final = 2**64 - 1

_TRAVERSE: Final = 0.1
_REGEX: Final = 0.25
_LIST_COST: Final = 10
_MAP_COST: Final = 30
_SCALARS: Final = frozenset({"bool", "int", "uint", "double", "duration", "timestamp", "type"})
_NULLABLE: Final = frozenset({"object", "timestamp", "duration"})
_NUMBERS: Final = frozenset({"int", "uint", "double"})
_TYPE_NAMES: Final = frozenset(
    {"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "timestamp", "duration"}
)
_LITERALS: Final = {"bool": BOOL, "int": INT, "double": DOUBLE, "string": STRING, "null": CelType("null")}


class CelTypeError(ValueError):
    """The expression does not fit the schema."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of an expression.

    Args:
        size: the most elements or characters; None when nothing is known.
        inner: the most characters of an element of a list that the expression made.
    """

    cost: int
    type: CelType
    size: int | None = None
    inner: int | None = None

    @property
    def elements(self) -> int:
        """The size to calculate with."""
        if self.size is not None:
            return self.size
        return 1 if self.type.kind in _SCALARS else UNBOUNDED


@dataclass(slots=True)
class Checker:
    """Walks one expression; `unknown` collects functions that nobody here has heard of."""

    variables: dict[str, Value]
    unknown: set[str] = field(default_factory=set)

    def check(self, node: Node) -> Value:
        """Return type, cost and size.

        Raises:
            CelTypeError: an unknown field or variable, or operands that do not go together.
        """
        match node:
            case Literal():
                return _literal(node)
            case Name():
                return self._name(node)
            case Select():
                return self._select(node)
            case Items():
                return self._items(node)
            case Macro():
                return self._macro(node)
            case Call():
                return self._call(node)

    def _name(self, node: Name) -> Value:
        found = self.variables.get(node.name)
        if found is not None:
            return Value(1, found.type, found.size, found.inner)
        if node.name in _TYPE_NAMES:
            return Value(1, TYPE)
        raise CelTypeError(f"undeclared reference to '{node.name}' (in container '')")

    def _select(self, node: Select) -> Value:
        operand = self.check(node.operand)
        kind = operand.type.kind
        child: CelType | None = DYN
        size: int | None = None
        if kind == "object":
            child = operand.type.fields.get(node.field)
            if child is None:
                raise CelTypeError(f"undefined field '{node.field}'")
            size = child.size
        elif kind == "map":
            child = operand.type.items
        elif kind not in {"dyn", "null"}:
            raise CelTypeError(f"type '{kind}' does not support field selection")
        if node.test:
            return Value(operand.cost, BOOL)
        step = 1 if kind in {"object", "map"} or node.optional else 0
        return Value(_sum(operand.cost, step), child or DYN, size)

    def _items(self, node: Items) -> Value:
        values = [self.check(item) for item in node.items]
        cost = _sum(_LIST_COST if node.kind == "list" else _MAP_COST, *(value.cost for value in values))
        shown = values if node.kind == "list" else values[1::2]
        kinds = {value.type.kind for value in shown}
        items = shown[0].type if len(kinds) == 1 else DYN
        inner = max((value.elements for value in shown), default=0)
        return Value(cost, CelType(node.kind, items=items), len(shown), inner)

    def _macro(self, node: Macro) -> Value:
        target = self.check(node.target)
        if node.name in {"bind", "optMap", "optFlatMap"}:
            bound = self._within(node, [target])
            base = _LIST_COST if node.name == "bind" else 1
            return Value(_sum(base, target.cost, bound.cost), bound.type, bound.size, bound.inner)
        if target.type.kind not in {"list", "map", "dyn"}:
            raise CelTypeError(f"expression of type '{target.type.kind}' cannot be range of a comprehension")
        return self._loop(node, target)

    def _within(self, node: Macro, values: list[Value]) -> Value:
        """Check the last argument of a macro with its variables set; the cost is that of all arguments."""
        outer = self.variables
        self.variables = outer | dict(zip(node.variables, values, strict=True))
        checked = [self.check(arg) for arg in node.args]
        self.variables = outer
        cost = _sum(*(value.cost for value in checked))
        last = checked[-1]
        return Value(cost, last.type, last.size, last.inner)

    def _loop(self, node: Macro, target: Value) -> Value:
        body = self._within(node, _iteration(target, len(node.variables)))
        each, once = _LOOPS[node.name]
        cost = _sum(target.cost, once, _times(target.elements, _sum(body.cost, each)))
        if node.name in {"all", "exists", "exists_one", "existsOne"}:
            if body.type.kind not in {"bool", "dyn"}:
                raise CelTypeError(f"expected type 'bool' but found '{body.type.kind}'")
            return Value(cost, BOOL)
        if node.name == "filter":
            return Value(cost, CelType("list", items=_element(target)), target.size, target.inner)
        kind = "map" if node.name == "transformMap" else "list"
        return Value(cost, CelType(kind, items=body.type), target.size, body.elements)

    def _call(self, node: Call) -> Value:
        if node.target is not None and isinstance(node.target, Name) and node.target.name not in self.variables:
            return self._namespaced(node, node.target.name)
        target = self.check(node.target) if node.target is not None else None
        args = [self.check(arg) for arg in node.args]
        operator = OPERATORS.get(node.function)
        if operator is not None:
            return operator(args)
        spent = _sum(target.cost if target else 0, *(arg.cost for arg in args))
        operands = [target, *args] if target is not None else args
        known = FUNCTIONS.get(node.function)
        if known is None or not operands:
            self.unknown.add(node.function)
            return Value(_sum(spent, 1), DYN)
        if target is not None and node.function in _ON_TEXT:
            _need(target, {"string", "dyn"}, node.function)
        found = known(operands)
        return Value(_sum(spent, found.cost), found.type, found.size, found.inner)

    def _namespaced(self, node: Call, namespace: str) -> Value:
        """Functions such as ``math.greatest``, ``sets.contains``, ``optional.of``."""
        args = [self.check(arg) for arg in node.args]
        spent = _sum(*(arg.cost for arg in args))
        if namespace == "optional":
            return Value(_sum(spent, 1), args[0].type if args else DYN, args[0].size if args else None)
        if namespace == "sets":
            sizes = [arg.elements for arg in args]
            return Value(_sum(spent, _times(*sizes)), BOOL)
        if namespace == "math":
            return Value(_sum(spent, 1), args[0].type if args else DYN)
        if namespace not in {"strings", "base64", "lists", "format", "ip", "cidr"}:
            raise CelTypeError(f"undeclared reference to '{namespace}' (in container '')")
        self.unknown.add(f"{namespace}.{node.function}")
        return Value(_sum(spent, 1), DYN)


def _sum(*costs: int) -> int:
    return min(sum(costs), UNBOUNDED)


def _times(*factors: int) -> int:
    return min(math.prod(factors), UNBOUNDED)


def _scaled(size: int, factor: float) -> int:
    return UNBOUNDED if size >= UNBOUNDED else math.ceil(size * factor)


def _literal(node: Literal) -> Value:
    if node.kind in {"string", "bytes"}:
        return Value(0, CelType(node.kind), len(node.value))
    return Value(0, _LITERALS.get(node.kind) or CelType(node.kind), 1)


def _element(target: Value) -> CelType:
    return target.type.items or DYN


def _item(target: Value) -> Value:
    """One element of a list or map: its declared size, or what the expression that made it says."""
    known = _element(target)
    size = target.inner if target.inner is not None else known.size if target.type.size else None
    return Value(0, known, size)


def _iteration(target: Value, count: int) -> list[Value]:
    """The variables of a loop: elements of a list, keys of a map, or both index and value."""
    kind = target.type.kind
    item = _item(target)
    key = Value(0, STRING, 0) if kind == "map" else Value(0, INT if kind == "list" else DYN)
    if count > 1:
        return [key, item]
    return [key if kind == "map" else item]


_LOOPS: Final = {
    "all": (3, 1),
    "exists": (4, 1),
    "exists_one": (2, 2),
    "existsOne": (2, 2),
    "map": (12, 11),
    "filter": (13, 11),
    "transformList": (12, 11),
    "transformMap": (32, 31),
}
"""What a macro's own steps cost: for each element, and once."""


def _need(value: Value, kinds: set[str], function: str) -> None:
    if value.type.kind not in kinds:
        raise CelTypeError(f"found no matching overload for '{function}' applied to '{value.type.kind}'")


def _mismatch(function: str, args: list[Value]) -> CelTypeError:
    kinds = ", ".join(arg.type.kind for arg in args)
    return CelTypeError(f"found no matching overload for '{function}' applied to '({kinds})'")


def _spent(args: list[Value]) -> int:
    return _sum(*(arg.cost for arg in args))


def _logic(name: str) -> Callable[[list[Value]], Value]:
    def check(args: list[Value]) -> Value:
        if any(arg.type.kind not in {"bool", "dyn"} for arg in args):
            raise _mismatch(name, args)
        return Value(_sum(_spent(args), 1 if name == "!_" else 0), BOOL)

    return check


def _alike(name: str, args: list[Value]) -> None:
    left, right = (arg.type.kind for arg in args)
    both = {left, right}
    if left == right or both & {"dyn", "type"} or ("null" in both and both & _NULLABLE):
        return
    raise _mismatch(name, args)


def _equality(name: str) -> Callable[[list[Value]], Value]:
    def check(args: list[Value]) -> Value:
        _alike(name, args)
        return Value(_sum(_spent(args), _scaled(min(arg.elements for arg in args), _TRAVERSE)), BOOL)

    return check


def _order(name: str) -> Callable[[list[Value]], Value]:
    def check(args: list[Value]) -> Value:
        kinds = {arg.type.kind for arg in args}
        if not kinds <= _NUMBERS:
            _alike(name, args)
        if kinds & {"list", "map", "object", "null"}:
            raise _mismatch(name, args)
        cost = 1
        if not kinds <= _SCALARS:
            cost = max(cost, _scaled(min(arg.elements for arg in args), _TRAVERSE))
        return Value(_sum(_spent(args), cost), BOOL)

    return check


def _arithmetic(name: str) -> Callable[[list[Value]], Value]:
    def check(args: list[Value]) -> Value:
        kinds = {arg.type.kind for arg in args}
        if "dyn" not in kinds and len(kinds) > 1 and not kinds & {"timestamp", "duration"}:
            raise _mismatch(name, args)
        known = next((arg.type for arg in args if arg.type.kind != "dyn"), DYN)
        if name != "_+_" or kinds <= _SCALARS:
            if kinds & {"string", "list", "map", "object", "bool"}:
                raise _mismatch(name, args)
            return Value(_sum(_spent(args), 1), known)
        size = _sum(*(arg.elements for arg in args))
        cost = 1 if kinds == {"list"} else _scaled(size, _TRAVERSE)
        return Value(_sum(_spent(args), cost), known, size, max((arg.inner or 0 for arg in args), default=0) or None)

    return check


def _membership(args: list[Value]) -> Value:
    kind = args[1].type.kind
    if kind not in {"list", "map", "dyn"}:
        raise _mismatch("@in", args)
    return Value(_sum(_spent(args), 1 if kind == "map" else args[1].elements), BOOL)


def _choice(args: list[Value]) -> Value:
    condition, then, other = args
    if condition.type.kind not in {"bool", "dyn"}:
        raise _mismatch("_?_:_", args)
    known = then.type if then.type.kind == other.type.kind else DYN
    return Value(_sum(condition.cost, max(then.cost, other.cost)), known, max(then.elements, other.elements))


def _at(args: list[Value]) -> Value:
    if args[0].type.kind not in {"list", "map", "dyn"}:
        raise _mismatch("_[_]", args)
    item = _item(args[0])
    return Value(_sum(_spent(args), 1), item.type, item.size)


def _negated(args: list[Value]) -> Value:
    return Value(_sum(_spent(args), 1), args[0].type)


OPERATORS: Final[dict[str, Callable[[list[Value]], Value]]] = {
    **{name: _logic(name) for name in ("_&&_", "_||_", "!_")},
    **{name: _equality(name) for name in ("_==_", "_!=_")},
    **{name: _order(name) for name in ("_<_", "_<=_", "_>_", "_>=_")},
    **{name: _arithmetic(name) for name in ("_+_", "_-_", "_*_", "_/_", "_%_")},
    "@in": _membership,
    "_?_:_": _choice,
    "_[_]": _at,
    "_[?_]": _at,
    "-_": _negated,
}


def _plain(known: CelType) -> Callable[[list[Value]], Value]:
    return lambda _args: Value(1, known)


def _traversing(known: CelType, operand: int = 0) -> Callable[[list[Value]], Value]:
    return lambda args: Value(_scaled(args[min(operand, len(args) - 1)].elements, _TRAVERSE), known)


def _same_text(args: list[Value]) -> Value:
    return Value(_scaled(args[0].elements, _TRAVERSE), STRING, args[0].elements)


def _same(args: list[Value]) -> Value:
    return Value(1, args[0].type, args[0].size, args[0].inner)


def _contains(args: list[Value]) -> Value:
    return Value(_times(*(_scaled(arg.elements, _TRAVERSE) for arg in args)), BOOL)


def _regex(known: CelType) -> Callable[[list[Value]], Value]:
    def cost(args: list[Value]) -> Value:
        text = _scaled(_sum(args[0].elements, 1), _TRAVERSE)
        size = args[0].elements if known.kind != "bool" else None
        return Value(_times(text, _scaled(args[1].elements, _REGEX)), known, size)

    return cost


def _per_element(known: CelType | None) -> Callable[[list[Value]], Value]:
    """Functions that look at each element of a list, or at each character of a text."""

    def cost(args: list[Value]) -> Value:
        target = args[0]
        if target.type.kind == "string":
            return Value(_scaled(target.elements, _TRAVERSE), known or DYN)
        item = _item(target)
        each = 1 + (_scaled(item.elements, _TRAVERSE) if item.type.kind in {"string", "bytes"} else 0)
        return Value(_times(target.elements, each), known or item.type, None if known else item.size)

    return cost


def _replace(args: list[Value]) -> Value:
    longest = _times(args[0].elements, max(args[2].elements, 1))
    return Value(_scaled(args[0].elements, 2 * _TRAVERSE), STRING, longest)


def _joined(args: list[Value]) -> Value:
    separator = args[1].elements if len(args) > 1 else 0
    size = _times(args[0].elements, _sum(_item(args[0]).elements, separator))
    return Value(_scaled(size, _TRAVERSE), STRING, size)


_TEXTS: Final = CelType("list", items=STRING)
_ON_TEXT: Final = frozenset(
    {"startsWith", "endsWith", "matches", "find", "findAll", "lowerAscii", "upperAscii", "trim", "substring", "split"}
    | {"replace", "charAt", "format"}
)
FUNCTIONS: Final[dict[str, Callable[[list[Value]], Value]]] = {
    "size": _plain(INT),
    **{name: _plain(INT) for name in ("int", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek")},
    **{name: _plain(INT) for name in ("getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds")},
    "uint": _plain(CelType("uint")),
    "double": _plain(DOUBLE),
    "bool": _plain(BOOL),
    "string": _plain(STRING),
    "bytes": _traversing(CelType("bytes")),
    "type": _plain(TYPE),
    "dyn": lambda args: Value(1, DYN, args[0].size, args[0].inner),
    "duration": _plain(CelType("duration")),
    "timestamp": _plain(CelType("timestamp")),
    "startsWith": _traversing(BOOL, 1),
    "endsWith": _traversing(BOOL, 1),
    "contains": _contains,
    "matches": _regex(BOOL),
    "find": _regex(STRING),
    "findAll": _regex(_TEXTS),
    **dict.fromkeys(("lowerAscii", "upperAscii", "trim", "substring", "charAt", "format", "reverse"), _same_text),
    "replace": _replace,
    "split": lambda args: Value(_scaled(args[0].elements, 2 * _TRAVERSE), _TEXTS, args[0].elements),
    "join": _joined,
    "indexOf": _per_element(INT),
    "lastIndexOf": _per_element(INT),
    "isSorted": _per_element(BOOL),
    "sum": _per_element(None),
    "min": _per_element(None),
    "max": _per_element(None),
    "isURL": _plain(BOOL),
    "url": _traversing(CelType("url")),
    **{name: _traversing(STRING) for name in ("getScheme", "getHost", "getHostname", "getPort", "getEscapedPath")},
    "getQuery": _plain(CelType("map", items=_TEXTS)),
    "hasValue": _plain(BOOL),
    "value": _same,
    "orValue": _same,
    "or": _same,
    **dict.fromkeys(("distinct", "sort", "flatten", "slice", "reverse"), _same),
}
