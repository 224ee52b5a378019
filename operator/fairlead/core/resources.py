"""What a pod asks for and may use: every pod has limits, whatever its Agent says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_SCALE: Final[Mapping[str, Decimal]] = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGT", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGT", 1)},
}
REQUESTS: Final[Mapping[str, str]] = {"cpu": "100m", "memory": "128Mi", "ephemeral-storage": "64Mi"}
LIMITS: Final[Mapping[str, str]] = {"cpu": "1", "memory": "512Mi", "ephemeral-storage": "256Mi"}


def parse_quantity(text: str) -> Decimal:
    """Return the number that a quantity of the API stands for: ``500m``, ``256Mi``, ``1``.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        message = f"{text!r} is no quantity"
        raise ValueError(message)
    return Decimal(found[1]) * _SCALE[found[2] or ""]


def build_resources(given: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return an Agent's ``resources`` with what it leaves out; a default gives way to what is given beside it."""
    requests = {key: str(value) for key, value in (given.get("requests") or {}).items()}
    limits = {key: str(value) for key, value in (given.get("limits") or {}).items()}
    return {
        "requests": _defaults(REQUESTS, requests, but=limits, choose=min) | requests,
        "limits": _defaults(LIMITS, limits, but=requests, choose=max) | limits,
    }


def _defaults(defaults: Mapping[str, str], own: Mapping[str, str], *, but: Mapping[str, str], choose: Any) -> Any:
    """Return the defaults for what is not given: a request of at most the limit, a limit of at least the request."""
    missing = {key: value for key, value in defaults.items() if key not in own}
    return {key: choose(value, but.get(key, value), key=parse_quantity) for key, value in missing.items()}
