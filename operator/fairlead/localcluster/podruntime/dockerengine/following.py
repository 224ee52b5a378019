"""Follows one container in a thread: what it says goes into its log, and its end is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import requests
import urllib3
from docker import DockerClient
from docker.errors import DockerException, NotFound

from fairlead.localcluster.podruntime.engine import Ended
from fairlead.localcluster.podruntime.logs import LogFile
from fairlead.localcluster.podruntime.state import parse_time
from fairlead.logs import get_logger

_log = get_logger(__name__)
_PAUSE_SECONDS: Final = 0.5
_SIGNALS: Final = 128
TROUBLE: Final = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What the engine's client raises when the engine is away, or comes back."""


class Follower(threading.Thread):
    """Follows a container from where its log ends, through restarts of the engine, until the container has ended.

    Args:
        client: one without a time limit for answers.
        ident: the container.
        log: closed when the container has ended.
        tell: called in this thread, once.
    """

    def __init__(self, client: DockerClient, ident: str, log: LogFile, *, tell: Callable[[Ended], None]) -> None:
        super().__init__(name=f"follow {ident[:12]}", daemon=True)
        self._api, self._container, self._container_log, self._tell = client.api, ident, log, tell
        self._last = log.last_stamp

    def run(self) -> None:
        """Follow it."""
        ended = None
        while ended is None:
            try:
                self._copy(follow=True)
                ended = self._look()
            except NotFound:
                ended = Ended(0, lost="its container was removed by somebody else")
            except TROUBLE as error:
                _log.info("engine_silent", container=self._container, error=str(error))
                time.sleep(_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - a thread that dies would leave its container without an end
                _log.exception("follow_failed", container=self._container, error=str(error))
                time.sleep(_PAUSE_SECONDS)
        self._container_log.close()
        self._tell(ended)

    def _look(self) -> Ended | None:
        """Return how it ended; None if it has not."""
        state = self._api.inspect_container(self._container)["State"]
        if state["Running"] or state["Status"] == "created":
            time.sleep(_PAUSE_SECONDS)
            return None
        self._copy(follow=False)
        return ended_of(state)

    def _copy(self, *, follow: bool) -> None:
        """Write what is new into the log; the engine's client tells lines of both streams as they came."""
        since, known = _seconds(self._last), self._last
        for frame in self._api.logs(self._container, stream=True, follow=follow, timestamps=True, since=since):
            stamp, _, text = frame.partition(b" ")
            moment = stamp.decode("ascii", "replace")
            if known and moment <= known:
                continue
            self._last, known = moment, ""  # the parts of a long line have one time
            self._container_log.write("stdout", text.removesuffix(b"\n"), whole=text.endswith(b"\n"), stamp=moment)


def ended_of(state: dict[str, Any]) -> Ended:
    """Return how a container ended, from its state."""
    code = int(state["ExitCode"])
    moment = moment_of(state["FinishedAt"])
    return Ended(code, bool(state["OOMKilled"]), at=moment)


def moment_of(text: str) -> datetime | None:
    """Parse a time of the engine, which has nanoseconds; None for the one that means never."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    return None if head.startswith("0001") else parse_time(f"{head}.{fraction[:6]:0<6}+00:00")


def _seconds(stamp: str) -> int | None:
    moment = moment_of(stamp) if stamp else None
    return None if moment is None else int(moment.timestamp())
