"""``x-kubernetes-validations``: running CEL rules over an object."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import cel

from fairlead.localcluster.schema import errors
from fairlead.localcluster.schema.cel_cost import FUNCTIONS, OPERATORS
from fairlead.localcluster.schema.cel_syntax import Call, Macro, Name, Node, fields_of, parse, renamed, walk
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.formats import parse_duration, parse_time
from fairlead.localcluster.schema.functions import SIZE, kubernetes_functions
from fairlead.localcluster.schema.names import escaped
from fairlead.localcluster.schema.tree import ANYTHING, INT_OR_STRING, MISSING, Json, Rule, Schema

_MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
_OBJECT_META = ("name", "generateName")


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression ready to run.

    Args:
        fields: the fields of ``self`` and ``oldSelf`` it looks at; None when it looks at the whole value.
        functions: those it calls that the library does not have.
    """

    program: cel.Program
    uses_old: bool
    fields: frozenset[str] | None
    functions: dict[str, Callable[..., Any]]


@lru_cache(maxsize=4096)
def program(expression: str) -> Compiled | None:
    """Compile an expression once; None when this CEL library cannot."""
    try:
        tree = parse(expression)
        compiled = cel.compile(renamed(expression, "size", SIZE))
    except ValueError:
        return None
    offered = kubernetes_functions()
    if not all(_can_run(node, offered) for node in walk(tree)):
        return None
    called = compiled.functions()
    return Compiled(
        compiled,
        "oldSelf" in compiled.variables(),
        fields_of(tree, ("self", "oldSelf")),
        {name: offered[name] for name in offered if name.rpartition(".")[2] in called},
    )


def _can_run(node: Node, offered: Mapping[str, Any]) -> bool:
    """Return whether the library knows a function or macro, or we have it."""
    if isinstance(node, Macro):
        return len(node.variables) == 1 and node.name in _MACROS
    if not isinstance(node, Call) or node.function in OPERATORS:
        return True
    space = f"{node.target.name}." if isinstance(node.target, Name) else ""
    return any(name in offered or name in FUNCTIONS for name in (node.function, space + node.function)) or (
        space == "optional."
    )


def check_rules(schema: Schema, obj: Json, path: str, old: Any) -> Iterator[FieldError]:
    """Evaluate all rules at and below *schema*. Null values have no rules of their own."""
    yield from _walk(schema, obj, path, old, root=True)


def _walk(schema: Schema, value: Any, path: str, old: Any, *, root: bool) -> Iterator[FieldError]:
    from fairlead.localcluster.schema.validating import same

    if value is None or not schema.has_rules or (old is not MISSING and same(value, old)):
        return
    if schema.rules:
        yield from _evaluate(_Subject(schema, value, old, path, root or schema.embedded))
    if isinstance(value, dict):
        for key, item in value.items():
            child = schema.child(key)
            if child is not None and child.has_rules:
                where = f"{path}[{key}]" if key not in schema.properties else f"{path}.{key}" if path else key
                before = old.get(key, MISSING) if isinstance(old, dict) else MISSING
                yield from _walk(child, item, where, before, root=False)
    elif isinstance(value, list) and schema.items is not None and schema.items.has_rules:
        yield from _walk_items(schema, value, path, old)


def _walk_items(schema: Schema, value: list[Any], path: str, old: Any) -> Iterator[FieldError]:
    from fairlead.localcluster.schema.validating import item_key, old_items

    earlier = old_items(schema, old)
    items = schema.items or ANYTHING
    for index, item in enumerate(value):
        before = earlier.get(item_key(schema, item), MISSING)
        yield from _walk(items, item, f"{path}[{index}]", before, root=False)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The value whose rules are evaluated, at its place."""

    schema: Schema
    value: Any
    old: Any
    path: str
    root: bool

    @property
    def kind(self) -> str:
        """The type, as error texts name it."""
        return self.schema.type or "object"

    def known_before(self) -> bool:
        """Return whether there is an old value to compare with."""
        return self.old is not MISSING and self.old is not None

    def run(self, compiled: Compiled, *, optional: bool) -> Any:
        """Evaluate an expression; whatever it raises goes to the caller."""
        variables = {"self": to_cel(self.schema, self.value, root=self.root, only=compiled.fields)}
        if compiled.uses_old:
            known = self.known_before()
            before = to_cel(self.schema, self.old, root=self.root, only=compiled.fields) if known else None
            wrapped = cel.OptionalValue.of(before) if known else cel.OptionalValue.none()
            variables["oldSelf"] = wrapped if optional else before
        return compiled.program.execute(cel.Context(variables=variables, functions=compiled.functions))


def _evaluate(subject: _Subject) -> Iterator[FieldError]:
    for rule in subject.schema.rules:
        compiled = program(rule.rule)
        if compiled is None or (compiled.uses_old and not rule.optional_old_self and not subject.known_before()):
            continue
        try:
            holds = subject.run(compiled, optional=rule.optional_old_self)
        except Exception as error:  # noqa: BLE001  (what an expression does wrong is the object's fault, never ours)
            text = f"{_explain(error)} evaluating rule: {rule.message or rule.rule}"
            yield errors.invalid(subject.path, subject.kind, text)
            continue
        if holds is not True:
            yield _failure(rule, subject.path, subject.kind, _message(rule, subject))


def _explain(error: Exception) -> str:
    return f"no such key: {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)


def _message(rule: Rule, subject: _Subject) -> str:
    compiled = program(rule.message_expression) if rule.message_expression else None
    if compiled is not None:
        try:
            said = subject.run(compiled, optional=rule.optional_old_self)
        except Exception:  # noqa: BLE001  (Kubernetes, too, falls back to the plain message)
            said = None
        if isinstance(said, str) and said.strip() and "\n" not in said:
            return said.strip()
    return rule.message or f"failed rule: {rule.rule}"


def _failure(rule: Rule, path: str, kind: str, message: str) -> FieldError:
    extra = rule.field_path
    where = path + extra if path or not extra.startswith(".") else extra[1:]
    match rule.reason:
        case "FieldValueRequired":
            return errors.required(where, message)
        case "FieldValueForbidden":
            return errors.forbidden(where, message)
        case "FieldValueDuplicate":
            return errors.duplicate(where, kind)
        case _:
            return errors.invalid(where, kind, message)


def to_cel(schema: Schema, value: Any, *, root: bool = False, only: frozenset[str] | None = None) -> Any:
    """Return *value* as CEL sees it: declared fields by escaped name, times and durations as such.

    *only* are the (escaped) fields that matter, None for all.
    """
    if root and isinstance(value, dict):
        value = _visible(schema, value)
    if only is not None and isinstance(value, dict):
        value = {key: item for key, item in value.items() if _name(schema, key) in only}
    if not schema.converts or value is None:
        return value
    if isinstance(value, dict):
        return {_name(schema, key): _child(schema, key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_cel(schema.items, item) for item in value] if schema.items is not None else value
    return _scalar(schema, value)


def _visible(schema: Schema, value: Json) -> Json:
    """Return what rules see of a whole object: of its metadata only the name."""
    known = {key: item for key, item in value.items() if key in schema.properties}
    meta = value.get("metadata")
    if isinstance(meta, dict):
        known["metadata"] = {key: meta[key] for key in _OBJECT_META if key in meta}
    return known


def _name(schema: Schema, key: str) -> str:
    return escaped(key) if key in schema.properties else key


def _child(schema: Schema, key: str, item: Any) -> Any:
    child = schema.child(key)
    return item if child is None else to_cel(child, item)


def _scalar(schema: Schema, value: Any) -> Any:
    if schema.type == "number" and isinstance(value, int):
        return float(value)
    if not isinstance(value, str) or schema.type == INT_OR_STRING:
        return value
    convert = _CONVERSIONS.get(schema.format)
    return value if convert is None else convert(value)


def _time(text: str) -> Any:
    return parse_time(text) or text


def _duration(text: str) -> Any:
    parsed = parse_duration(text)
    return text if parsed is None else parsed


_CONVERSIONS: Final[dict[str, Callable[[str], Any]]] = {
    "date-time": _time,
    "date": lambda text: _time(f"{text}T00:00:00Z"),
    "duration": _duration,
    "byte": base64.b64decode,
}
