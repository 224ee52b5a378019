"""Says that the pod lives: a thread of its own, so that a busy event loop does not cost the lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import httpx

from fairlead_agent.client import Door, SessionOver, checked
from fairlead_agent.protocol import Heartbeat, HeartbeatReply, Session


class Heart:
    """Beats for one session until it is stopped or the session is over.

    Args:
        tasks: returns the ids of the tasks that the pod has; called in the thread.
        on_reply: called in the thread with each answer.
        on_over: called in the thread, once, when the gateway does not know the session any more.
    """

    def __init__(
        self,
        door: Door,
        session: Session,
        *,
        tasks: Callable[[], Iterable[str]],
        on_reply: Callable[[HeartbeatReply], None],
        on_over: Callable[[], None],
    ) -> None:
        self._client = httpx.Client(
            base_url=f"{door.url}/v1",
            transport=httpx.HTTPTransport(verify=door.tls, trust_env=False, uds=door.socket or None),
            trust_env=False,
            headers={"authorization": f"Bearer {session.session}", "content-type": "application/json"},
            timeout=max(1.0, session.lease_duration_seconds / 2),
        )
        self._interval = session.heartbeat_seconds
        self._tasks = tasks
        self._on_reply = on_reply
        self._on_over = on_over
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more. A beat that is under way is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        with self._client:
            due = time.monotonic()
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                due = time.monotonic() + self._interval
                try:
                    self._on_reply(self._beat())
                except SessionOver:
                    self._on_over()
                    return
                except Exception:  # noqa: BLE001, S112 - whatever it was, the next beat may arrive
                    continue

    def _beat(self) -> HeartbeatReply:
        message = Heartbeat(tasks=tuple(self._tasks()))
        response = self._client.post("/heartbeat", content=message.model_dump_json(by_alias=True))
        return HeartbeatReply.model_validate_json(checked(response).content)
