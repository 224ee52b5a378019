"""What goes into a sandbox and what comes out of it, as bytes: pure. What comes out is read as an enemy's letter."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

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
from fairlead.sandbox.runner import environment
from fairlead.sandbox.seccomp import MACHINES, build_filter

READY: Final = b"ready\n"
"""What a runner says when it waits for its job."""
MAX_HEADER: Final = 20
RUNNER_BYTES: Final = 16 << 20
"""Memory of the runner itself, which is not the program's."""
_MAX_INPUTS: Final = 1 << 20
_MAX_DEPTH: Final = 64
_MAX_NAME: Final = 512
_MAX_DROPPED: Final = 32
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")


@dataclass(frozen=True, slots=True)
class Inside:
    """How things are inside a sandbox of a back end, for its runner."""

    own_user: bool = False
    """Whether no other process on the machine has its user, so that processes can be counted by user."""
    address_space: int = 0
    """Bytes that one process may map; 0: the back end limits memory in a better way."""
    proxy: str = ""
    """The socket of the way out; empty: there is none."""
    certificates: str = ""
    """The file of certificate authorities."""


def check_job(job: Job) -> None:
    """Refuse what cannot be run.

    Raises:
        JobRefused: it is too large, or a name in it leads elsewhere.
    """
    if len(_json(job.source)) > MAX_SOURCE_BYTES:
        raise JobRefused(f"the source is larger than {MAX_SOURCE_BYTES >> 10} KiB")
    if len(job.files) > MAX_FILES or sum(map(len, job.files.values())) > MAX_FILE_BYTES:
        raise JobRefused(f"at most {MAX_FILES} files of together {MAX_FILE_BYTES >> 20} MiB can be put into a sandbox")
    for name in job.files:
        if not is_inside(name):
            raise JobRefused(f"the file name {name!r} does not lead into the working directory")
    for host in job.network:
        if not _HOST.fullmatch(host):
            raise JobRefused(f"network: {host!r} is no host name; write it exactly, in lower case, without a port")
    if len(_json(job.inputs)) > _MAX_INPUTS:
        raise JobRefused(f"the inputs are larger than {_MAX_INPUTS >> 20} MiB")
    if job.language == "shell":
        _check_variables(job.inputs)


def is_inside(name: str) -> bool:
    """Whether a relative path leads to a file below where it begins, whatever there is."""
    parts = name.split("/")
    return len(name) <= _MAX_NAME and name.isprintable() and not {"", ".", ".."} & set(parts)


def _check_variables(inputs: Mapping[str, Any]) -> None:
    taken = environment({})
    for name, value in inputs.items():
        if not _VARIABLE.fullmatch(name) or name in taken:
            raise JobRefused(f"the input {name!r} cannot be a variable of a shell: give it another name")
        if isinstance(value, str) and "\0" in value:
            raise JobRefused(f"the input {name!r} holds a zero byte, which no variable of a shell can")


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:  # text that is no Unicode, too
        raise JobRefused(f"this is no JSON: {error}") from error


def to_frame(job: Job, inside: Inside) -> bytes:
    """Return what the runner reads."""
    limits = job.limits
    body = orjson.dumps(
        {
            "language": job.language,
            "source": job.source,
            "inputs": dict(job.inputs),
            "files": {name: base64.b64encode(content).decode() for name, content in job.files.items()},
            "limits": {
                "wall": limits.wall_seconds,
                "cpu": limits.cpu_seconds,
                "memory": limits.memory_bytes,
                "addressSpace": inside.address_space,
                "disk": limits.disk_bytes,
                "processes": limits.processes,
                "output": limits.output_bytes,
                "ownUser": inside.own_user,
            },
            "seccomp": {machine: base64.b64encode(build_filter(machine)).decode() for machine in MACHINES},
            "proxy": inside.proxy,
            "certificates": inside.certificates,
        }
    )
    return b"%d\n%b" % (len(body), body)


def max_result(limits: Limits) -> int:
    """Return how many bytes a result can have: outputs and files in base 64, `output` as JSON in JSON."""
    return 3 * limits.output_bytes + (8 << 20)


def parse_size(header: bytes, limits: Limits) -> int:
    """Return how many bytes the result has that *header* announces.

    Raises:
        ValueError: it is no number, or too large a one.
    """
    if not header.endswith(b"\n") or not header[:-1].isdigit() or len(header) > MAX_HEADER:
        raise ValueError("it does not begin with its size")
    size = int(header)
    if size > max_result(limits):
        raise ValueError(f"it is larger than {max_result(limits)} bytes")
    return size


def no_result(why: object) -> Result:
    """Return what is said of an answer that cannot be read; only a program that meddles with its runner has one."""
    return Result(ended=Ended.KILLED, message=f"what came out of the sandbox is no result: {why}")


def parse_result(body: bytes, limits: Limits) -> Result:
    """Return the result in what the runner wrote.

    Raises:
        SandboxBroken: the runner says that it could not begin.
    """
    try:
        found = orjson.loads(body)
        if not isinstance(found, dict):
            return no_result("it is no object")
        if "broken" in found:
            raise SandboxBroken(f"the sandbox could not begin: {_text(found, 'broken')[:500]}")
        return _to_result(found, limits)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        return no_result(error)


def _to_result(found: dict[str, Any], limits: Limits) -> Result:
    ended = Ended(found["ended"])
    code = found["exitCode"] if ended is Ended.EXITED else None
    if code is not None and (type(code) is not int or not 0 <= code < 256):  # noqa: PLR2004 - what an exit code can be
        raise ValueError("its exit code is none")
    files, dropped = _files(found["files"])
    names = [str(name)[:_MAX_NAME] for name in found["dropped"][:_MAX_DROPPED]]
    return Result(
        ended=ended,
        exit_code=code,
        stdout=_bytes(found, "stdout")[: limits.output_bytes].decode("utf-8", "replace"),
        stderr=_bytes(found, "stderr")[: limits.output_bytes].decode("utf-8", "replace"),
        truncated=bool(found["truncated"]),
        output=_output(found.get("output") or "null"),
        files=files,
        dropped=(*names, *dropped),
        message=_text(found, "message")[:500] if "message" in found else "",
    )


def _output(text: str) -> Any:
    value = orjson.loads(text)
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for each in level for inner in _children(each)]
        if not level:
            return value
    raise ValueError(f"its output is nested more than {_MAX_DEPTH} levels deep")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _files(found: Any) -> tuple[dict[str, bytes], list[str]]:
    """Return the files that may be taken, and the names of the others."""
    if not isinstance(found, dict):
        raise TypeError("its files are no object")
    files: dict[str, bytes] = {}
    dropped: list[str] = []
    room = MAX_FILE_BYTES
    for name, text in list(found.items())[: 2 * MAX_FILES]:
        content = base64.b64decode(text, validate=True)
        if len(files) == MAX_FILES or len(content) > room or not is_inside(name):
            dropped.append(ascii(name)[1:-1][:_MAX_NAME])
            continue
        files[name] = content
        room -= len(content)
    return files, dropped[:_MAX_DROPPED]


def _bytes(found: Mapping[str, Any], name: str) -> bytes:
    return base64.b64decode(found[name], validate=True)


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found[name]
    if not isinstance(value, str):
        raise TypeError(f"its {name} is no text")
    return value
