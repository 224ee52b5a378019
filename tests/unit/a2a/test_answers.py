from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from a2a.types.a2a_pb2 import (
    Artifact,
    Message,
    Part,
    Role,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
)
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from fairlead.a2a.answers import COST_KEY, MAX_PARTS, Gathering, to_output
from fairlead.errors import TerminalError


def data(value: Any) -> Part:
    return Part(data=ParseDict(value, Value()))


def done(*artifacts: Artifact, **more: Any) -> Task:
    return Task(id="t", status=TaskStatus(state=TaskState.TASK_STATE_COMPLETED), artifacts=artifacts, **more)


@pytest.mark.parametrize(
    ("parts", "wants_value", "output"),
    [
        pytest.param([Part(text="a"), Part(text="b")], False, "a\nb", id="texts"),
        pytest.param([data({"n": 1, "x": 1.5, "l": [2]})], False, {"n": 1, "x": 1.5, "l": [2]}, id="value"),
        pytest.param([Part(text="see"), data([1])], True, [1], id="value-with-words"),
        pytest.param([Part(text="see"), data([1])], False, {"text": "see", "data": [[1]], "files": []}, id="both"),
        pytest.param(
            [Part(raw=b"\0", filename="f", media_type="a/b"), Part(url="https://x")],
            False,
            {
                "text": "",
                "data": [],
                "files": [
                    {"name": "f", "mediaType": "a/b", "base64": "AA=="},
                    {"name": "", "mediaType": "", "url": "https://x"},
                ],
            },
            id="files",
        ),
        pytest.param([], False, "", id="nothing"),
    ],
)
def test_to_output_keeps_what_was_said(parts: list[Part], wants_value: bool, output: Any) -> None:
    assert to_output(parts, wants_value=wants_value) == output


def test_gathering_takes_the_last_words_where_there_is_no_artifact() -> None:
    whole = Gathering()
    whole.task(done(history=[Message(role=Role.ROLE_AGENT, parts=[Part(text="bye")])]))
    assert (whole.settled, whole.answer().parts[0].text) == (True, "bye")


def test_gathering_replaces_an_artifact_that_comes_again() -> None:
    whole = Gathering()
    for text, append in (("one", False), ("two", False), (" three", True)):
        update = TaskArtifactUpdateEvent(artifact=Artifact(artifact_id="a", parts=[Part(text=text)]), append=append)
        whole.add(StreamResponse(artifact_update=update))
    assert [part.text for part in whole.answer().parts] == ["two three"]


@pytest.mark.parametrize(
    ("said", "cost"),
    [("0.25", Decimal("0.25")), (0.5, Decimal("0.5")), ("-1", None), ("NaN", None), ("1e9", None), ({"a": 1}, None)],
)
def test_gathering_believes_costs_that_can_be(said: Any, cost: Decimal | None) -> None:
    whole = Gathering()
    whole.task(done(metadata={COST_KEY: said}))
    assert whole.answer().cost == cost


def test_gathering_refuses_too_many_parts_at_once() -> None:
    for append in (True, False):
        whole = Gathering()
        update = TaskArtifactUpdateEvent(artifact=Artifact(parts=[Part(text="x")] * 100_000), append=append)
        with pytest.raises(TerminalError) as caught:
            whole.add(StreamResponse(artifact_update=update))
        assert (caught.value.reason, whole.answer().parts) == ("TooLarge", ())
    with pytest.raises(TerminalError):
        Gathering().message(Message(parts=[Part(text="x")] * 100_000))


def test_gathering_refuses_too_many_parts_one_by_one() -> None:
    whole = Gathering()
    update = TaskArtifactUpdateEvent(artifact=Artifact(parts=[data(1)]), append=True)
    for _ in range(MAX_PARTS):
        whole.add(StreamResponse(artifact_update=update))
    with pytest.raises(TerminalError) as caught:
        whole.add(StreamResponse(artifact_update=update))
    assert caught.value.reason == "TooLarge"


def test_gathering_takes_a_long_text_word_by_word() -> None:
    whole = Gathering()
    update = TaskArtifactUpdateEvent(artifact=Artifact(parts=[Part(text="word ")]), append=True)
    for _ in range(MAX_PARTS * 2):
        whole.add(StreamResponse(artifact_update=update))
    assert [part.text for part in whole.answer().parts] == ["word " * (MAX_PARTS * 2)]
