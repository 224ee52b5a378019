"""Bodies in Kubernetes' protobuf: kubectl sends built-in kinds so, from version 1.33 on, and nobody can tell it not to.

Only reading is needed, since every client accepts JSON. A field that is not in the table is refused, not dropped.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from fairlead.localcluster.apiserver.errors import ApiError, Json, bad_request
from fairlead.localcluster.apiserver.protobuf_messages import MESSAGES

_MAGIC = b"k8s\x00"
_VARINT, _BYTES = 0, 2
_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: `kind` is a scalar, a special type or a message; an optional one keeps its zero value."""

    name: str
    kind: str = "string"
    repeated: bool = False
    mapped: bool = False
    optional: bool = False


@cache
def _fields(message: str) -> Mapping[int, _Field]:
    """Parse a row of the table: ``1 name, 7 generation int, 11 labels {string}, 13 owners [X], 4 immutable bool?``.

    The number, the name on the wire, and the type of each field.
    """
    fields = {}
    for row in MESSAGES[message].split(","):
        number, name, *kinds = row.split()
        kind = kinds[0] if kinds else "string"
        bare = kind.strip("[]{}?")
        fields[int(number)] = _Field(name, bare, kind[0] == "[", kind[0] == "{", kind[-1] == "?")
    return fields


def parse_protobuf(body: bytes) -> Json:
    """Return the object in *body*.

    Raises:
        ApiError: 400 for broken bytes, 415 for what is not in the table.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("the protobuf body does not start with the expected prefix")
    try:
        unknown = _message("Unknown", body[len(_MAGIC) :])
        head = unknown.get("typeMeta") or {}
        kind = str(head.get("kind", ""))
        name = kind if kind in MESSAGES else ""
        if head.get("apiVersion") == "events.k8s.io/v1":
            name = "NewEvent"
        if not name:
            raise _unsupported(kind)
        return {**head, **_message(name, base64.b64decode(unknown.get("raw", "")))}
    except (IndexError, UnicodeDecodeError, OverflowError) as error:
        raise bad_request(f"the protobuf body is broken: {error}") from None


def _unsupported(what: str) -> ApiError:
    message = f"this server does not read {what} in protobuf; accepted media types include: application/json"
    return ApiError(415, "UnsupportedMediaType", message)


def _message(name: str, data: bytes) -> Json:
    fields, result = _fields(name), dict[str, Any]()
    for number, value in _wire(data):
        field = fields.get(number)
        if field is None:
            raise _unsupported(f"field {number} of {name}")
        if field.mapped:
            key, item = _entry(field, value)
            result.setdefault(field.name, {})[key] = item
        elif field.repeated:
            result.setdefault(field.name, []).append(_value(field, value))
        else:
            _set(result, field, _value(field, value))
    return result


def _set(result: Json, field: _Field, value: Any) -> None:
    if value is not None and (field.optional or value not in ("", 0, False, {})):
        result[field.name] = value


def _entry(field: _Field, data: Any) -> tuple[str, Any]:
    pair = dict(_wire(data))
    return pair.get(1, b"").decode(), _value(field, pair.get(2, b""))


def _value(field: _Field, value: Any) -> Any:
    converter = _CONVERTERS.get(field.kind)
    return _message(field.kind, value) if converter is None else converter(value)


def _signed(value: int) -> int:
    return value - (_SIGN << 1) if value & _SIGN else value


def _int_or_string(data: bytes) -> str | int:
    parts = _message("IntOrString", data)
    return str(parts.get("strVal", "")) if parts.get("type") else int(parts.get("intVal", 0))


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "string": bytes.decode,
    "bytes": lambda data: base64.b64encode(data).decode(),
    "int": _signed,
    "bool": bool,
    "Time": lambda data: _time("Time", data),
    "MicroTime": lambda data: _time("MicroTime", data),
    "Quantity": lambda data: _message("Quantity", data).get("string", "0"),
    "IntOrString": _int_or_string,
    "ExtraValue": lambda data: _message("ExtraValue", data).get("items", []),
    "Ignored": lambda _: None,
}


def _time(kind: str, data: bytes) -> str | None:
    parts = _message("Timestamp", data)
    if not parts:
        return None
    moment = datetime.fromtimestamp(parts.get("seconds", 0), UTC)
    fraction = f".{parts.get('nanos', 0) // 1000:06d}" if kind == "MicroTime" else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _wire(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field number and raw value of each field.

    Source: https://protobuf.dev/programming-guides/encoding/
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _varint(data, position)
            yield number, value
        elif wire_type == _BYTES:
            length, position = _varint(data, position)
            if position + length > len(data):
                message = "a field is longer than the body"
                raise IndexError(message)
            yield number, data[position : position + length]
            position += length
        else:
            raise _unsupported(f"wire type {wire_type}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, position
        shift += 7
        if shift > 63:  # noqa: PLR2004 - the longest number
            message = "a number is too long"
            raise OverflowError(message)
