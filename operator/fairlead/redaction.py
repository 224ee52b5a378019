"""Text that others wrote: what looks like a secret is taken out, and nothing in it steers a terminal."""

from __future__ import annotations

import re

_SECRET_KEY = re.compile(r"(?i)(token|secret|password|passwd|api[-_]?key|authorization|cookie|credential)")
# Texts are long and hostile: each alternative looks at each character a bounded number of times.
_SECRET_TEXT = re.compile(
    r"(?i)(bearer\s+)[\w.~+/=-]{8,}"  # HTTP authorization
    r"|(\bsk-[\w-]{3})[\w-]{5,}"  # provider keys
    r"|((?<![\w-])(?:\w{1,32}-)?)eyJ[\w-]++\.[\w-]++\.[\w-]++"  # JSON web tokens
    r"|(://[^/\s:@]*:)[^/\s@]+(?=@)"  # credentials in a URL
    r"|([?&](?:api[-_]?key|key|[\w-]*token|[\w-]*secret|password|sig(?:nature)?)=)[^&\s\"']+",
)
REDACTED = "[redacted]"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def redact(text: str) -> str:
    """Return *text* with what looks like a credential replaced."""
    return _SECRET_TEXT.sub(lambda found: next((g for g in found.groups() if g), "") + REDACTED, text)


def visible(text: str) -> str:
    """Return *text* with characters that steer a terminal, or hide what is written, as visible escapes."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def names_secret(key: str) -> bool:
    """Whether what has this name is likely a secret."""
    return _SECRET_KEY.search(key) is not None
