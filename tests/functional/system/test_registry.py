"""A pod that registers is seen at once, because the gateway announces it: nobody has to find it by looking."""

from __future__ import annotations

import dataclasses
import json
import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairlead.core import names
from fairlead.kube import KubeClient
from fairlead.testing.gateway import pod_token
from fairlead.testing.kubectl import Kubectl, condition, wait_for
from fairlead.testing.system import Service, System, make_namespace

MINUTE = 60.0


@pytest.fixture
def seldom(system: System, tmp_path: Path) -> Iterator[Kubectl]:
    """A namespace whose operator looks at Leases and objects once a minute; the gateway is that of all tests."""
    kubectl = make_namespace(system.cluster, tmp_path)
    published = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": names.GATEWAY_CA_CONFIGMAP}}
    kubectl("create", "-f", "-", stdin=json.dumps({**published, "data": {names.CA_KEY: system.gateway_ca.read_text()}}))
    settings = {
        **system.operator.environment,
        "FAIRLEAD_NAMESPACE": kubectl.namespace,
        "FAIRLEAD_WATCH_NAMESPACES": json.dumps([kubectl.namespace]),
        "FAIRLEAD_LEASE_POLL_SECONDS": str(MINUTE),
        "FAIRLEAD_RESYNC_SECONDS": str(MINUTE),
    }
    operator: Service = dataclasses.replace(
        system.operator, environment=settings, log=tmp_path / "operator.log", process=None
    )
    operator.start()
    try:
        yield kubectl
    finally:
        operator.stop()
        kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false", check=False)


async def test_registered_pod_is_ready_long_before_anybody_would_have_looked(system: System, seldom: Kubectl) -> None:
    agent = {"apiVersion": names.API_VERSION, "kind": "Agent", "metadata": {"name": "clerk"}, "spec": {}}
    seldom("create", "-f", "-", stdin=json.dumps(agent))
    pod = wait_for("the pod", lambda: next(iter(seldom.list("pods", "-l", f"{names.AGENT_LABEL}=clerk")), None))
    wait_for(
        "the operator's look",
        lambda: condition(seldom.get("fagent", "clerk") or {}, "Ready").get("status") == "False",
    )

    session = await register(system, pod)

    def available() -> dict[str, Any] | None:
        found = seldom.get("fagent", "clerk")
        return found if condition(found, "Ready").get("status") == "True" else None

    ready = wait_for("the agent", available)
    assert (ready["status"]["pods"], ready["status"]["ready"]) == ("1/1", 1)
    lease = seldom.get("lease", pod["metadata"]["name"])
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == pod["metadata"]["uid"]
    assert lease["spec"]["leaseDurationSeconds"] == session["leaseDurationSeconds"]
    registered = datetime.fromisoformat(lease["spec"]["acquireTime"])
    seen = datetime.fromisoformat(condition(ready, "Ready")["lastTransitionTime"])
    assert (seen - registered).total_seconds() < MINUTE / 2  # half of the time after which it would have been found


async def register(system: System, pod: dict[str, Any]) -> dict[str, Any]:
    """Do what the pod's agent does first."""
    kube = await KubeClient.connect(kubeconfig=system.cluster.kubeconfig, user_agent="tests")
    try:
        token = await pod_token(kube, pod)
    finally:
        await kube.aclose()
    trusted = ssl.create_default_context(cafile=str(system.gateway_ca))
    async with httpx.AsyncClient(base_url=system.gateway_url, verify=trusted, trust_env=False) as client:
        answer = await client.post(
            "/v1/register", json={"version": "0.1.0"}, headers={"Authorization": f"Bearer {token}"}
        )
    session: dict[str, Any] = answer.raise_for_status().json()
    return session
