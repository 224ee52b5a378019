"""Our strict YAML reads every word as kubectl's library does."""

import json
import subprocess

import pytest

from fairlead.core.documents import load_documents

WORDS = [
    *("on", "No", "y", "n", "Y", "N", "yes", "OFF", "true", "TRUE", "tRUE", "~", "null", "Null", "NULL", "nULL"),
    *("0", "-0", "00", "12", "+1", "1_000", "_1", "1__0", "010", "-010", "08", "0o17", "0o8", "0x1f", "-0x1f", "0xb0"),
    *("0x", "0b11", "0b12", "1.5", ".5", "-.5", "+.5", "5.", "1e3", "1E5", "1.5e+3", "1e-2", "1e", ".e1", "1_0.5"),
    *("1e999", "12345678901234567890", "9" * 30, "9223372036854775807", "9223372036854775808", "."),
    *("2026-01-02", "2001-12-14t21:59:43.10-05:00", "1:30", "-1:30", "1.2.3", "=", "<", "1 000"),
]


@pytest.mark.kubectl
def test_load_documents_reads_words_as_kubectl_does() -> None:
    head = "apiVersion: fairlead.dev/v1alpha1\nkind: Workflow\nmetadata: {name: x}\nspec:\n"
    text = head + "".join(f"  k{index}: {word}\n" for index, word in enumerate(WORDS))
    command = ["kubectl", "annotate", "--local", "--filename", "-", "--output", "json", "a=b"]
    answer = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    theirs = json.loads(answer)["spec"]
    loaded = load_documents(text)
    assert loaded.problems == ()
    ours = loaded.documents[0].value["spec"]
    read = {word: (json_like(theirs[f"k{index}"]), json_like(ours[f"k{index}"])) for index, word in enumerate(WORDS)}
    assert {word: pair for word, pair in read.items() if pair[0] != pair[1]} == {}


def json_like(value: object) -> object:
    """JSON has one kind of number, and true is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)
