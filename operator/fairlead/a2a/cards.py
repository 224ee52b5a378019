"""Reads the card of an agent that somebody else runs. Nothing in it is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson
from a2a.client.card_resolver import parse_agent_card
from a2a.types.a2a_pb2 import AgentCard, AgentInterface
from google.protobuf.json_format import ParseError

from fairlead.egress import check_url
from fairlead.errors import Refused, TerminalError

BINDINGS: Final = ("JSONRPC", "HTTP+JSON")
"""What is spoken here; gRPC is not."""
WELL_KNOWN: Final = "/.well-known/agent-card.json"
_MAX_SKILLS: Final = 64
_MAX_NAME: Final = 256


class InvalidCard(TerminalError):
    """A card that is of no use."""

    reason = "InvalidCard"


@dataclass(frozen=True, slots=True)
class Card:
    """What is kept of a card."""

    name: str
    version: str
    protocol: str
    """The version of A2A that is spoken with it."""
    skills: tuple[str, ...]
    url: str
    """Where its messages go."""
    streaming: bool
    raw: AgentCard
    """As the SDK needs it, with no interface but those that may be used."""


def read_card(body: bytes, *, asked: str, has_token: bool) -> Card:
    """Return the card in *body*, which the address *asked* gave.

    A card may send messages elsewhere, but a token goes to the origin that it was given for and nowhere else.

    Raises:
        InvalidCard: what is wrong with it.
    """
    raw = _parse(body)
    name = _line(raw.name)
    if not name:
        raise InvalidCard("it has no name")
    usable = _usable(raw, asked=asked, has_token=has_token)
    del raw.supported_interfaces[:]
    raw.supported_interfaces.extend(usable)
    return Card(
        name=name,
        version=_line(raw.version),
        protocol=_line(usable[0].protocol_version) or "0.3",
        skills=tuple(_line(skill.name or skill.id) for skill in raw.skills[:_MAX_SKILLS]),
        url=usable[0].url,
        streaming=raw.capabilities.streaming,
        raw=raw,
    )


def _parse(body: bytes) -> AgentCard:
    try:
        value: Any = orjson.loads(body)
    except ValueError:
        raise InvalidCard("it is no JSON: is this the address of an A2A agent?") from None
    try:
        return parse_agent_card(value)
    except (ParseError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise InvalidCard(f"it is not what A2A says: {_line(str(error))}") from None


def _usable(raw: AgentCard, *, asked: str, has_token: bool) -> list[AgentInterface]:
    """Return the interfaces that may be used, those of the first one's kind first."""
    spoken = [one for one in raw.supported_interfaces if one.protocol_binding in BINDINGS]
    if not spoken:
        there = ", ".join(sorted({_line(one.protocol_binding) for one in raw.supported_interfaces})) or "none"
        raise InvalidCard(f"it offers {there}, and this gateway speaks {' and '.join(BINDINGS)}")
    for one in spoken:
        try:
            check_url(one.url)
        except Refused as error:
            raise InvalidCard(f"it names an address that is none: {error}") from None
    if not has_token:
        return spoken
    own = [one for one in spoken if _origin(one.url) == _origin(asked)]
    if not own:
        raise InvalidCard(
            f"it sends messages to {_line(spoken[0].url)}, and a token goes to the origin of spec.external.url only: "
            "set url to where the agent takes messages, or remove token"
        )
    return own


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port or {"http": 80, "https": 443}.get(parsed.scheme)


def _line(text: str) -> str:
    """Return a text of strangers as one bounded, printable line."""
    plain = "".join(char if char.isprintable() else " " for char in text[: 4 * _MAX_NAME])
    return " ".join(plain.split())[:_MAX_NAME]
