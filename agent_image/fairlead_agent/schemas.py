"""JSON Schema: checks of the schemas that workflows hold, and of values against them. Offline, in linear time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from fairlead_agent.schema_sizes import weigh

if TYPE_CHECKING:
    import jsonschema_rs

MAX_MISTAKES = 5
_MAX_PATTERN_BYTES: Final = 1 << 20
"""Of a compiled regular expression."""


class SchemaError(ValueError):
    """The schema itself is wrong."""


def check_schema(schema: Any) -> str:
    """Return what is wrong with *schema*, or nothing."""
    try:
        _validator(json.dumps(schema))
    except (SchemaError, TypeError, ValueError, RecursionError) as error:
        return str(error) or "it is no JSON Schema"
    return ""


def mistakes(schema: Mapping[str, Any], value: Any, *, root: str = "the answer") -> list[str]:
    """Return the first few ways in which *value*, called *root*, does not match *schema*, each with its place."""
    found: list[str] = []
    for error in _validator(json.dumps(schema)).iter_errors(value):
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        found.append(f"{where.lstrip('.') or root}: {error.message[:300]}")
        if len(found) == MAX_MISTAKES:
            break
    return found


@lru_cache(maxsize=256)
def _validator(schema: str) -> jsonschema_rs.Validator:
    return build_validator(json.loads(schema))


def build_validator(schema: Any, *, mask: str | None = None) -> jsonschema_rs.Validator:
    """Return what checks values against *schema*: regular expressions do not backtrack, nothing is fetched.

    Args:
        schema: of any draft; references lead to places in it.
        mask: said in messages instead of the value.

    Raises:
        SchemaError: it is no JSON Schema, or one that makes too much work.
    """
    import jsonschema_rs

    try:
        weigh(schema)
        return jsonschema_rs.validator_for(
            schema, mask=mask, pattern_options=jsonschema_rs.RegexOptions(size_limit=_MAX_PATTERN_BYTES), offline=True
        )
    except ValueError as error:
        where = "".join(f"[{part!r}]" for part in getattr(error, "instance_path", ()))
        what = getattr(error, "message", "") or str(error).partition("\n")[0]
        raise SchemaError(f"{what}{f' at {where}' if where else ''}") from None
