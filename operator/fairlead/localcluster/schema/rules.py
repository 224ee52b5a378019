"""``x-kubernetes-validations``: running CEL rules over an object."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

import cel

from fairlead.localcluster.schema import errors
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.formats import parse_duration, parse_time
from fairlead.localcluster.schema.functions import kubernetes_functions
from fairlead.localcluster.schema.names import escaped
from fairlead.localcluster.schema.tree import ANYTHING, INT_OR_STRING, MISSING, Json, Rule, Schema

_OBJECT_META = ("name", "generateName")


@lru_cache(maxsize=4096)
def program(expression: str) -> cel.Program | None:
    """Compile an expression once; None when this CEL library cannot."""
    try:
        return cel.compile(expression)
    except ValueError:
        return None


def context() -> cel.Context:
    """Return a context with the functions that Kubernetes offers."""
    return cel.Context(functions=dict(kubernetes_functions()))


def check_rules(schema: Schema, obj: Json, path: str, old: Any) -> Iterator[FieldError]:
    """Evaluate all rules at and below *schema*. Null values have no rules of their own."""
    yield from _walk(schema, obj, path, old, root=True)


def _walk(schema: Schema, value: Any, path: str, old: Any, *, root: bool) -> Iterator[FieldError]:
    from fairlead.localcluster.schema.validating import same

    if value is None or not schema.has_rules or (old is not MISSING and same(value, old)):
        return
    if schema.rules:
        yield from _evaluate(schema, value, path, old, root=root or schema.embedded)
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


def _evaluate(schema: Schema, value: Any, path: str, old: Any, *, root: bool) -> Iterator[FieldError]:
    variables = context()
    variables.add_variable("self", to_cel(schema, value, root=root))
    if old is not MISSING and old is not None:
        variables.add_variable("oldSelf", to_cel(schema, old, root=root))
    kind = "object" if not schema.type else schema.type
    for rule in schema.rules:
        compiled = program(rule.rule)
        if compiled is None:
            continue
        if "oldSelf" in compiled.variables():
            if rule.optional_old_self:
                present = old is not MISSING and old is not None
                wrapped = cel.OptionalValue.of(to_cel(schema, old, root=root)) if present else cel.OptionalValue.none()
                optional = context()
                optional.add_variable("self", to_cel(schema, value, root=root))
                optional.add_variable("oldSelf", wrapped)
                yield from _outcome(compiled, rule, optional, path, kind)
                continue
            if old is MISSING or old is None:
                continue
        yield from _outcome(compiled, rule, variables, path, kind)


def _outcome(compiled: cel.Program, rule: Rule, variables: cel.Context, path: str, kind: str) -> Iterator[FieldError]:
    try:
        holds = compiled.execute(variables)
    except Exception as error:  # noqa: BLE001  (whatever an expression does wrong is the object's fault, never ours)
        text = rule.message or rule.rule
        yield errors.invalid(path, kind, f"{_explain(error)} evaluating rule: {text}")
        return
    if holds is not True:
        yield _failure(rule, path, kind, _message(rule, variables))


def _explain(error: Exception) -> str:
    return f"no such key: {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)


def _message(rule: Rule, variables: cel.Context) -> str:
    compiled = program(rule.message_expression) if rule.message_expression else None
    if compiled is not None:
        try:
            said = compiled.execute(variables)
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


def to_cel(schema: Schema, value: Any, *, root: bool = False) -> Any:
    """Return *value* as CEL sees it: declared fields by escaped name, times and durations as such."""
    if root and isinstance(value, dict):
        meta = value.get("metadata")
        known = {key: item for key, item in value.items() if key in schema.properties}
        if isinstance(meta, dict):
            known["metadata"] = {key: meta[key] for key in _OBJECT_META if key in meta}
        value = known
    if not schema.converts or value is None:
        return value
    if isinstance(value, dict):
        return {_name(schema, key): _child(schema, key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_cel(schema.items, item) for item in value] if schema.items is not None else value
    return _scalar(schema, value)


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
