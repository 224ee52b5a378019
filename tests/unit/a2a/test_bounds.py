from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from fairlead.a2a.bounds import MAX_VALUES, FewValues
from fairlead.errors import TerminalError


class Chunks(httpx.AsyncByteStream):
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


async def read(*chunks: bytes, events: bool = False) -> int:
    return sum([len(chunk) async for chunk in FewValues(Chunks(*chunks), events=events)])


@pytest.mark.parametrize("events", [True, False])
async def test_few_values_refuses_an_answer_that_is_slow_to_read(events: bool) -> None:
    parts = b'{"text": "a"}, ' * 1000
    with pytest.raises(TerminalError) as caught:
        await read(*[parts] * 100, events=events)
    assert caught.value.reason == "TooLarge"


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
async def test_few_values_lets_many_small_events_through(end: bytes) -> None:
    event = b'data: {"result":{"artifactUpdate":{"parts":[{"text":"word "}]}}}' + end
    count = MAX_VALUES // 2
    assert await read(*[event] * count, events=True) == len(event) * count
    assert await read(event * 64, event * 64, events=True) == len(event) * 128


async def test_few_values_lets_a_long_text_through() -> None:
    text = b'{"text":"' + b"What a day, said the fox. " * 40_000 + b'"}'
    assert await read(text) == len(text)
