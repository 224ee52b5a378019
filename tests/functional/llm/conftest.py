"""Stand-ins for providers, and LiteLLM that may ask them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from fairlead.egress import EgressTransport, Policy
from fairlead.llm.providers import Providers
from fairlead.testing.standins import StandIn, running_standin


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "functional/llm" in str(item.path):
            for ignored in (
                "ignore::DeprecationWarning",  # LiteLLM's own
                "ignore::pydantic.warnings.PydanticDeprecationWarning",
                "ignore:Pydantic serializer warnings:UserWarning",
            ):
                item.add_marker(pytest.mark.filterwarnings(ignored))


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with running_standin() as running:
        yield running


@pytest.fixture
def standin(server: StandIn) -> StandIn:
    server.forget()
    return server


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    made = Providers(EgressTransport(Policy(loopback=True)), idle_seconds=0.3)
    yield made
    await made.aclose()
