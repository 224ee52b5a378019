from __future__ import annotations

import httpx

from fairlead.a2a.remote import Address, Remotes, _Shared
from fairlead.clock import SystemClock
from fairlead.egress import Policy


async def test_clients_in_use_are_not_closed() -> None:
    remotes, address = Remotes(Policy(), SystemClock()), Address("https://a.example")
    others = [httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))) for _ in range(80)]
    async with remotes._client(address, "call") as used:
        for number, other in enumerate(others):
            remotes._clients[str(number), "call"] = _Shared(other)
        async with remotes._client(address, "card") as card:
            assert (used.is_closed, card.is_closed, card is used) == (False, False, False)
        assert [other.is_closed for other in others].index(False) == 18, "64 are left, these two among them"
        assert used.timeout.pool is not None
    await remotes.aclose()
    assert (used.is_closed, all(other.is_closed for other in others)) == (True, True)
