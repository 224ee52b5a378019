"""What the operator knows of external agents: what the gateway wrote on their Leases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.api.conditions import EventReason
from fairlead.core import names
from fairlead.core.actions import Obj, meta, spec_of
from fairlead.core.external import Health, read_health
from fairlead.services.applying import Applier
from fairlead.services.objects import Key, Objects


class Abroad:
    """Follows the Leases of external agents and tells who came and who went."""

    def __init__(self, objects: Objects, applier: Applier) -> None:
        self._objects = objects
        self._applier = applier
        self._health: Mapping[str, Health] | None = None

    def health(self, agent: Obj) -> Health:
        """Return what is known of an external agent."""
        return (self._health or {}).get(meta(agent)["uid"], Health())

    async def observe(self, leases: Iterable[Obj], alive: frozenset[str]) -> frozenset[str]:
        """Take in all Leases as they are now; return the uids of the Agents of which there is news."""
        before, self._health = (
            self._health,
            {
                owner["uid"]: read_health(lease, alive)
                for lease in leases
                if names.EXTERNAL_LABEL in (meta(lease).get("labels") or {})
                for owner in meta(lease).get("ownerReferences") or ()
            },
        )
        if before is None:  # what is true since before this process began is no news to people
            return frozenset(self._health)
        known, now = before, self._health
        news = frozenset(uid for uid in {*known, *now} if known.get(uid) != now.get(uid))
        for uid in sorted(news):
            await self._tell(uid, known.get(uid, Health()), now.get(uid, Health()))
        return news

    async def _tell(self, uid: str, before: Health, now: Health) -> None:
        agent = self._objects.get(Key("Agent", uid))
        if agent is None or before.alive == now.alive:
            return
        url = (spec_of(agent).get("external") or {}).get("url", "")
        if now.alive:
            await self._applier.tell(
                agent, EventReason.AGENT_REGISTERED, f'The card of {url} is "{now.card}".', warning=False
            )
        else:
            why = now.message or f"The card of {url} was not read for too long; is the gateway running?"
            await self._applier.tell(agent, EventReason.AGENT_LOST, why, warning=True)
