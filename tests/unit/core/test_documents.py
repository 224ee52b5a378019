import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.documents import MAX_BYTES, load_documents
from fairlead.core.mistakes import to_path, to_text

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{before}'] * 10)}]\n" for before, this in zip("abcdefgh", "bcdefghi", strict=True)
)


def only(text: str) -> Any:
    loaded = load_documents(text)
    assert loaded.problems == ()
    (document,) = loaded.documents
    return document.value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("plain", "plain"),
        ("'on'", "on"),
        ("on", True),
        ("No", False),
        ("y", True),
        ("~", None),
        ("12", 12),
        ("-0", 0),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0xb0", 176),
        ("010", 8),
        ("0o17", 15),
        ("08", 8.0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        ("12345678901234567890", 12345678901234567890.0),
        ("9" * 5000, "9" * 5000),
        ("2026-01-02", "2026-01-02"),
        ("1:30", "1:30"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_load_documents_reads_plain_words_as_kubectl_does(word: str, value: object) -> None:
    assert only(f"a: {word}") == {"a": value}


def test_load_documents_keeps_what_was_written() -> None:
    (document,) = load_documents("a:\n  - on\n  - x").documents
    assert document.written(("a", 0)) == "on"
    assert document.written(("a", 1)) == ""


def test_load_documents_knows_the_place_of_keys_and_values() -> None:
    (document,) = load_documents("a: 1\nb:\n  - c: 2\n    deep: {x: y}\n").documents
    assert (document.place(("b", 0, "c")).line, document.place(("b", 0, "c")).column) == (3, 8)
    assert (document.place(("b", 0, "c"), key=True).line, document.place(("b", 0, "c"), key=True).column) == (3, 5)
    assert document.place(("b", 0, "missing")).line == 3


def test_load_documents_reads_many_and_leaves_empty_ones_out() -> None:
    assert [d.value for d in load_documents("---\na: 1\n---\n---\n# only words\n---\nb: 2\n").documents] == [
        {"a": 1},
        {"b": 2},
    ]


def test_load_documents_follows_anchors_and_merges() -> None:
    text = "base: &base {a: 1, b: 2}\nmore:\n  <<: *base\n  b: 3\nlist: [*base]\n"
    assert only(text) == {"base": {"a": 1, "b": 2}, "more": {"a": 1, "b": 3}, "list": [{"a": 1, "b": 2}]}


@pytest.mark.parametrize(
    ("text", "message", "fix", "line"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", "is there twice (before in line 1)", "remove one", 3, id="duplicate-key"),
        pytest.param("a:\n\tb: 1\n", "a tab cannot indent YAML", "use spaces", 2, id="tab"),
        pytest.param("a: [1, 2\nb: 3\n", "not YAML", "quotes", 2, id="open-bracket"),
        pytest.param("a: *b\n", "refers to nothing", "anchor", 1, id="unknown-alias"),
        pytest.param(BOMB, "values with its aliases", "fewer aliases", None, id="alias-bomb"),
        pytest.param("a: &a [*a]\n", "refers to nothing", "anchor", 1, id="alias-of-itself"),
        pytest.param("[" * 100_000, "nested more than 64 deep", "flatter", 1, id="deep"),
        pytest.param("a: !!python/object/apply:os.system [ls]\n", "the tag", "remove it", 1, id="python-tag"),
        pytest.param("a: !!binary eA==\n", "the tag", "remove it", 1, id="binary-tag"),
        pytest.param("a: .nan\n", "JSON does not have", "quotes", 1, id="not-a-number"),
        pytest.param("on: 1\n", "the key on is no text", 'quotes: "on"', 1, id="boolean-key"),
        pytest.param("? [a]\n: 1\n", "a key must be a text", "quotes", 1, id="list-as-key"),
        pytest.param("a: x\n<<: 3\n", "<< merges mappings", "mapping", 2, id="merge-of-a-number"),
        pytest.param(f"a: {'x' * MAX_BYTES}\n", "at most 256 can be applied", "ConfigMap", 1, id="too-large"),
        pytest.param("a: {b: (?i)c}\n", "kubectl cannot read", 'quotes: "(?i)c"', 1, id="question-mark-in-braces"),
        pytest.param("a: \x07\n", "not YAML", "", None, id="control-character"),
    ],
)
def test_load_documents_refuses(text: str, message: str, fix: str, line: int | None) -> None:
    (problem,) = load_documents(text, "bad.yaml").problems
    assert message in problem.message
    assert fix in problem.fix
    assert problem.file == "bad.yaml"
    assert line is None or problem.line == line


def test_load_documents_gives_what_came_before_the_mistake() -> None:
    loaded = load_documents("a: 1\n---\nb: [\n")
    assert [document.value for document in loaded.documents] == [{"a": 1}]
    assert len(loaded.problems) == 1


TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8)
"""What JSON writes as one escape: libyaml does not read pairs of them."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_load_documents_reads_every_json(value: object) -> None:
    """JSON is YAML; what JSON escapes is what YAML reads."""
    loaded = load_documents(json.dumps({"value": value}))
    assert loaded.problems == ()
    found = loaded.documents[0].value["value"]
    assert found == value or (isinstance(value, float) and math.isclose(found, value))


@given(st.text())
def test_load_documents_never_raises(text: str) -> None:
    loaded = load_documents(text)
    assert len(loaded.problems) <= 1


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1), JSON, min_size=1))
def test_load_documents_agrees_with_a_dump(value: dict[str, Any]) -> None:
    text = yaml.safe_dump(value, allow_unicode=False)
    loaded = load_documents(text)
    if not loaded.problems:
        assert loaded.documents[0].value.keys() == value.keys()


def test_path_survives_being_written() -> None:
    path = ("spec", "nodes", 2, "llm", "example.com/x", "prompt")
    assert to_text(path) == "spec.nodes[2].llm[example.com/x].prompt"
    assert to_path(to_text(path)) == path
