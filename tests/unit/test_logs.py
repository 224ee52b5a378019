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
