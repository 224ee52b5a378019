"""Who may decide, what they see, and what becomes of a second opinion."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from fairlead.testing.gateway import running_gateway
from fairlead.testing.world import Pod, World
from fairlead_agent.protocol import call_key


async def asked(world: World, node: str = "ship", **changes: Any) -> tuple[Any, Pod, dict[str, Any]]:
    """Return a run whose *node* asks for an approval, its pod and its task."""
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    body = {"key": call_key(node, None, 1, 1, 1), "node": node, "message": f"{node}?", **changes}
    answer = await pod.task(task, "approvals", **body)
    assert answer.status_code == 204, answer.text
    return run, pod, task


async def get(world: World, path: str, token: str) -> httpx.Response:
    client = await world.client()
    return await client.get(f"/v1{path}", headers={"Authorization": f"Bearer {token}"})


async def test_approvals_are_listed_for_who_may_read(world: World) -> None:
    run, _, _ = await asked(world)
    reader, stranger = await world.person("reader", "get"), await world.person("stranger")
    base = f"/namespaces/{world.namespace}"

    (pending,) = (await get(world, f"{base}/approvals", reader)).json()["items"]
    shown = {name: pending[name] for name in ("runName", "node", "message", "state", "approvers", "tool", "onTimeout")}
    assert shown == {
        "runName": run.name,
        "node": "ship",
        "message": "ship?",
        "state": "Pending",
        "approvers": [],
        "tool": None,
        "onTimeout": "Reject",
    }
    assert (await get(world, f"{base}/runs/{run.name}/approvals", reader)).json()["items"] == [pending]
    assert (await get(world, f"{base}/runs/{run.name}", reader)).json()["approvals"] == [pending]
    assert (await get(world, f"{base}/approvals", stranger)).status_code == 403
    assert (await get(world, "/approvals", reader)).status_code == 403
    assert (await get(world, f"/approvals?namespace={world.namespace}", reader)).json()["items"] == [pending]


async def test_decide_keeps_who_when_and_why(world: World) -> None:
    run, _, _ = await asked(world)
    who = await world.person("decider", "get", "update")

    first = await world.decide(run.name, token=who, node="ship", approved=True, comment="looks good")
    again = await world.decide(run.name, token=who, node="ship", approved=True)
    other = await world.decide(run.name, token=who, node="ship", approved=False)

    assert first.status_code == again.status_code == 200
    decided = first.json()
    assert decided == again.json()
    assert (decided["state"], decided["comment"], decided["via"], decided["verified"]) == (
        "Approved",
        "looks good",
        "api",
        True,
    )
    assert decided["decidedBy"] == f"system:serviceaccount:{world.namespace}:decider"
    assert decided["decidedAt"]
    assert (other.status_code, other.json()["reason"]) == (409, "AlreadyDecided")
    assert "approved by" in other.json()["message"]


async def test_decide_of_who_may_only_read_is_refused(world: World) -> None:
    run, pod, task = await asked(world)
    reader = await world.person("reader", "get")
    for token in (reader, pod.session, pod.token, "nonsense"):
        assert (await world.decide(run.name, token=token, node="ship", approved=True)).status_code in {401, 403}
    assert (await pod.task(task, "signals", keys=["ship/-/1/1/1"], waitSeconds=0)).json() == {"signals": []}


async def test_decide_by_the_agents_own_account_is_refused_even_if_it_may(world: World) -> None:
    """A pod that is taken over cannot approve itself, whatever its service account may do."""
    run, pod, _ = await asked(world)
    await world.person("default-may", "get", "update")
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": "default-may-too", "namespace": world.namespace}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": world.namespace}
    ref = {"apiGroup": rbac, "kind": "Role", "name": "default-may"}
    binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": metadata}
    await world.kube.create({**binding, "subjects": [subject], "roleRef": ref})
    path = f"/namespaces/{world.namespace}/runs/{run.name}/approvals"
    assert (await get(world, path, pod.token)).status_code == 200, "the role holds for it"

    answer = await world.decide(run.name, token=pod.token, node="ship", approved=True)

    assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")


async def test_decide_with_approvers_is_for_them_only(world: World) -> None:
    group = f"system:serviceaccounts:{world.namespace}"
    nodes = [{"name": name, "approval": {"message": "?", "approvers": list(allowed)}} for name, allowed in (
        ("others", ["release-team"]),
        ("us", ["release-team", group]),
    )]  # fmt: skip
    run = await world.submit(nodes=nodes)
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    for node in ("others", "us"):
        body = {"key": call_key(node, None, 1, 1, 1), "node": node, "message": "?", "approvers": []}
        assert (await pod.task(task, "approvals", **body)).status_code == 204, "the frozen approvers stand"

    refused = await world.decide(run.name, node="others", approved=True)
    agreed = await world.decide(run.name, node="us", approved=True)

    assert (refused.status_code, refused.json()["reason"]) == (403, "Forbidden")
    assert "release-team may" in refused.json()["message"]
    assert agreed.status_code == 200


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        pytest.param({"node": "fix", "approved": True}, 404, "NotFound", id="node-that-asked-nothing"),
        pytest.param({"key": "ship/-/1/1/9", "approved": True}, 404, "NotFound", id="unknown-key"),
        pytest.param({"approved": True}, 422, "InvalidRequest", id="no-key-and-no-node"),
        pytest.param({"node": "ship"}, 422, "InvalidRequest", id="no-decision"),
        pytest.param({"node": "ship", "approved": True, "by": "boss"}, 422, "InvalidRequest", id="forged-identity"),
        pytest.param({"node": "ship", "approved": True, "comment": "x" * 5000}, 422, "InvalidRequest", id="long"),
    ],
)
async def test_decide_of_what_cannot_be_is_told(world: World, answer: dict[str, Any], status: int, reason: str) -> None:
    run, _, _ = await asked(world)
    found = await world.decide(run.name, **answer)
    assert (found.status_code, found.json()["reason"]) == (status, reason), found.text


async def test_decide_of_several_items_says_which(world: World) -> None:
    run, pod, task = await asked(world)
    for item in ("0", "1"):
        body = {"key": call_key("ship", item, 1, 1, 1), "node": "ship", "item": item, "message": "?"}
        assert (await pod.task(task, "approvals", **body)).status_code == 204
    which = await world.decide(run.name, node="ship", approved=True)
    assert (which.status_code, which.json()["reason"]) == (422, "Ambiguous")
    one = await world.decide(run.name, node="ship", item="1", approved=True)
    assert (one.status_code, one.json()["item"]) == (200, "1")


async def test_decide_after_the_run_ended_is_told(world: World) -> None:
    run, pod, task = await asked(world)
    await pod.append(task, 0, {"kind": "RunFinished", "state": "Failed"})
    answer = await world.decide(run.name, node="ship", approved=True)
    assert (answer.status_code, answer.json()["reason"]) == (409, "AlreadyDecided")
    assert "ended before" in answer.json()["message"]


async def test_decide_through_another_gateway_wakes_the_pod_that_waits_at_this_one(world: World) -> None:
    run, pod, task = await asked(world)
    who = await world.person("decider", "get", "update")
    waiting = asyncio.create_task(pod.task(task, "signals", keys=["ship/-/1/1/1"], waitSeconds=30))
    with running_gateway(
        world.folder,
        kubeconfig=world.server.kubeconfig,
        namespace=world.system_namespace,
        storage_url=world.gateway.storage_url,
    ) as second:
        client = await world.client()
        path = f"{second.url}/v1/namespaces/{world.namespace}/runs/{run.name}/approvals"
        answer = await client.post(
            path, json={"node": "ship", "approved": True}, headers={"Authorization": f"Bearer {who}"}
        )
        assert answer.status_code == 200, answer.text
        (signal,) = (await asyncio.wait_for(waiting, 20)).json()["signals"]
    assert signal["value"]["approved"] is True


async def test_approval_that_nobody_answers_ends_by_itself(world: World) -> None:
    nodes = [{"name": "ship", "approval": {"message": "?", "timeoutSeconds": 1, "onTimeout": "Approve"}}]
    run = await world.submit(nodes=nodes)
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    key = call_key("ship", None, 1, 1, 1)
    hostile = {"timeoutSeconds": 9999, "onTimeout": "Reject"}
    await pod.task(task, "approvals", key=key, node="ship", message="?", **hostile)

    (signal,) = (await pod.task(task, "signals", keys=[key], waitSeconds=30)).json()["signals"]

    assert (signal["value"]["approved"], signal["value"]["via"]) == (True, "timeout")
    late = await world.decide(run.name, node="ship", approved=False)
    assert "its time-out" in late.json()["message"]
