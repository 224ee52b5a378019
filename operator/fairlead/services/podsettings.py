"""What all agent pods have in common: from the operator's settings and the gateway's published certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.manifests import PodSettings
from fairlead.kube import KubeClient, Ref

_KEEP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class PodDefaults:
    """The part that the operator's settings say."""

    namespace: str
    """Where the gateway publishes its certificate."""
    image: str
    pull_policy: str
    gateway_url: str
    fixed_user: bool = True


class PodSettingsSource:
    """Reads the gateway's certificate, at most twice a minute once it is there."""

    def __init__(self, kube: KubeClient, clock: Clock, defaults: PodDefaults) -> None:
        self._kube = kube
        self._clock = clock
        self._defaults = defaults
        self._found: PodSettings | None = None
        self._until = float("-inf")

    @property
    def gateway_url(self) -> str:
        """Where the gateway is."""
        return self._defaults.gateway_url

    async def get(self) -> PodSettings | None:
        """Return the settings; None: the gateway has not published its certificate yet."""
        if self._found is None or self._clock.monotonic() > self._until:
            self._found = await self._read()
            self._until = self._clock.monotonic() + _KEEP_SECONDS
        return self._found

    async def _read(self) -> PodSettings | None:
        ref = Ref("v1", "ConfigMap", names.GATEWAY_CA_CONFIGMAP, self._defaults.namespace)
        found = await self._kube.get(ref)
        authority = ((found or {}).get("data") or {}).get(names.CA_KEY) or ""
        if not authority:
            return None
        of = self._defaults
        return PodSettings(
            image=of.image,
            pull_policy=of.pull_policy,
            gateway_url=of.gateway_url,
            gateway_ca=authority,
            fixed_user=of.fixed_user,
        )
