from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.v1alpha1.tool import HttpCall, ToolSpec
from fairlead.tools.base import ToolFailed
from fairlead.tools.placing import parameters_of, place


def call(url: str = "https://api.example/v1/{id}", **fields: Any) -> HttpCall:
    return HttpCall.model_validate({"url": url, **fields})


@pytest.mark.parametrize(
    ("fields", "arguments", "url", "body"),
    [
        pytest.param({}, {"id": "7", "q": "a b"}, "https://api.example/v1/7?q=a+b", None, id="get-puts-into-the-query"),
        pytest.param({"method": "POST"}, {"id": "7", "n": 1}, "https://api.example/v1/7", {"n": 1}, id="post-sends-it"),
        pytest.param(
            {"method": "POST", "query": ["dry"]},
            {"id": "7", "dry": True, "n": [1]},
            "https://api.example/v1/7?dry=true",
            {"n": [1]},
            id="named-for-the-query",
        ),
        pytest.param(
            {"method": "GET", "body": ["filter"]},
            {"id": "7", "filter": {}, "page": 2},
            "https://api.example/v1/7?page=2",
            {"filter": {}},
            id="named-for-the-body",
        ),
        pytest.param(
            {}, {"id": "7", "tag": ["a", "b"], "no": None}, "https://api.example/v1/7?tag=a&tag=b", None, id="lists"
        ),
        pytest.param({}, {"id": 7}, "https://api.example/v1/7", None, id="numbers"),
        pytest.param({}, {"id": "é/ü?x#y"}, "https://api.example/v1/%C3%A9%2F%C3%BC%3Fx%23y", None, id="escaped"),
        pytest.param(
            {"url": "https://api.example/s?key=1&q={q}"},
            {"q": "a&b=c"},
            "https://api.example/s?key=1&q=a%26b%3Dc",
            None,
            id="in-a-query-that-is-there",
        ),
    ],
)
def test_place_puts_arguments_where_they_belong(
    fields: dict[str, Any], arguments: dict[str, Any], url: str, body: Any
) -> None:
    placed = place(call(**fields), arguments)
    assert placed.url == url
    assert (None if placed.body is None else orjson.loads(placed.body)) == body


@pytest.mark.parametrize("value", ["", ".", "..", None])
def test_place_argument_that_leads_elsewhere_is_refused(value: Any) -> None:
    with pytest.raises(ToolFailed) as failed:
        place(call(), {"id": value})
    assert failed.value.reason == "InvalidArguments"


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        pytest.param({"url": "https://{host}.example/"}, {"host": "evil.org/"}, id="host"),
        pytest.param({"query": ["q"]}, {"id": "7", "extra": 1}, id="no-place"),
        pytest.param({"method": "PUT", "body": []}, {"id": "7", "extra": 1}, id="no-place-in-the-body"),
    ],
)
def test_place_argument_without_a_place_is_refused(fields: dict[str, Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolFailed) as failed:
        place(call(**fields), arguments)
    assert failed.value.reason == "InvalidArguments"


@given(st.text(min_size=1))
def test_place_argument_never_leaves_its_part_of_the_path(value: str) -> None:
    try:
        placed = place(call("https://api.example/v1/{id}/end"), {"id": value})
    except ToolFailed:
        return
    parts = urlsplit(placed.url)
    assert (parts.netloc, parts.query, parts.fragment) == ("api.example", "", "")
    assert parts.path.count("/") == 3
    assert unquote(parts.path.split("/")[2]) == value


def test_parameters_of_names_without_a_schema_are_texts() -> None:
    spec = ToolSpec(http=call(query=("page",), body=("note",)))
    assert parameters_of(spec) == {
        "type": "object",
        "properties": {"id": {"type": "string"}, "page": {"type": "string"}, "note": {"type": "string"}},
        "required": ["id", "page", "note"],
        "additionalProperties": False,
    }
