"""What every message has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

PROTOCOL = 4
"""The version of this contract. A gateway speaks one version and says so in a 426."""
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
"""What databases keep as an integer."""
NodePath = Annotated[str, Field(max_length=16_384)]
Key = Annotated[str, Field(max_length=32_768)]
ItemName = Annotated[str, Field(max_length=4096)]
MAX_ENTRIES = 10_000
"""Of one append; a larger batch would hold everybody else up."""
MAX_LINES = 2_000
MAX_MESSAGES = 1_000
MAX_TASKS = 1_000


class Wire(BaseModel):
    """A message: camelCase on the wire, unknown fields ignored, so that either side may be the newer one."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Problem(Wire):
    """Why a request was refused."""

    reason: str
    """A PascalCase word: ``Fenced``, ``SessionExpired``, ``UnknownProtocol``, ``NonDeterministic``, ``TooLarge`` …"""
    message: str
