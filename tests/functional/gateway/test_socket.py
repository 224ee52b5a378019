"""The gateway on a Unix socket: for agents that have no network at all."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import httpx
import pytest

from fairlead.testing.gateway import gateway_authority
from fairlead.testing.world import World


@pytest.fixture
def own_gateway(tmp_path: Path) -> dict[str, str]:
    return {"socket": str(tmp_path / "gateway.sock")}


async def test_socket_leads_to_the_same_gateway_with_the_same_certificate(world: World, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    tls = ssl.create_default_context(cadata=await gateway_authority(world.kube, world.system_namespace))
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=tls, uds=str(path))) as through:
        assert (await through.get(f"{world.gateway.url}/healthz")).text == "ok"
        assert (await through.post(f"{world.gateway.url}/v1/claim", json={})).status_code == 401
    async with httpx.AsyncClient(verify=tls, trust_env=False) as beside:
        assert (await beside.get(f"{world.gateway.url}/healthz")).is_success
