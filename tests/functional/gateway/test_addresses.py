"""The gateway as a pod runs it: a cluster may have addresses of either family, or of both."""

from __future__ import annotations

import ssl

import httpx
import pytest

from fairlead.settings import GatewaySettings
from fairlead.testing.gateway import gateway_authority
from fairlead.testing.kubectl import free_port
from fairlead.testing.world import World


@pytest.fixture
def own_gateway() -> dict[str, str]:
    bind = GatewaySettings.model_fields["bind"].default
    return {"bind": bind, "port": str(free_port()), "hosts": '["127.0.0.1", "::1"]'}


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_gateway_serves_both_families_unless_told_otherwise(world: World, host: str) -> None:
    tls = ssl.create_default_context(cadata=await gateway_authority(world.kube, world.system_namespace))
    async with httpx.AsyncClient(verify=tls, trust_env=False) as client:
        answer = await client.get(f"https://{host}:{world.settings['port']}/readyz")
    assert answer.text == "ok"
    assert world.gateway.log.read_text().count('"gateway_serves"') == 1
