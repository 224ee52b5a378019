"""An object against its schema: types, bounds, formats, list markers, then CEL rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fairlead.localcluster.schema import errors
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.formats import FORMATS
from fairlead.localcluster.schema.rules import check_rules
from fairlead.localcluster.schema.tree import INT_OR_STRING, MISSING, Bounds, Json, Schema

_BLOCKING: Final = frozenset(
    {"FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"},
)
_UNCHECKED: Final = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
_TYPE_NAMES: Final = {type(None): "null", bool: "boolean", int: "integer", str: "string", list: "array"}


def validate(schema: Schema, obj: Json, *, old: Json | None = None) -> list[FieldError]:
    """Return what is wrong with *obj*; what *old* already had and did not change is let through."""
    before = MISSING if old is None else old
    found = list(_check(schema, obj, "", before))
    if not schema.has_rules:
        return found
    if any(error.reason in _BLOCKING for error in found):
        return [*found, errors.invalid("", None, _UNCHECKED)]
    return [*found, *check_rules(schema, obj, "", before)]


def value_errors(schema: Schema, value: Any, path: str) -> list[FieldError]:
    """Check one value, such as a default, without CEL."""
    return list(_check(schema, value, path, MISSING))


def same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal, telling ``true`` from ``1``."""
    if left is right:
        return True
    if isinstance(left, bool) or isinstance(right, bool) or left != right:
        return False
    if not isinstance(left, dict | list):
        return True
    return errors.text(left) == errors.text(right) or _same_inside(left, right)


def _same_inside(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return all(same(value, right[key]) for key, value in left.items())
    return all(map(same, left, right))


def type_name(value: Any) -> str:
    """Return the JSON type of *value*, as error texts name it."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return _TYPE_NAMES.get(type(value), "object")


def _check(schema: Schema, value: Any, path: str, old: Any) -> Iterator[FieldError]:
    if old is not MISSING and same(old, value):
        return
    if value is None and (schema.nullable or schema.lenient):
        return
    actual = type_name(value)
    if not _type_fits(schema, actual):
        wanted = "integer,string" if schema.type == INT_OR_STRING else schema.type
        yield errors.type_invalid(path, actual, f'{path} in body must be of type {wanted}: "{actual}"')
        return
    if schema.bounds is not None:
        yield from _check_enum(schema.bounds, value, path)
    if isinstance(value, str):
        yield from _check_text(schema, value, path)
    elif isinstance(value, dict):
        yield from _check_map(schema, value, path, old)
    elif isinstance(value, list):
        yield from _check_list(schema, value, path, old)
    elif value is not None and not isinstance(value, bool) and schema.bounds is not None:
        yield from _check_number(schema.bounds, value, path)
    if schema.all_of or schema.any_of or schema.one_of or schema.negated:
        yield from _check_junctions(schema, value, path)


def _type_fits(schema: Schema, actual: str) -> bool:
    wanted = schema.type
    if not wanted or wanted == actual:
        return True
    if wanted == "number":
        return actual == "integer"
    if schema.format == "quantity":
        return actual in {"integer", "number"}
    return wanted == INT_OR_STRING and actual in {"integer", "string"}


def _check_enum(bounds: Bounds, value: Any, path: str) -> Iterator[FieldError]:
    if bounds.enum and not any(same(value, allowed) for allowed in bounds.enum):
        yield errors.unsupported(path, value, bounds.enum)


def _check_text(schema: Schema, value: str, path: str) -> Iterator[FieldError]:
    check = FORMATS.get(schema.format)
    if check is not None and not check(value) and not (schema.lenient and not value):
        yield errors.type_invalid(path, value, f"{path} in body must be of type {schema.format}: {errors.text(value)}")
    bounds = schema.bounds
    if bounds is None:
        return
    if bounds.max_length is not None and len(value) > bounds.max_length:
        yield errors.too_long(path, bounds.max_length)
    if bounds.min_length is not None and len(value) < bounds.min_length:
        yield errors.invalid(path, value, f"{path} in body should be at least {bounds.min_length} chars long")
    if bounds.pattern is not None and not bounds.pattern.search(value):
        yield errors.invalid(path, value, f"{path} in body should match '{bounds.pattern_text}'")


def _check_number(bounds: Bounds, value: float, path: str) -> Iterator[FieldError]:
    low, high, step = bounds.minimum, bounds.maximum, bounds.multiple_of
    if high is not None and (value > high or (bounds.exclusive_maximum and value == high)):
        words = "should be less than" if bounds.exclusive_maximum else "should be less than or equal to"
        yield errors.invalid(path, value, f"{path} in body {words} {high:g}")
    if low is not None and (value < low or (bounds.exclusive_minimum and value == low)):
        words = "should be greater than" if bounds.exclusive_minimum else "should be greater than or equal to"
        yield errors.invalid(path, value, f"{path} in body {words} {low:g}")
    if step and abs(value / step - round(value / step)) > 1e-9:  # noqa: PLR2004  (floating point noise)
        yield errors.invalid(path, value, f"{path} in body should be a multiple of {step:g}")


def _check_map(schema: Schema, value: Json, path: str, old: Any) -> Iterator[FieldError]:
    bounds = schema.bounds
    if bounds is not None:
        if bounds.max_properties is not None and len(value) > bounds.max_properties:
            yield errors.too_many(path, len(value), bounds.max_properties)
        if bounds.min_properties is not None and len(value) < bounds.min_properties:
            yield errors.invalid(path, value, f"{path} in body should have at least {bounds.min_properties} properties")
    prefix = f"{path}." if path else ""
    for name in schema.required:
        if name not in value or (schema.lenient and value[name] is None):
            yield errors.required(f"{prefix}{name}")
    for key, item in value.items():
        child = schema.child(key)
        if child is not None:
            yield from _check(child, item, prefix + key, _old_field(old, key))


def _old_field(old: Any, key: str) -> Any:
    return old.get(key, MISSING) if isinstance(old, dict) else MISSING


def _check_list(schema: Schema, value: list[Any], path: str, old: Any) -> Iterator[FieldError]:
    bounds = schema.bounds
    if bounds is not None:
        if bounds.max_items is not None and len(value) > bounds.max_items:
            yield errors.too_many(path, len(value), bounds.max_items)
        if bounds.min_items is not None and len(value) < bounds.min_items:
            yield errors.invalid(path, value, f"{path} in body should have at least {bounds.min_items} items")
        if bounds.unique_items and len({errors.text(item) for item in value}) < len(value):
            yield errors.invalid(path, value, f"{path} in body shouldn't contain duplicates")
    if schema.items is not None:
        earlier = old_items(schema, old)
        for index, item in enumerate(value):
            yield from _check(schema.items, item, f"{path}[{index}]", earlier.get(item_key(schema, item), MISSING))
    if schema.list_type != "atomic":
        yield from _check_unique(schema, value, path)


def item_key(schema: Schema, item: Any) -> str | None:
    """Return what tells an item of a list-map from the others, or None."""
    if schema.list_type != "map" or not isinstance(item, dict) or schema.items is None:
        return None
    values = {key: item.get(key, default_of(schema, key)) for key in schema.list_keys}
    return errors.text({key: value for key, value in values.items() if value is not MISSING})


def default_of(schema: Schema, key: str) -> Any:
    """Return the default of an item's key field, or MISSING."""
    child = schema.items.child(key) if schema.items is not None else None
    return MISSING if child is None else child.default


def old_items(schema: Schema, old: Any) -> dict[str | None, Any]:
    """Return the old items of a list-map by key; other lists have none to compare with."""
    if schema.list_type != "map" or not isinstance(old, list):
        return {}
    found = {item_key(schema, item): item for item in old}
    found.pop(None, None)
    return found


def _check_unique(schema: Schema, value: list[Any], path: str) -> Iterator[FieldError]:
    seen: set[str | None] = set()
    for index, item in enumerate(value):
        key = errors.text(item) if schema.list_type == "set" else item_key(schema, item)
        if key is not None and key in seen:
            shown = (
                item if schema.list_type == "set" else {name: item[name] for name in schema.list_keys if name in item}
            )
            yield errors.duplicate(f"{path}[{index}]", shown)
        seen.add(key)


def _check_junctions(schema: Schema, value: Any, path: str) -> Iterator[FieldError]:
    for part in schema.all_of:
        yield from _check(part, value, path, MISSING)
    if schema.any_of:
        yield from _best_of(schema.any_of, value, path, f'"{path}" must validate at least one schema (anyOf)')
    if schema.one_of:
        fitting = sum(not list(_check(part, value, path, MISSING)) for part in schema.one_of)
        say = f'"{path}" must validate one and only one schema (oneOf). '
        if fitting > 1:
            yield errors.invalid("", "", f"{say}Found {fitting} valid alternatives")
        else:
            yield from _best_of(schema.one_of, value, path, f"{say}Found none valid")
    if schema.negated is not None and not list(_check(schema.negated, value, path, MISSING)):
        yield errors.invalid("", "", f'"{path}" must not validate the schema (not)')


def _best_of(parts: tuple[Schema, ...], value: Any, path: str, message: str) -> Iterator[FieldError]:
    """Say nothing when one part fits, otherwise what the nearest one misses."""
    tried = [list(_check(part, value, path, MISSING)) for part in parts]
    if all(tried):
        yield errors.invalid("", "", message)
        yield from min(tried, key=len)
