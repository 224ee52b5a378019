"""A pod that lost its claim writes nothing; nobody writes for somebody else."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fairlead.kube import Ref
from fairlead.storage.base import MAX_ATTEMPTS_WITHOUT_PROGRESS
from fairlead.testing.gateway import create_agent_pod, pod_token
from fairlead.testing.world import Pod, World

STARTED = {"kind": "NodeStarted", "node": "greet"}
ASKED = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}


async def every_write(pod: Pod, task: dict[str, Any]) -> dict[str, httpx.Response]:
    line = {"at": "2026-01-02T03:04:05Z", "text": "hi"}
    return {
        "journal": await pod.append(task, 0, STARTED),
        "calls": await pod.call(task, "greet", llm=ASKED),
        "logs": await pod.post(f"/tasks/{task['id']}/logs", {"attempt": task["attempt"], "first": 0, "lines": [line]}),
        "release": await pod.post(f"/tasks/{task['id']}/release", {"attempt": task["attempt"]}),
    }


async def test_writes_after_the_pod_was_given_up_are_refused(world: World) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    owner = (await world.kube.get(Ref("v1", "Pod", "agent-0", world.namespace)) or {})["metadata"]["uid"]

    await world.storage.requeue_pod(owner, at=run.created_at)

    answers = await every_write(pod, task)
    assert {answer.status_code for answer in answers.values()} <= {401, 409}
    assert {answer.json()["reason"] for answer in answers.values()} <= {"SessionExpired", "Fenced"}
    assert (await pod.post("/heartbeat", {})).json()["reason"] == "SessionExpired"
    assert (await pod.post("/claim", {})).status_code == 401
    await pod.register()
    answers = await every_write(pod, task)
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 409)
    assert {answer.json()["reason"] for answer in answers.values()} == {"Fenced"}
    assert await world.storage.journal(task["id"]) == []
    assert await world.storage.calls_of_run(run.uid) == []


async def test_writes_to_the_task_of_another_pod_are_refused(world: World) -> None:
    await world.submit()
    owner, stranger = await world.pod("agent-0"), await world.pod("agent-1", agent="other")
    (task,) = await owner.claim()

    answers = await every_write(stranger, task)

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 409)
    assert (await owner.append(task, 0, STARTED)).json()["length"] == 1


async def test_writes_with_another_attempt_are_refused(world: World) -> None:
    await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    answers = await every_write(pod, task | {"attempt": 2})
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 409)


async def test_append_again_is_harmless_and_a_gap_is_refused(world: World) -> None:
    await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    assert (await pod.append(task, 0, STARTED)).json()["length"] == 1
    assert (await pod.append(task, 0, STARTED)).json()["length"] == 1
    assert (await pod.append(task, 5, STARTED)).status_code == 409


async def test_next_attempt_gets_the_journal_and_the_answers(world: World) -> None:
    run = await world.submit()
    first = await world.pod("agent-0")
    (task,) = await first.claim()
    await first.append(task, 0, STARTED)
    await first.call(task, "greet", llm=ASKED)
    await first.register()  # its container was restarted

    (again,) = await first.claim()

    assert (again["id"], again["attempt"]) == (task["id"], 2)
    assert [entry["kind"] for entry in again["journal"]] == ["NodeStarted"]
    reply = (await first.call(again, "greet", llm=ASKED)).json()
    assert (reply["result"], reply["replayed"]) == ("hi there", True)
    (call,) = await world.storage.calls_of_run(run.uid)
    assert call.repeats == 0


async def test_release_gives_the_task_to_another_pod(world: World) -> None:
    await world.submit()
    first, second = await world.pod("agent-0"), await world.pod("agent-1")
    (task,) = await first.claim()
    assert (await first.post(f"/tasks/{task['id']}/release", {"attempt": 1})).status_code == 204
    (again,) = await second.claim()
    assert again["id"] == task["id"]


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_nobody_is_refused(world: World, token: str) -> None:
    await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    paths = ["/heartbeat", "/claim", f"/tasks/{task['id']}/journal", "/register"]
    answers = [await pod.post(path, {"version": "1"}, token=token) for path in paths]
    assert [answer.status_code for answer in answers] == [401] * len(paths)
    assert {"reason", "message"} == set(answers[0].json())


async def test_register_token_of_another_audience_or_pod_is_refused(world: World) -> None:
    pod = await world.pod("agent-0", registered=False)
    found = await world.kube.get(Ref("v1", "Pod", "agent-0", world.namespace))
    assert found is not None
    pod.token = await pod_token(world.kube, found, audience="somebody-else")
    assert (await pod.register()).status_code == 401
    pod.token = await create_agent_pod(world.kube, "no-agent", namespace=world.namespace, agent="")
    assert (await pod.register()).status_code == 403


async def test_register_after_the_pod_was_deleted_is_refused(world: World) -> None:
    pod = await world.pod("agent-0", registered=False)
    await world.kube.delete(Ref("v1", "Pod", "agent-0", world.namespace), grace_seconds=0)
    assert (await pod.register()).status_code == 401


async def test_register_unknown_protocol_is_told(world: World) -> None:
    pod = await world.pod("agent-0", registered=False)
    answer = await pod.post("/register", {"version": "9", "protocol": 9}, token=pod.token)
    assert (answer.status_code, answer.json()["reason"]) == (426, "UnknownProtocol")


async def test_cancel_reaches_the_pod_and_the_record(world: World) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    await world.storage.cancel_run(run.uid, reason="Stopped", message="by a person", at=run.created_at)
    assert (await pod.post("/heartbeat", {"tasks": [task["id"]]})).json()["cancel"] == [task["id"]]
    await pod.append(task, 0, {"kind": "RunFinished", "state": "Cancelled"})
    ended = await world.storage.get_run(run.uid)
    assert ended is not None
    assert (ended.state, ended.reason) == ("Cancelled", "Stopped")


async def test_claim_that_cannot_be_answered_takes_the_task_back(world: World) -> None:
    """The revision of the first run cannot be shown to anybody; the pod is told, and nothing is left claimed."""
    broken = await world.submit(agents={"engineer": {"tools": 7}})
    pod = await world.pod("agent-0")
    answer = await pod.post("/claim", {"limit": 1, "waitSeconds": 0})
    assert answer.status_code == 500
    (task,) = await world.storage.tasks_of_run(broken.uid)
    assert (task.state, task.pod_uid) == ("Queued", "")


async def test_claim_that_can_never_be_answered_ends_the_run_and_no_other(world: World) -> None:
    broken = await world.submit(agents={"engineer": {"tools": 7}})
    sound = await world.submit()
    pod = await world.pod("agent-0")
    pod.client.headers["Connection"] = "close"  # the server closes it after an error, maybe as it is used again
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        answer = await pod.post("/claim", {"limit": 2, "waitSeconds": 0})
        assert answer.status_code == 500

    (task,) = await pod.claim(limit=2)
    assert task["run"]["uid"] == sound.uid
    ended = await world.storage.get_run(broken.uid)
    assert ended is not None
    assert (ended.state, ended.reason) == ("Failed", "AttemptsExhausted")
