"""Reads the cards of external agents now and then, and keeps a Lease for each that can be read.

The Lease is the only thing that is written: who holds it is alive, and its annotations say what the card says, or why
it could not be read. The operator judges it as any other and writes the Agent's status. With several gateways whoever
finds that nobody has touched a Lease since its own last look reads the card; so one of them does the work, and another
goes on when that one dies.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fairlead.api.conditions import Reason
from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.actions import Obj, meta, spec_of
from fairlead.errors import Conflict, FairleadError, RetryableError
from fairlead.kube import KubeClient
from fairlead.logs import get_logger
from fairlead.redaction import redact
from fairlead.services.external import ExternalAgents, parse_external
from fairlead.services.leases import lease_ref, renewal
from fairlead.storage.base import Event, Storage
from fairlead.tracing.attributes import bounded

if TYPE_CHECKING:
    from fairlead.a2a.cards import Card

_log = get_logger(__name__)
_LOOKS_PER_LEASE: Final = 3
_DEFAULT_LEASE_SECONDS: Final = 15
_SPREAD: Final = (0.9, 1.0)
_REFUSED_SECONDS: Final = 30.0
_MAX_MESSAGE: Final = 512
_MAX_SKILLS: Final = 1024
_SAYS_ITSELF: Final = frozenset({Reason.INVALID_CARD, Reason.SECRET_NOT_FOUND, Reason.INVALID_SECRET})
"""Reasons that are shown as they are; anything else means that the agent could not be reached."""
_IS_IT_THERE: Final = "Is spec.external.url right, and the agent running?"
_MAY_BE_OPENED: Final = (
    "Only public addresses are asked, unless the gateway has FAIRLEAD_ALLOW_PRIVATE_AGENTS=true or, for this machine, "
    "FAIRLEAD_ALLOW_LOOPBACK_AGENTS=true."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of reading a card."""

    card: Card | None = None
    reason: str = ""
    message: str = ""

    @property
    def notes(self) -> dict[str, str]:
        """The annotations of the Lease. What is known of a card stays when it cannot be read for a while."""
        wrong = {names.PROBE_REASON_ANNOTATION: self.reason, names.PROBE_MESSAGE_ANNOTATION: self.message}
        if self.card is None:
            return wrong
        skills = ",".join(skill.replace(",", " ") for skill in self.card.skills)
        return {
            **wrong,
            names.CARD_ANNOTATION: self.card.name,
            names.VERSION_ANNOTATION: self.card.version,
            names.CAPABILITIES_ANNOTATION: skills[:_MAX_SKILLS],
        }


class Probing:
    """Looks after external agents.

    Args:
        jitter: gives numbers between two, to spread what would be at once.
    """

    def __init__(
        self,
        kube: KubeClient,
        storage: Storage,
        clock: Clock,
        *,
        agents: ExternalAgents,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._kube = kube
        self._storage = storage
        self._clock = clock
        self._agents = agents
        self._jitter = jitter
        self._keeping: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """By the Agent's uid: the digest of what is kept, and who keeps it."""

    async def run(self) -> None:
        """Follow the Agents for ever."""
        try:
            while True:
                try:
                    await self._watch()
                except FairleadError as error:  # not allowed: the gateway serves all the rest
                    _log.warning("agents_not_watched", error=str(error))
                except Exception:  # noqa: BLE001 - a bug here must not end the gateway
                    _log.exception("watching_agents_failed")
                await self._clock.sleep(_REFUSED_SECONDS)
        finally:
            await self._end(*list(self._keeping))

    async def _watch(self) -> None:
        await self._end_gone()
        events: AsyncIterator[tuple[str, Obj]] = self._kube.watch(names.API_VERSION, "Agent")
        async for kind, agent in events:
            uid = meta(agent)["uid"]
            external = None if kind == "DELETED" else spec_of(agent).get("external")
            wanted = "" if not external else names.digest([external, _seconds(agent)])
            known, _ = self._keeping.get(uid, ("", None))
            if wanted == known:
                continue
            await self._end(uid)
            if wanted:
                keeping = asyncio.create_task(self._keep(agent), name=f"external agent {uid}")
                self._keeping[uid] = wanted, keeping
            elif kind != "DELETED":
                await self._let_go(agent)

    async def _end_gone(self) -> None:
        """Forget those that were deleted while nobody watched: a new watch does not know of them."""
        if self._keeping:
            there = {meta(agent)["uid"] for agent in await self._kube.list(names.API_VERSION, "Agent")}
            await self._end(*(self._keeping.keys() - there))

    async def _end(self, *uids: str) -> None:
        ended = [self._keeping.pop(uid)[1] for uid in uids if uid in self._keeping]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    async def _keep(self, agent: Obj) -> None:
        """Look after one agent until it changes."""
        last: str | None = None
        while True:
            try:
                last = await self.look(agent, last)
            except FairleadError as error:
                _log.warning("external_agent_not_probed", **_who(agent), error=str(error))
            except Exception:  # noqa: BLE001 - a bug with one agent must not end the gateway
                _log.exception("external_agent_failed", **_who(agent))
            await self._clock.sleep(_seconds(agent) / _LOOKS_PER_LEASE * self._jitter(*_SPREAD))

    async def look(self, agent: Obj, last: str | None) -> str:
        """Read the card unless another gateway has touched the Lease since *last*; return the Lease's version."""
        lease = await self._kube.get(_ref(agent))
        version = "" if lease is None else str(meta(lease)["resourceVersion"])
        if last is not None and version != last:
            return version
        finding = await self._read(agent)
        if lease is not None and not names.PART_OF_LABELS.items() <= (meta(lease).get("labels") or {}).items():
            _log.warning("lease_of_someone_else", **_who(agent), lease=meta(lease)["name"])
            return version
        written = await self._write(agent, lease, finding)
        return version if written is None else str(meta(written)["resourceVersion"])

    async def _read(self, agent: Obj) -> Finding:
        namespace, name = meta(agent)["namespace"], meta(agent)["name"]
        url = spec_of(agent)["external"].get("url", "")
        try:
            spec = parse_external(name, spec_of(agent)["external"])
            return Finding(card=await self._agents.read_card(namespace, name, spec))
        except FairleadError as error:
            reason = error.reason if error.reason in _SAYS_ITSELF else Reason.EXTERNAL_UNREACHABLE
            if reason == Reason.INVALID_CARD:
                text = f"The card of {url} is of no use: {error}."
            elif reason == Reason.EXTERNAL_UNREACHABLE:
                advice = _MAY_BE_OPENED if error.reason == Reason.ADDRESS_REFUSED else _IS_IT_THERE
                text = f"The card of {url} cannot be read: {error}. {advice}"
            else:
                text = f"{error}."
            return Finding(reason=reason, message=bounded(redact(text), _MAX_MESSAGE))

    async def _write(self, agent: Obj, lease: Obj | None, finding: Finding) -> Obj | None:
        """Renew the Lease, or say on it why it is not renewed."""
        wanted = build_external_lease(agent, finding, lease, now=self._clock.now())
        if lease is None:
            with suppress(Conflict):  # another gateway was first
                wanted["spec"] = {key: value for key, value in wanted["spec"].items() if value is not None}
                written: Obj | None = await self._kube.create(wanted)
                await self._tell(agent)
                return written
            return None
        if finding.card is None and not _differs(lease, wanted):
            return lease
        written = await self._kube.merge_patch(_ref(agent), wanted)
        if _differs(lease, wanted):
            await self._tell(agent)
        return written

    async def _tell(self, agent: Obj) -> None:
        """Have the operator look."""
        try:
            await self._storage.publish(Event("agent", f"{meta(agent)['namespace']}/{meta(agent)['name']}"))
        except RetryableError as error:
            _log.warning("not_announced", **_who(agent), error=str(error))

    async def _let_go(self, agent: Obj) -> None:
        """Nobody holds the Lease of an agent that is external no more."""
        with suppress(FairleadError):
            lease = await self._kube.get(_ref(agent))
            if lease is not None and names.EXTERNAL_LABEL in (meta(lease).get("labels") or {}):
                await self._kube.merge_patch(_ref(agent), {"spec": {"holderIdentity": None}})


def build_external_lease(agent: Obj, finding: Finding, lease: Obj | None, *, now: datetime) -> dict[str, Any]:
    """Return the Lease of an external agent as it should be: renewed only where the card was read.

    An agent that moved to another address is not alive because the former one was.
    """
    digest = names.digest(spec_of(agent)["external"])
    same = lease is not None and (meta(lease).get("annotations") or {}).get(names.SPEC_DIGEST_ANNOTATION) == digest
    own = lease is not None and spec_of(lease).get("holderIdentity") == meta(agent)["uid"]
    spec: dict[str, Any] = {"leaseDurationSeconds": _seconds(agent)}
    if finding.card is not None:
        spec |= renewal(meta(agent)["uid"], now)["spec"]
    elif not (same and own):
        spec["holderIdentity"] = None
    owner = {"apiVersion": names.API_VERSION, "kind": "Agent", "name": meta(agent)["name"], "uid": meta(agent)["uid"]}
    label = names.label_value(meta(agent)["name"])
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": names.external_lease(meta(agent)["name"]),
            "namespace": meta(agent)["namespace"],
            "labels": {**names.PART_OF_LABELS, names.AGENT_LABEL: label, names.EXTERNAL_LABEL: "true"},
            "annotations": {names.SPEC_DIGEST_ANNOTATION: digest, **finding.notes},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def _differs(lease: Obj, wanted: Mapping[str, Any]) -> bool:
    """Whether there is news besides that the Lease is renewed."""
    notes: Mapping[str, str] = meta(lease).get("annotations") or {}
    news = any(notes.get(key) != value for key, value in wanted["metadata"]["annotations"].items())
    holder = wanted["spec"].get("holderIdentity", spec_of(lease).get("holderIdentity"))
    return news or holder != spec_of(lease).get("holderIdentity")


def _seconds(agent: Obj) -> int:
    return int(spec_of(agent).get("leaseDurationSeconds") or _DEFAULT_LEASE_SECONDS)


def _ref(agent: Obj) -> Any:
    return lease_ref(meta(agent)["namespace"], names.external_lease(meta(agent)["name"]))


def _who(agent: Obj) -> dict[str, str]:
    return {"namespace": meta(agent)["namespace"], "name": meta(agent)["name"]}
