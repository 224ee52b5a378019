"""Short names of JSON values, and what a value takes where it is kept."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str)
_SIZED: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
MAX_LEVELS: Final = 128
"""How deeply lists and maps may lie in each other: with what is around them in a message, parsers take some 200."""
_INTEGERS: Final = range(-(1 << 63), 1 << 64)
"""Those that storage takes."""
_CONTAINERS: Final = (dict, list, tuple)


def token(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal. The same value has the same token."""
    return hashlib.sha256(_ENCODER.encode(value).encode()).hexdigest()


def output_size(output: Any) -> int:
    """Return how many bytes *output* takes as JSON.

    Raises:
        ValueError: it cannot be kept; the text says what is in the way.
    """
    _check(output)
    try:
        return len(_SIZED.encode(output).encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object[error.start]!a} is half a character") from None
    except ValueError:
        raise ValueError("NaN and infinity are no JSON values") from None
    except TypeError as error:
        raise ValueError(str(error)) from None


def _check(value: Any) -> None:
    """Look for integers that are too long and for levels that are too deep: the encoder minds neither."""
    level, depth = [value], 0
    while level:
        for one in level:
            if isinstance(one, int) and one not in _INTEGERS:
                raise ValueError(f"{one} has more than 64 bits: an integer so long has to be a text")
        containers = [one for one in level if isinstance(one, _CONTAINERS)]
        depth += 1
        if containers and depth > MAX_LEVELS:
            raise ValueError(f"lists and maps lie in each other more than {MAX_LEVELS} deep")
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
