"""A gateway without a sandbox runs no program, and everything else."""

from __future__ import annotations

import pytest

from fairlead.testing.world import World


@pytest.fixture
def own_gateway() -> dict[str, str]:
    return {"sandbox": "none"}


async def test_programs_are_refused_and_never_run_elsewhere(world: World) -> None:
    nodes = [
        {"name": "run", "code": {"language": "python", "source": "output = 1"}},
        {"name": "greet", "llm": {"prompt": "hello"}},
    ]
    await world.submit(nodes=nodes)
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    error = (await pod.call(task, "run", action="code", code={})).json()["error"]
    assert (error["reason"], error["retryable"]) == ("SandboxUnavailable", False)
    assert "FAIRLEAD_SANDBOX" in error["message"]
    llm = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    assert (await pod.call(task, "greet", llm=llm)).json()["result"] == "hi there"

    client, token = await world.client(), await world.person("reader", "get", "list")
    path = f"/v1/namespaces/{world.namespace}/sandbox"
    told = (await client.get(path, headers={"Authorization": f"Bearer {token}"})).raise_for_status().json()
    assert (told["name"], "FAIRLEAD_SANDBOX=none" in told["description"]) == ("none", True)
    assert (await client.get(path)).status_code == 401
