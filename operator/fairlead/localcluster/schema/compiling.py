"""OpenAPI v3 text to the compiled tree."""

from __future__ import annotations

import re
from typing import Any

from fairlead.localcluster.schema.builtin import object_meta
from fairlead.localcluster.schema.names import escaped
from fairlead.localcluster.schema.tree import INT_OR_STRING, MISSING, Bounds, Json, Rule, Schema

_TEXT = Schema(type="string")
_BOUND_NAMES = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusiveMinimum": "exclusive_minimum",
    "exclusiveMaximum": "exclusive_maximum",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_items",
    "maxItems": "max_items",
    "uniqueItems": "unique_items",
    "minProperties": "min_properties",
    "maxProperties": "max_properties",
}


def compile_schema(openapi_v3_schema: Json) -> Schema:
    """Compile a CRD version's ``openAPIV3Schema``; *apiVersion*, *kind* and *metadata* are added as Kubernetes does."""
    return _compile(openapi_v3_schema, resource=True)


def compile_fragment(openapi_v3_schema: Json) -> Schema:
    """Compile a schema that describes a value, not a whole object."""
    return _compile(openapi_v3_schema, resource=False)


def go_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a Go (RE2) pattern: ``$`` means the very end, and classes are ASCII.

    Raises:
        re.error: when it is no regular expression.
    """
    translated = re.sub(r"(\\.)|\$", lambda hit: hit.group(1) or r"\Z", pattern.replace(r"\z", r"\Z"), flags=re.DOTALL)
    return re.compile(_outside_classes(pattern, translated), re.ASCII)


def _outside_classes(pattern: str, translated: str) -> str:
    """Return *translated* unless a character class holds a dollar sign, which keeps its plain meaning there."""
    in_class = re.search(r"(?<!\\)\[[^\]]*\$[^\]]*\]", pattern)
    return pattern if in_class else translated


def _bounds(raw: Json) -> Bounds | None:
    found: dict[str, Any] = {name: raw[key] for key, name in _BOUND_NAMES.items() if raw.get(key) is not None}
    if raw.get("pattern"):
        found |= {"pattern": go_pattern(raw["pattern"]), "pattern_text": raw["pattern"]}
    if raw.get("enum"):
        found["enum"] = tuple(raw["enum"])
    return Bounds(**found) if found else None


def _rule(raw: Json) -> Rule:
    return Rule(
        rule=raw.get("rule", ""),
        message=raw.get("message", ""),
        message_expression=raw.get("messageExpression", ""),
        reason=raw.get("reason", ""),
        field_path=raw.get("fieldPath", ""),
        optional_old_self=bool(raw.get("optionalOldSelf")),
    )


def _metadata(raw: Json | None) -> Schema:
    """ObjectMeta, with what the schema says of its name besides."""
    extra = _compile(raw, resource=False) if raw and raw.get("properties") else None
    meta = object_meta()
    if extra is None:
        return meta
    return Schema(
        type="object",
        properties=meta.properties,
        lenient=True,
        all_of=(extra,),
        component=meta.component,
        has_defaults=meta.has_defaults,
    )


def _properties(raw: Json, *, resource: bool) -> dict[str, Schema]:
    found = {name: _compile(child, resource=False) for name, child in (raw.get("properties") or {}).items()}
    if resource:
        metadata = _metadata((raw.get("properties") or {}).get("metadata"))
        found = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": metadata} | {
            name: child for name, child in found.items() if name != "metadata"
        }
    return found


def _additional(raw: Json) -> Schema | None:
    extra = raw.get("additionalProperties")
    if extra is None or extra is False:
        return None
    return Schema(preserve=True) if extra is True else _compile(extra, resource=False)


def _compile(raw: Json, *, resource: bool) -> Schema:
    embedded = bool(raw.get("x-kubernetes-embedded-resource"))
    properties = _properties(raw, resource=resource or embedded)
    additional = _additional(raw)
    items = _compile(raw["items"], resource=False) if isinstance(raw.get("items"), dict) else None
    inner = [*properties.values(), *(node for node in (additional, items) if node)]
    default = raw.get("default", MISSING)
    rules = tuple(_rule(rule) for rule in raw.get("x-kubernetes-validations") or ())
    return Schema(
        type=INT_OR_STRING if raw.get("x-kubernetes-int-or-string") else raw.get("type", ""),
        properties=properties,
        additional=additional,
        items=items,
        required=tuple(raw.get("required") or ()),
        default=default,
        nullable=bool(raw.get("nullable")),
        preserve=bool(raw.get("x-kubernetes-preserve-unknown-fields")),
        embedded=embedded,
        format=raw.get("format", ""),
        bounds=_bounds(raw),
        list_type=raw.get("x-kubernetes-list-type", "atomic"),
        list_keys=tuple(raw.get("x-kubernetes-list-map-keys") or ()),
        map_type=raw.get("x-kubernetes-map-type", "granular"),
        all_of=_many(raw, "allOf"),
        any_of=_many(raw, "anyOf"),
        one_of=_many(raw, "oneOf"),
        negated=_compile(raw["not"], resource=False) if isinstance(raw.get("not"), dict) else None,
        rules=rules,
        has_defaults=default is not MISSING or any(node.has_defaults for node in inner),
        has_rules=bool(rules) or any(node.has_rules for node in inner),
        converts=_converts(raw) or any(node.converts for node in inner),
        raw=raw,
    )


def _converts(raw: Json) -> bool:
    """Return whether CEL sees this value in another form than JSON has."""
    if raw.get("format") in {"date-time", "date", "duration", "byte"} or raw.get("type") == "number":
        return True
    return any(escaped(name) != name for name in raw.get("properties") or ())


def _many(raw: Json, keyword: str) -> tuple[Schema, ...]:
    return tuple(_compile(item, resource=False) for item in raw.get(keyword) or ())
