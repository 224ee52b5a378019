"""Says what is wrong with a spec: one message with paths, for a condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.core.supported import unsupported

Refusal = tuple[Reason, str]
_SHOWN: Final = 5


def listed(problems: Iterable[tuple[str, str]]) -> str:
    """Return one text for problems, each a path below ``spec`` and a message; the first few, and how many more."""
    found = [f"spec.{path}: {message}" if path else message for path, message in problems]
    more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def refusal(kind: str, spec: Mapping[str, Any]) -> Refusal | None:
    """Return why a spec asks for what this version does not do, or None."""
    gaps = unsupported(kind, spec)
    return (Reason.NOT_SUPPORTED, listed(gaps)) if gaps else None
