from __future__ import annotations

import pytest

from fairlead.redaction import redact, visible


@pytest.mark.parametrize(
    "text",
    [
        "https://api.test/v1?key=canary1234",
        "GET /a?x=1&access_token=canary1234&y=2",
        "redis://:canary1234@host/0",
        "postgresql://me:canary1234@host/db",
        "Authorization: Bearer canary1234",
        "sk-abcanary1234",
        "a token eyJhbGci.canary1234.c2ln, or",
        "session-eyJhbGci.canary1234.c2ln",
    ],
)
def test_redact_takes_credentials_out(text: str) -> None:
    assert "canary1234" not in redact(text)


@pytest.mark.parametrize(
    "piece",
    ["eyJ-", "eyJ.", "eyJ-a.", "a-eyJ-", "bearer ", "sk-", "://a:", "://:", "?token=", "?a-token", "&key", "a-"],
)
def test_redact_goes_through_a_long_text_once(piece: str) -> None:
    """With a square of the length it would take minutes."""
    assert len(redact(piece * 100_000)) > 0


def test_visible_shows_what_steers_a_terminal() -> None:
    assert visible("a\tb\nc") == "a\tb\nc"
    assert visible("\x1b]8;;http://x\x07 \x9b1m \r \u202e") == "\\x1b]8;;http://x\\x07 \\x9b1m \\r \\u202e"
