"""What an API server enforces on a CustomResourceDefinition."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from fairlead.localcluster.printing.jsonpath import JSONPathError
from fairlead.localcluster.printing.jsonpath import parse as parse_jsonpath
from fairlead.localcluster.schema import errors
from fairlead.localcluster.schema.compiling import compile_schema
from fairlead.localcluster.schema.crd_rules import check_rules_of
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.structural import check_structure
from fairlead.localcluster.schema.tree import Json

_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_COLUMN_TYPES: Final = ("integer", "number", "string", "boolean", "date")
_COLUMN_FORMATS: Final = frozenset({"int32", "int64", "float", "double", "byte", "date", "date-time", "password"})
_DNS_LABEL: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_APPROVAL: Final = "api-approved.kubernetes.io"
_MAX_SELECTABLE: Final = 8


def check_crd(crd: Json) -> list[FieldError]:
    """Return why a CustomResourceDefinition is refused.

    A finding whose reason is `crd_rules.NOT_EVALUATED` refuses nothing; it is for a Warning header.
    """
    spec = crd.get("spec") or {}
    names = spec.get("names") or {}
    found = [*_check_identity(crd, spec, names), *_check_names(names), *_check_versions(spec)]
    strategy = (spec.get("conversion") or {}).get("strategy", "None")
    if strategy not in {"None", "Webhook"}:
        found.append(errors.unsupported("spec.conversion.strategy", strategy, ("None", "Webhook")))
    versions = [item for item in spec.get("versions") or () if isinstance(item, dict)]
    shared = len({errors.text(item.get("schema") or {}) for item in versions}) == 1
    for index, version in enumerate(versions):
        found += _check_version(version, f"spec.versions[{index}]", shared=shared, first=index == 0)
    return found


def _check_identity(crd: Json, spec: Json, names: Json) -> Iterator[FieldError]:
    group, name = spec.get("group") or "", (crd.get("metadata") or {}).get("name", "")
    if name != f"{names.get('plural', '')}.{group}":
        yield errors.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if not group:
        yield errors.required("spec.group")
    elif not _SUBDOMAIN.fullmatch(group):
        yield errors.invalid("spec.group", group, "a lowercase RFC 1123 subdomain must consist of lower case letters")
    elif "." not in group:
        yield errors.invalid("spec.group", group, "should be a domain with at least one dot")
    if group.endswith((".k8s.io", ".kubernetes.io")):
        annotations = (crd.get("metadata") or {}).get("annotations") or {}
        if _APPROVAL not in annotations:
            text = (
                f'protected groups must have approval annotation "{_APPROVAL}", '
                "see https://github.com/kubernetes/enhancements/pull/1111"
            )
            yield errors.required(f"metadata.annotations[{_APPROVAL}]", text)
    scope = spec.get("scope")
    if not scope:
        yield errors.required("spec.scope")
    elif scope not in {"Cluster", "Namespaced"}:
        yield errors.unsupported("spec.scope", scope, ("Cluster", "Namespaced"))


def _check_names(names: Json) -> Iterator[FieldError]:
    for key in ("plural", "kind"):
        if not names.get(key):
            yield errors.required(f"spec.names.{key}")
    for key in ("plural", "singular", "kind", "listKind"):
        value, mixed = names.get(key), key.lower().endswith("kind")
        if value and not _LABEL.fullmatch(value.lower() if mixed else value):
            text = "may have mixed case, but should otherwise match: " if mixed else ""
            yield errors.invalid(f"spec.names.{key}", value, text + _DNS_LABEL)
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        yield errors.invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")
    for key in ("shortNames", "categories"):
        for index, value in enumerate(names.get(key) or ()):
            if not _LABEL.fullmatch(value):
                yield errors.invalid(f"spec.names.{key}[{index}]", value, _DNS_LABEL)


def _check_versions(spec: Json) -> Iterator[FieldError]:
    versions = spec.get("versions") or []
    names = Counter(item.get("name", "") for item in versions)
    for index, version in enumerate(versions):
        if not _LABEL.fullmatch(version.get("name") or ""):
            yield errors.invalid(f"spec.versions[{index}].name", version.get("name", ""), _DNS_LABEL)
    if any(count > 1 for count in names.values()):
        yield errors.invalid("spec.versions", list(names), "must contain unique version names")
    if sum(bool(item.get("storage")) for item in versions) != 1:
        yield errors.invalid("spec.versions", list(names), "must have exactly one version marked as storage version")


def _check_version(version: Json, path: str, *, shared: bool, first: bool) -> Iterator[FieldError]:
    """Kubernetes hoists what all versions share to the top, and names it there."""
    raw = (version.get("schema") or {}).get("openAPIV3Schema")
    where = "spec.validation.openAPIV3Schema" if shared else f"{path}.schema.openAPIV3Schema"
    if not isinstance(raw, dict):
        yield errors.required(f"{path}.schema.openAPIV3Schema", "schemas are required")
    elif first or not shared:
        yield from _check_schema(raw, where)
    yield from _check_columns(version, path)
    yield from _check_subresources(version, path)
    yield from _check_selectable(version, path, raw or {})


def _check_schema(raw: Json, path: str) -> Iterator[FieldError]:
    structural = list(check_structure(raw, path))
    yield from structural
    if not structural:
        yield from check_rules_of(compile_schema(raw), path)


def _check_columns(version: Json, path: str) -> Iterator[FieldError]:
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        where = f"{path}.additionalPrinterColumns[{index}]"
        for key in ("name", "type", "jsonPath"):
            if not column.get(key):
                yield errors.required(f"{where}.{key}")
        kind, shape = column.get("type"), column.get("format")
        if kind and kind not in _COLUMN_TYPES:
            yield errors.invalid(f"{where}.type", kind, f"must be one of {','.join(_COLUMN_TYPES)}")
        if shape and shape not in _COLUMN_FORMATS:
            yield errors.invalid(f"{where}.format", shape, f"must be one of {','.join(sorted(_COLUMN_FORMATS))}")
        yield from _check_path(column.get("jsonPath"), f"{where}.jsonPath")


def _check_path(path: Any, where: str) -> Iterator[FieldError]:
    if not path:
        return
    try:
        parse_jsonpath(path)
    except JSONPathError as error:
        yield errors.invalid(where, path, str(error))


def _check_subresources(version: Json, path: str) -> Iterator[FieldError]:
    scale = (version.get("subresources") or {}).get("scale")
    if not scale:
        return
    where = f"{path}.subresources.scale"
    for key, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(key)
        if not value:
            yield errors.required(f"{where}.{key}")
        elif not value.startswith(root):
            yield errors.invalid(f"{where}.{key}", value, f"should be a json path under {root.rstrip('.')}")
    selector = scale.get("labelSelectorPath")
    if selector and not selector.startswith((".spec.", ".status.")):
        text = "should be a json path under either .spec or .status"
        yield errors.invalid(f"{where}.labelSelectorPath", selector, text)


def _check_selectable(version: Json, path: str, raw: Json) -> Iterator[FieldError]:
    fields = version.get("selectableFields") or ()
    if len(fields) > _MAX_SELECTABLE:
        yield errors.too_many(f"{path}.selectableFields", len(fields), _MAX_SELECTABLE)
    for index, item in enumerate(fields):
        where, json_path = f"{path}.selectableFields[{index}].jsonPath", item.get("jsonPath") or ""
        if not json_path:
            yield errors.required(where)
            continue
        if json_path.startswith(".metadata."):
            yield errors.invalid(where, json_path, "must not point to fields in metadata")
            continue
        node: Any = raw
        for name in json_path.lstrip(".").split("."):
            node = ((node or {}).get("properties") or {}).get(name)
        if not isinstance(node, dict) or node.get("type") not in {"boolean", "integer", "string"}:
            text = "must point to a field of type string, boolean or integer, and the field must be in the schema"
            yield errors.invalid(where, json_path, text)
