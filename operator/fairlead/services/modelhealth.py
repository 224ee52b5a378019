"""Whether Models answer: the gateway, which asks them, tells the operator, which says so on their objects."""

from __future__ import annotations

from typing import Final

from fairlead.api.conditions import Reason
from fairlead.clock import Clock
from fairlead.core.model import TROUBLES
from fairlead.errors import RetryableError
from fairlead.logs import get_logger
from fairlead.storage.base import Event, Storage

_log = get_logger(__name__)
TOPIC: Final = "model"
_AGAIN_SECONDS: Final = 60.0
_BELIEVED_SECONDS: Final = 600.0
"""After which what nobody has confirmed is no news any more."""
Place = tuple[str, str]
"""Namespace and name of a Model."""


class ModelReports:
    """Tells what came of asking a Model: when that has changed, and once a minute while it fails."""

    def __init__(self, storage: Storage, clock: Clock, *, cluster: str) -> None:
        self._storage = storage
        self._clock = clock
        self._cluster = cluster
        self._told: dict[Place, tuple[str, float]] = {}

    async def report(self, namespace: str, name: str, reason: str) -> None:
        """Take in why a request failed, or the empty reason: it was answered. That it cannot be told stops nothing."""
        if reason == Reason.CIRCUIT_OPEN:
            return  # it is not asked because it did not answer, which was told
        if reason and reason not in TROUBLES:
            reason = ""  # it answered, and said no to this request
        place, now = (namespace, name), self._clock.monotonic()
        known, at = self._told.get(place, ("", float("-inf")))
        if reason == known and (not reason or now - at < _AGAIN_SECONDS):
            return
        self._told[place] = reason, now
        try:
            await self._storage.publish(Event(TOPIC, f"{self._cluster}/{namespace}/{name}/{reason}"))
        except RetryableError as error:
            _log.warning("model_not_reported", namespace=namespace, name=name, error=str(error))


class ModelHealth:
    """Remembers what was told of Models."""

    def __init__(self, clock: Clock, *, cluster: str) -> None:
        self._clock = clock
        self._cluster = cluster
        self._troubles: dict[Place, tuple[str, float]] = {}

    def heard(self, key: str) -> Place | None:
        """Take in an event of `TOPIC`; return the Model if there is news of it."""
        cluster, namespace, name, reason = key.split("/", 3)
        if cluster != self._cluster:
            return None
        place = namespace, name
        before = self.trouble(namespace, name)
        if reason in TROUBLES:
            self._troubles[place] = reason, self._clock.monotonic()
        else:
            self._troubles.pop(place, None)
        return place if before != self.trouble(namespace, name) else None

    def trouble(self, namespace: str, name: str) -> str:
        """Return why a Model does not answer, or nothing."""
        reason, at = self._troubles.get((namespace, name), ("", 0.0))
        return reason if self._clock.monotonic() - at < _BELIEVED_SECONDS else ""
