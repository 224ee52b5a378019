from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from fairlead import logs


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before[0], before[1]


@pytest.mark.parametrize(
    "text",
    [
        "https://api.test/v1?key=canary1234",
        "GET /a?x=1&access_token=canary1234&y=2",
        "redis://:canary1234@host/0",
        "postgresql://me:canary1234@host/db",
        "Authorization: Bearer canary1234",
        "sk-abcanary1234",
    ],
)
def test_redact_takes_credentials_out(text: str) -> None:
    assert "canary1234" not in logs.redact(text)


def test_setup_keeps_what_libraries_say_about_requests_out(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.setup(level="DEBUG", fmt="json")
    for name in ("httpx", "httpcore.http11", "kubernetes.client.rest"):
        logging.getLogger(name).info("body %s", "canary")
    logging.getLogger("other").info("shown")
    assert root.level == logging.DEBUG
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["shown"]


def test_setup_for_people_writes_one_line_an_event(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(level="INFO", fmt="console")
    logging.getLogger("other").info("said", extra={})
    logs.get_logger("mine").info("said", text="a\n2026-01-01 [error] forged\x1b[2J")
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == len(root.handlers) * 2
    assert "\x1b" not in shown


def test_visible_shows_what_steers_a_terminal() -> None:
    assert logs.visible("a\tb\nc") == "a\tb\nc"
    assert logs.visible("\x1b]8;;http://x\x07 \x9b1m \r \u202e") == "\\x1b]8;;http://x\\x07 \\x9b1m \\r \\u202e"
