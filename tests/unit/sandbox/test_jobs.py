from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.sandbox.base import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_SOURCE_BYTES,
    Ended,
    Job,
    JobRefused,
    Limits,
    Result,
    SandboxBroken,
)
from fairlead.sandbox.jobs import Inside, check_job, is_inside, max_result, parse_result, parse_size, to_frame

LIMITS = Limits(output_bytes=10)


def said(**changes: Any) -> bytes:
    fine = {
        "ended": "Exited",
        "exitCode": 0,
        "stdout": "",
        "stderr": "",
        "truncated": False,
        "files": {},
        "dropped": [],
    }
    return orjson.dumps({key: value for key, value in (fine | changes).items() if value is not ...})


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("job", "why"),
    [
        pytest.param(Job("python", "x" * MAX_SOURCE_BYTES), "source is larger", id="long-source"),
        pytest.param(Job("python", "\ud800"), "no JSON", id="half-a-character"),
        pytest.param(Job("python", "", files={"../x": b""}), "does not lead into", id="file-above"),
        pytest.param(Job("python", "", files={"/x": b""}), "does not lead into", id="file-at-the-root"),
        pytest.param(Job("python", "", files={"a/../../x": b""}), "does not lead into", id="file-around"),
        pytest.param(Job("python", "", files={"a\0": b""}), "does not lead into", id="file-with-zero"),
        pytest.param(Job("python", "", files={str(n): b"" for n in range(MAX_FILES + 1)}), "at most 64", id="many"),
        pytest.param(Job("python", "", files={"x": bytes(MAX_FILE_BYTES + 1)}), "at most 64 files", id="large-file"),
        pytest.param(Job("python", "", inputs={"x": "y" * 2**21}), "inputs are larger", id="large-inputs"),
        pytest.param(Job("python", "", inputs={"x": object()}), "no JSON", id="inputs-no-json"),
        pytest.param(Job("shell", "", inputs={"PATH": "x"}), "cannot be a variable", id="a-variable-that-is-taken"),
        pytest.param(Job("shell", "", inputs={"a-b": "x"}), "cannot be a variable", id="no-variable"),
        pytest.param(Job("shell", "", inputs={"a": "x\0"}), "zero byte", id="a-zero"),
        pytest.param(Job("python", "", network=("*.example.com",)), "no host name", id="a-pattern"),
        pytest.param(Job("python", "", network=("example.com:22",)), "no host name", id="a-port"),
        pytest.param(Job("python", "", network=("Example.com",)), "lower case", id="upper-case"),
        pytest.param(Job("python", "", network=("[::1]",)), "no host name", id="an-address"),
    ],
)
def test_check_job_refuses(job: Job, why: str) -> None:
    with pytest.raises(JobRefused, match=why):
        check_job(job)


def test_check_job_takes_what_is_sound() -> None:
    check_job(Job("shell", "x", inputs={"a": [1]}, files={"a/b.txt": b"x"}, network=("api.example.com", "localhost")))


def test_to_frame_announces_its_size() -> None:
    head, _, body = to_frame(Job("python", "ü", files={"a": b"\xff"}), Inside(proxy="/p")).partition(b"\n")

    found = orjson.loads(body)
    assert int(head) == len(body)
    assert (found["source"], found["files"], found["proxy"]) == ("ü", {"a": "/w=="}, "/p")


@pytest.mark.parametrize(
    "header", [b"", b"1", b"x\n", b"-1\n", b"+1\n", b" 1\n", b"1_0\n", b"9" * 30 + b"\n", b"99999999\n"]
)
def test_parse_size_refuses(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"its size|larger than"):
        parse_size(header, LIMITS)


def test_parse_result_returns_what_the_runner_says() -> None:
    body = said(
        exitCode=3,
        stdout=b64(b"out\xff and much more"),
        stderr=b64(b"err"),
        truncated=True,
        output='{"a": [1, null]}',
        files={"a/b": b64(b"\0")},
        dropped=["link"],
    )

    assert parse_result(body, LIMITS) == Result(
        Ended.EXITED,
        3,
        "out\ufffd and m",
        "err",
        truncated=True,
        output={"a": [1, None]},
        files={"a/b": b"\0"},
        dropped=("link",),
    )


def test_parse_result_of_a_runner_that_could_not_begin_may_be_tried_again() -> None:
    with pytest.raises(SandboxBroken, match="no room"):
        parse_result(b'{"broken": "no room"}', LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no-object"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="deep"),
        pytest.param(said(ended="Fine"), id="unknown-end"),
        pytest.param(said(exitCode=...), id="no-exit-code"),
        pytest.param(said(exitCode=True), id="exit-code-no-number"),
        pytest.param(said(exitCode=256), id="exit-code-too-large"),
        pytest.param(said(stdout=1), id="stdout-no-text"),
        pytest.param(said(stdout="$"), id="stdout-no-base-64"),
        pytest.param(said(files=[]), id="files-no-object"),
        pytest.param(said(files={"a": 1}), id="file-no-text"),
        pytest.param(said(dropped=1), id="dropped-no-list"),
        pytest.param(said(output="["), id="output-no-json"),
        pytest.param(said(output="[" * 70 + "]" * 70), id="output-deep"),
        pytest.param(said(output='{"a":' * 70 + "1" + "}" * 70), id="output-deep-objects"),
        pytest.param(said(message=["x"]), id="message-no-text"),
    ],
)
def test_parse_result_of_an_enemy_is_a_clear_failure(body: bytes) -> None:
    result = parse_result(body, LIMITS)

    assert (result.ended, result.output, dict(result.files)) == (Ended.KILLED, None, {})
    assert result.message.startswith("what came out of the sandbox is no result: ")


def test_parse_result_takes_no_file_that_leads_outside() -> None:
    names = ["../a", "/a", "a/../../b", "a//b", "a/./b", "", ".", "..", "a\nb", "a\0", "x" * 600, "good"]

    result = parse_result(said(files=dict.fromkeys(names, b64(b"x"))), LIMITS)

    assert dict(result.files) == {"good": b"x"}
    assert len(result.dropped) == len(names) - 1


def test_parse_result_bounds_files_and_names() -> None:
    many = parse_result(said(files={f"f{n}": "" for n in range(10_000)}, dropped=["x"] * 10_000), LIMITS)
    large = parse_result(said(files={"a": b64(bytes(MAX_FILE_BYTES)), "b": b64(b"x")}), LIMITS)

    assert (len(many.files), len(many.dropped)) == (MAX_FILES, 64)
    assert (list(large.files), large.dropped) == (["a"], ("b",))


def test_max_result_has_room_for_all_that_is_allowed() -> None:
    limits = Limits()
    outputs = {"stdout": b64(bytes(limits.output_bytes)), "stderr": b64(bytes(limits.output_bytes))}
    text = orjson.dumps("\x01" * (1 << 17)).decode()

    body = said(**outputs, output=text, files={f"{n}" * 200: b64(bytes(MAX_FILE_BYTES // 64)) for n in range(64)})

    assert len(body) < max_result(limits)
    assert parse_result(body, limits).ended is Ended.EXITED


FIELDS = ["ended", "exitCode", "stdout", "stderr", "truncated", "files", "dropped", "output", "message"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_parse_result_of_anything_is_a_result(changes: dict[str, Any]) -> None:
    result = parse_result(said(**changes), LIMITS)

    assert all(is_inside(name) for name in result.files)
