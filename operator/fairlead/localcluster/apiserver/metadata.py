"""The rules for an object's metadata, the same for every kind.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

from fairlead.localcluster.apiserver.errors import Json, bad_request
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.schema.errors import FieldError, forbidden, invalid, required, too_long

MAX_ANNOTATION_BYTES = 262_144
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_NAME_PART = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SERVICE_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_KEY_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_LABEL_LENGTH = 63
_NAME_LENGTH = 253
_GENERATED_BASE = 58
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_LABEL_NAMED = frozenset({("", "namespaces")})
_PATH_NAMED = "rbac.authorization.k8s.io"


def name_object(resource: Resource, obj: Json) -> None:
    """Give *obj* the name that it asks for by ``generateName``.

    Raises:
        ApiError: it asks for nothing.
    """
    metadata = obj["metadata"]
    base = metadata.get("generateName")
    if not metadata.get("name") and base:
        suffix = "".join(secrets.choice(_ALPHABET) for _ in range(5))
        metadata["name"] = base[:_GENERATED_BASE] + suffix
    if not isinstance(metadata.get("name") or "", str):
        raise bad_request(f"{resource.kind} metadata.name must be a string")


def check_metadata(resource: Resource, obj: Json) -> list[FieldError]:
    """Return what is wrong with the metadata of *obj*."""
    metadata = obj["metadata"]
    return [
        *_name_errors(resource, metadata.get("name") or ""),
        *_label_errors(metadata.get("labels") or {}, "metadata.labels"),
        *_annotation_errors(metadata.get("annotations") or {}),
        *_owner_errors(metadata.get("ownerReferences") or []),
        *(error for name in metadata.get("finalizers") or [] for error in _finalizer_errors(name)),
    ]


def _name_errors(resource: Resource, name: str) -> Iterator[FieldError]:
    path = "metadata.name"
    if not name:
        yield required(path, "name or generateName is required")
    elif resource.group == _PATH_NAMED:
        if name in {".", ".."} or "/" in name or "%" in name:
            yield invalid(path, name, "may not contain '/' or '%', nor be '.' or '..'")
    elif resource.table in _LABEL_NAMED:
        yield from _matching(path, name, _LABEL, limit=_LABEL_LENGTH, text=_LABEL_TEXT)
    elif resource.table == ("", "services"):
        yield from _matching(path, name, r"[a-z]([-a-z0-9]*[a-z0-9])?", limit=_LABEL_LENGTH, text=_SERVICE_TEXT)
    else:
        yield from _matching(path, name, _SUBDOMAIN, limit=_NAME_LENGTH, text=_SUBDOMAIN_TEXT)


def _matching(path: str, value: str, pattern: str, *, limit: int, text: str) -> Iterator[FieldError]:
    if len(value) > limit:
        yield invalid(path, value, f"must be no more than {limit} bytes")
    if not re.fullmatch(pattern, value):
        yield invalid(path, value, text)


def _key_errors(path: str, key: str) -> Iterator[FieldError]:
    prefix, slash, name = key.rpartition("/")
    if slash and not prefix:
        yield invalid(path, key, "prefix part must be non-empty")
    elif slash:
        yield from (
            invalid(path, key, f"prefix part {_SUBDOMAIN_TEXT}")
            for _ in [0]
            if not re.fullmatch(_SUBDOMAIN, prefix) or len(prefix) > _NAME_LENGTH
        )
    if not name:
        yield invalid(path, key, "name part must be non-empty")
    elif len(name) > _LABEL_LENGTH:
        yield invalid(path, key, f"name part must be no more than {_LABEL_LENGTH} bytes")
    if not re.fullmatch(_NAME_PART, name):
        yield invalid(path, key, _KEY_TEXT)


def _label_errors(labels: dict[str, str], path: str) -> Iterator[FieldError]:
    for key, value in labels.items():
        yield from _key_errors(path, key)
        if len(value) > _LABEL_LENGTH:
            yield invalid(path, value, f"must be no more than {_LABEL_LENGTH} bytes")
        if value and not re.fullmatch(_NAME_PART, value):
            yield invalid(path, value, _VALUE_TEXT)


def _annotation_errors(annotations: dict[str, str]) -> Iterator[FieldError]:
    for key in annotations:
        yield from _key_errors("metadata.annotations", key.lower())
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > MAX_ANNOTATION_BYTES:
        yield too_long("metadata.annotations", MAX_ANNOTATION_BYTES)


def _owner_errors(owners: list[Json]) -> Iterator[FieldError]:
    controllers = 0
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                yield required(f"{path}.{name}", "must not be empty")
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        yield invalid("metadata.ownerReferences", owners, "Only one reference can have Controller set to true")


def _finalizer_errors(name: str) -> Iterator[FieldError]:
    yield from _key_errors("metadata.finalizers", name)


def check_finalizers_kept(old: Json, new: Json) -> list[FieldError]:
    """Refuse new finalizers on an object that is being deleted."""
    if not old["metadata"].get("deletionTimestamp"):
        return []
    added = set(new["metadata"].get("finalizers") or []) - set(old["metadata"].get("finalizers") or [])
    if not added:
        return []
    names = ", ".join(f'"{name}"' for name in sorted(added))
    message = f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{names}}}"
    return [forbidden("metadata.finalizers", message)]
