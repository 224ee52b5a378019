"""The log endpoint of pods, over the files that a pod runtime writes (CRI format).

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import ApiError, Json, bad_request
from fairlead.localcluster.apiserver.output import Response
from fairlead.localcluster.apiserver.requests import Call
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.times import parse_time
from fairlead.localcluster.apiserver.writing import existing

_POLL_SECONDS = 0.2
_FIELDS = 3
_NANO_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What to show of a log."""

    follow: bool
    timestamps: bool
    tail: int | None
    since: datetime | None
    limit: int | None


async def pod_log(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Answer with a container's log."""
    pod = existing(cluster, call, resource).obj
    container = _container(pod, call.arg("container"))
    directory = _directory(cluster, pod, container)
    path = _file(directory, previous=call.flag("previous"))
    options = _options(cluster, call)
    if path is None and call.flag("previous"):
        name = pod["metadata"]["name"]
        raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
    if path is None and not _started(pod, container):
        name = pod["metadata"]["name"]
        raise bad_request(f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating')
    target = path or directory / "0.log"
    stream = _limited(_read(cluster, target, options, pod=pod, container=container), options.limit)
    return Response(content_type="text/plain", stream=stream)


def _options(cluster: Cluster, call: Call) -> LogOptions:
    since = None
    if (seconds := call.number("sinceSeconds")) is not None:
        since = cluster.clock.now() - timedelta(seconds=seconds)
    elif call.arg("sinceTime"):
        since = parse_time(call.arg("sinceTime"))
    return LogOptions(
        follow=call.flag("follow"),
        timestamps=call.flag("timestamps"),
        tail=call.number("tailLines"),
        since=since,
        limit=call.number("limitBytes"),
    )


def _container(pod: Json, wanted: str) -> str:
    spec, name = pod["spec"], pod["metadata"]["name"]
    names = [each["name"] for each in (*(spec.get("initContainers") or ()), *spec["containers"])]
    if not wanted:
        if len(spec["containers"]) == 1:
            return str(spec["containers"][0]["name"])
        choose = " ".join(each["name"] for each in spec["containers"])
        raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{choose}]")
    if wanted not in names:
        raise bad_request(f"container {wanted} is not valid for pod {name}")
    return wanted


def _directory(cluster: Cluster, pod: Json, container: str) -> Path:
    if cluster.pod_log_dir is None:
        raise ApiError(501, "NotImplemented", "this server was started without a folder for pod logs")
    metadata = pod["metadata"]
    return cluster.pod_log_dir / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}" / container


def _file(directory: Path, *, previous: bool) -> Path | None:
    """Return the log of the newest start, or of the one before."""
    files = sorted((path for path in directory.glob("*.log") if path.stem.isdigit()), key=lambda path: int(path.stem))
    index = -2 if previous else -1
    return files[index] if len(files) >= -index else None


def _state(pod: Json, container: str) -> Json:
    status = pod.get("status") or {}
    known = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return next((each.get("state") or {} for each in known if each["name"] == container), {})


def _started(pod: Json, container: str) -> bool:
    state = _state(pod, container)
    return "running" in state or "terminated" in state


async def _read(
    cluster: Cluster, path: Path, options: LogOptions, *, pod: Json, container: str
) -> AsyncIterator[bytes]:
    position, rest = 0, b""
    data = _chunk(path, 0)
    position += len(data)
    lines, rest = _split(data)
    for line in _tail(_shown(lines, options), options.tail):
        yield line
    while options.follow and not cluster.closing.is_set():
        done = _finished(cluster, pod, container)
        data = _chunk(path, position)
        position += len(data)
        lines, rest = _split(rest + data)
        for line in _shown(lines, options):
            yield line
        if done and not data:
            return
        if not data:
            await asyncio.sleep(_POLL_SECONDS)


def _chunk(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read()
    except FileNotFoundError:
        return b""


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    *lines, rest = data.split(b"\n")
    return lines, rest


def _shown(lines: Iterable[bytes], options: LogOptions) -> Iterator[bytes]:
    """Yield the text of CRI lines; a partial one has no line end of its own."""
    for line in lines:
        parts = line.split(b" ", _FIELDS)
        if len(parts) <= _FIELDS:
            continue
        stamp, _, flag, text = parts
        if options.since is not None and _moment(stamp) < options.since:
            continue
        prefix = stamp + b" " if options.timestamps else b""
        yield prefix + text + (b"" if flag == b"P" else b"\n")


def _moment(stamp: bytes) -> datetime:
    """Parse RFC 3339 with nanoseconds."""
    head, dot, rest = stamp.decode().replace("Z", "+00:00").partition(".")
    if not dot:
        return datetime.fromisoformat(head)
    digits = "".join(each for each in rest.split("+")[0].split("-")[0] if each.isdigit())
    zone = rest[len(digits) :]
    return datetime.fromisoformat(f"{head}.{digits[:_NANO_DIGITS].ljust(_NANO_DIGITS, '0')}{zone}")


def _tail(lines: Iterator[bytes], count: int | None) -> Iterable[bytes]:
    if count is None:
        return lines
    kept = list(lines)
    return kept[len(kept) - min(count, len(kept)) :]


def _finished(cluster: Cluster, pod: Json, container: str) -> bool:
    """Tell whether nothing can be appended any more."""
    metadata = pod["metadata"]
    current = cluster.core("pods", metadata["namespace"], metadata["name"])
    if current is None or current["metadata"]["uid"] != metadata["uid"]:
        return True
    return "terminated" in _state(current, container)


async def _limited(stream: AsyncIterator[bytes], limit: int | None) -> AsyncIterator[bytes]:
    left = limit
    async for piece in stream:
        if left is None:
            yield piece
            continue
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return
