"""Short names of JSON values: the same value has the same token."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str)
_SIZED: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def token(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal."""
    return hashlib.sha256(_ENCODER.encode(value).encode()).hexdigest()


def output_size(output: Any) -> int:
    """Return how many bytes *output* takes as JSON."""
    return len(_SIZED.encode(output).encode(errors="surrogatepass"))
