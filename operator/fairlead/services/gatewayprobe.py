"""Asks whether the gateway answers: only then does the silence of an agent say something about the agent."""

from __future__ import annotations

import ssl
from typing import Final

import aiohttp

from fairlead.errors import RetryableError
from fairlead.services.podsettings import PodSettingsSource

_SECONDS: Final = 3.0
_OK: Final = 200


class GatewayProbe:
    """Calls ``/readyz`` of the gateway, as the agents reach it: same address, same certificate."""

    def __init__(self, pods: PodSettingsSource) -> None:
        self._pods = pods

    async def __call__(self) -> bool:
        """Return whether it is there and ready."""
        try:
            settings = await self._pods.get()
        except RetryableError:
            return False
        if settings is None:
            return False
        trust = ssl.create_default_context(cadata=settings.gateway_ca)
        limits = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(ssl=trust)) as session,
                session.get(f"{settings.gateway_url.rstrip('/')}/readyz") as answer,
            ):
                return answer.status == _OK
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
