from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fairlead.localcluster.apiserver.logs import LogOptions, _moment, _shown, _tail

LINES = [
    b"2026-01-01T00:00:00.5Z stdout F one",
    b"2026-01-01T00:00:01.123456789Z stderr P tw",
    b"2026-01-01T00:00:01.2Z stderr F o and more",
    b"broken",
    b"2026-01-01T00:00:02Z stdout F ",
]


def options(*, timestamps: bool = False, since: datetime | None = None) -> LogOptions:
    return LogOptions(follow=False, timestamps=timestamps, tail=None, since=since, limit=None)


def test_shown_joins_partial_lines_and_skips_broken_ones() -> None:
    assert b"".join(_shown(LINES, options())) == b"one\ntwo and more\n\n"


def test_shown_since_a_time_with_timestamps() -> None:
    since = datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)
    assert list(_shown(LINES, options(timestamps=True, since=since))) == [b"2026-01-01T00:00:02Z \n"]


@pytest.mark.parametrize(("count", "kept"), [(None, 3), (2, 2), (0, 0), (9, 3)])
def test_tail_keeps_the_last(count: int | None, kept: int) -> None:
    assert len(list(_tail(iter([b"a", b"b", b"c"]), count))) == kept


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        (b"2026-01-01T00:00:00Z", 0),
        (b"2026-01-01T00:00:00.123456789Z", 123456),
        (b"2026-01-01T00:00:00.5+00:00", 500000),
    ],
)
def test_moment_reads_any_fraction(text: bytes, microsecond: int) -> None:
    assert _moment(text) == datetime(2026, 1, 1, microsecond=microsecond, tzinfo=UTC)
