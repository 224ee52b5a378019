from __future__ import annotations

from typing import Any

import pytest

from fairlead.localcluster.printing.jsonpath import JSONPathError, find, parse

OBJ: dict[str, Any] = {
    "metadata": {"annotations": {"a.b/c": "v"}},
    "items": [{"type": "A", "n": 1}, {"type": "B", "n": 2, "x": {"type": "deep"}}, {"type": "C", "n": 3}],
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".items[0].type", ["A"]),
        (".items[-1].type", ["C"]),
        (".items[9].type", []),
        (".items[*].n", [1, 2, 3]),
        (".items[0:2].n", [1, 2]),
        ('.items[?(@.type=="B")].n', [2]),
        (".items[?(@.type=='B')].n", [2]),
        (".items[?(@.n>1)].type", ["B", "C"]),
        (".items[?(@.n!=1)].n", [2, 3]),
        (".items[?(@.x)].n", [2]),
        (".items[?(@.x.type=='deep')].n", [2]),
        (".items[?(@.type>1)].n", []),
        (r".metadata.annotations.a\.b/c", None),
        (r".metadata.annotations['a.b/c']", ["v"]),
        ('["metadata"].annotations', [{"a.b/c": "v"}]),
        ("..type", ["A", "B", "deep", "C"]),
        (".nope.more", []),
    ],
)
def test_find(path: str, expected: list[Any] | None) -> None:
    if expected is None:
        with pytest.raises(JSONPathError):
            find(path, OBJ)
    else:
        assert find(path, OBJ) == expected


@pytest.mark.parametrize("path", ["status", ".a[", ".a[?(@.b==c)]", ".a.length()", "{.a}", ".a..", ""])
def test_parse_refuses_what_is_no_path(path: str) -> None:
    with pytest.raises(JSONPathError):
        parse(path)
