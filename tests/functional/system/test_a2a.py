"""A2A in both directions: the SDK's client asks our agents, and our workflows ask agents that others run."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from a2a.client.client import Client, ClientConfig
from a2a.client.client_factory import create_client
from a2a.client.errors import AgentCardResolutionError
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    TaskState,
)
from a2a.utils.errors import A2AError, InvalidParamsError, TaskNotFoundError, UnsupportedOperationError

from fairlead.a2a.answers import Gathering, to_output
from fairlead.testing.kubectl import condition, wait_for
from fairlead.testing.remoteagent import TOKEN, RemoteAgent, running_remote_agent
from fairlead.testing.system import System

API = "fairlead.dev/v1alpha1"
RESPONSES = [
    {"match": "^fail", "error": {"status": 400, "message": "the sky is falling"}},
    {"match": "^slow", "reply": "late", "latencyMs": 60_000},
    {"match": "^guarded", "toolCalls": [{"name": "guarded", "arguments": {"data": {"a": 1}}}]},
    {"match": "^json", "reply": '{"sun": true}'},
    {"reply": "it is sunny"},
]
GUARDED = {"builtin": {"name": "json_query", "config": {"expression": "a"}}, "requireApproval": True}


def declare(system: System, kind: str, name: str, **spec: Any) -> None:
    system.kubectl.apply({"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec})


def ready(system: System, agent: str) -> dict[str, Any]:
    system.kubectl("wait", f"agents.fairlead.dev/{agent}", "--for=condition=Ready", "--timeout=90s")
    return condition(system.kubectl.get("agents.fairlead.dev", agent), "Ready")


def runs(system: System) -> list[str]:
    found = system.kubectl.list("workflowruns", "-l", "fairlead.dev/a2a-agent=weather")
    return [run["metadata"]["name"] for run in found]


@dataclass
class Outside:
    """Whoever speaks to our agents from outside."""

    system: System
    tokens: dict[str, str]
    remote: RemoteAgent

    def url(self, agent: str = "weather") -> str:
        return f"{self.system.gateway_url}/a2a/v1/{self.system.kubectl.namespace}/{agent}"

    def http(self, who: str = "caller") -> httpx.AsyncClient:
        trusted = ssl.create_default_context(cafile=self.system.gateway_ca)
        shown = {"Authorization": f"Bearer {self.tokens[who]}"} if who in self.tokens else {}
        return httpx.AsyncClient(verify=trusted, headers=shown, trust_env=False, timeout=90)


@pytest.fixture(scope="module")
def outside(system: System) -> Iterator[Outside]:
    """Agents of ours, an agent of others, and people who may and may not send messages."""
    kubectl = system.kubectl
    people = ("caller", "reader", "leaver", "stranger")
    for name in people:
        kubectl("create", "serviceaccount", name)
    for name, verbs in (("caller", "get,create,update"), ("reader", "get"), ("leaver", "get")):
        kubectl("create", "role", name, f"--verb={verbs}", "--resource=workflowruns.fairlead.dev")
        kubectl("create", "rolebinding", name, f"--role={name}", f"--serviceaccount={kubectl.namespace}:{name}")
    tokens = {name: kubectl("create", "token", name, "--duration=1h").strip() for name in people}
    kubectl(
        "create",
        "secret",
        "generic",
        "tokens",
        f"--from-literal=ours={tokens['caller']}",
        f"--from-literal=theirs={TOKEN}",
    )
    declare(system, "Model", "sky", scripted={"responses": RESPONSES})
    declare(system, "Tool", "guarded", **GUARDED)
    skill = {"name": "forecast", "description": "Tells the weather.", "examples": ["Will it rain?"]}
    declare(
        system,
        "Agent",
        "weather",
        model="sky",
        skills=[skill],
        tools=["guarded"],
        description="Watches the sky.",
        concurrency=8,
    )
    with running_remote_agent() as remote:
        remote.token = TOKEN
        ready(system, "weather")
        yield Outside(system, tokens, remote)


@pytest.fixture
async def client(outside: Outside) -> AsyncIterator[Client]:
    async with outside.http() as http:
        yield await create_client(outside.url(), ClientConfig(httpx_client=http))


def message(text: str, *, id: str = "", context: str = "", immediately: bool = False) -> SendMessageRequest:  # noqa: A002 - A2A's name
    return SendMessageRequest(
        message=Message(
            message_id=id or uuid.uuid4().hex, context_id=context, role=Role.ROLE_USER, parts=[Part(text=text)]
        ),
        configuration=SendMessageConfiguration(return_immediately=immediately),
    )


async def events(client: Client, asked: SendMessageRequest) -> list[StreamResponse]:
    return [event async for event in client.send_message(asked)]


def gathered(found: list[StreamResponse]) -> Gathering:
    whole = Gathering()
    for event in found:
        whole.add(event)
    return whole


# -- out: our agents as servers ---------------------------------------------------------------------------------------


async def test_card_says_what_the_agent_can_do_and_how_to_show_who_asks(outside: Outside) -> None:
    async with outside.http() as http:
        card = (await http.get(f"{outside.url()}/.well-known/agent-card.json")).raise_for_status().json()
        listed = (await http.get(outside.url("x").removesuffix("/x"))).raise_for_status().json()
    assert (card["name"], card["description"]) == ("weather", "Watches the sky.")
    assert card["skills"][0] | {"tags": []} == {
        "id": "forecast",
        "name": "forecast",
        "description": "Tells the weather.",
        "tags": [],
        "examples": ["Will it rain?"],
    }
    assert card["capabilities"]["streaming"] is True
    assert {each["url"] for each in card["supportedInterfaces"]} == {outside.url()}
    assert card["securitySchemes"]["kubernetes"]["httpAuthSecurityScheme"]["scheme"] == "bearer"
    assert "weather" in {each["name"] for each in listed["agents"]}


@pytest.mark.parametrize(
    ("who", "agent", "code"), [("nobody", "weather", 401), ("stranger", "weather", 403), ("caller", "none", 404)]
)
async def test_only_those_who_may_make_runs_reach_an_agent(outside: Outside, who: str, agent: str, code: int) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {}}
    async with outside.http(who) as http:
        seen = await http.get(f"{outside.url(agent)}/.well-known/agent-card.json")
        sent = await http.post(outside.url(agent), json=call)
        with pytest.raises(AgentCardResolutionError):
            await create_client(outside.url(agent), ClientConfig(httpx_client=http))
    assert (seen.status_code, sent.status_code) == (code, code)


async def test_message_is_answered_as_a_stream(outside: Outside, client: Client) -> None:
    found = await events(client, message("Will it rain?", context="holiday"))
    whole = gathered(found)
    answer = whole.answer()
    assert (answer.state, to_output(answer.parts, wants_value=False)) == ("completed", "it is sunny")
    task = found[0].task
    assert (task.context_id, task.history[0].parts[0].text) == ("holiday", "Will it rain?")
    run = outside.system.kubectl.get("workflowrun", whole.task_id)
    assert run is not None
    assert run["metadata"]["annotations"]["fairlead.dev/requested-by"].endswith(":caller")


async def test_same_message_makes_one_run(outside: Outside, client: Client) -> None:
    asked, before = uuid.uuid4().hex, len(runs(outside.system))
    both = await asyncio.gather(*(events(client, message("Sun?", id=asked)) for _ in range(2)))
    again = await events(client, message("Sun?", id=asked))
    tasks = {gathered(found).task_id for found in (*both, again)}
    assert (len(tasks), len(runs(outside.system)) - before) == (1, 1)
    assert all(gathered(found).answer().parts[0].text == "it is sunny" for found in (*both, again))


async def test_task_is_told_followed_and_cancelled(outside: Outside) -> None:
    async with outside.http() as http:
        client = await create_client(outside.url(), ClientConfig(httpx_client=http, streaming=False, polling=True))
        task = (await events(client, message("slow")))[0].task.id
        told = await client.get_task(GetTaskRequest(id=task, history_length=0))
        assert told.status.state in {TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING}
        assert not told.history
        streaming = await create_client(outside.url(), ClientConfig(httpx_client=http))
        followed = asyncio.create_task(follow(streaming, task))
        ended = await client.cancel_task(CancelTaskRequest(id=task))
        assert ended.status.state == TaskState.TASK_STATE_CANCELED
        assert (await followed).state == TaskState.TASK_STATE_CANCELED
        with pytest.raises(A2AError, match="has ended"):
            await client.cancel_task(CancelTaskRequest(id=task))
        with pytest.raises(UnsupportedOperationError, match="has ended"):
            await follow(streaming, task)


async def follow(client: Client, task: str) -> Gathering:
    return gathered([event async for event in client.subscribe(SubscribeToTaskRequest(id=task))])


async def test_stream_ends_when_who_follows_loses_the_right_to_read(outside: Outside) -> None:
    kubectl = outside.system.kubectl
    async with outside.http() as caller, outside.http("leaver") as leaver:
        client = await create_client(outside.url(), ClientConfig(httpx_client=caller, streaming=False, polling=True))
        task = (await events(client, message("slow")))[0].task.id
        following = await create_client(outside.url(), ClientConfig(httpx_client=leaver))
        stream = following.subscribe(SubscribeToTaskRequest(id=task))
        assert (await anext(stream)).task.id == task
        kubectl("delete", "rolebinding", "leaver")
        with pytest.raises(A2AError, match="may not get workflowruns"):
            async for _ in stream:
                pass
        assert (await client.get_task(GetTaskRequest(id=task))).status.state == TaskState.TASK_STATE_WORKING
        await client.cancel_task(CancelTaskRequest(id=task))


async def test_message_that_is_not_streamed_waits_for_its_answer(outside: Outside) -> None:
    async with outside.http() as http:
        client = await create_client(outside.url(), ClientConfig(httpx_client=http, streaming=False))
        (only,) = await events(client, message("Sun?"))
    assert (only.task.status.state, only.task.artifacts[0].parts[0].text) == (
        TaskState.TASK_STATE_COMPLETED,
        "it is sunny",
    )


async def test_task_that_fails_says_why(client: Client) -> None:
    answer = gathered(await events(client, message("fail please"))).answer()
    assert (answer.state, "the sky is falling" in answer.text) == ("failed", True)


async def test_task_that_waits_for_a_person_asks_for_input(client: Client) -> None:
    whole = gathered(await events(client, message("guarded")))
    assert (whole.answer().state, f"fairlead approvals {whole.task_id}" in whole.answer().text) == (
        "input-required",
        True,
    )
    ended = await client.cancel_task(CancelTaskRequest(id=whole.task_id))
    assert ended.status.state == TaskState.TASK_STATE_CANCELED


@pytest.mark.parametrize(
    "method", ["SendMessage", "SendStreamingMessage", "message/send", "CancelTask", "somethingNew"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
async def test_who_may_only_read_starts_and_stops_nothing(outside: Outside, method: str, encoding: str) -> None:
    said = {"role": "ROLE_USER", "messageId": uuid.uuid4().hex, "parts": [{"text": "hello"}]}
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": said, "id": "a2a-nothing"}}
    before = {run["metadata"]["name"] for run in outside.system.kubectl.list("run")}
    async with outside.http("reader") as http:
        answer = await http.post(
            outside.url(), content=json.dumps(call).encode(encoding), headers={"A2A-Version": "1.0"}
        )
    assert answer.status_code == 403 or answer.json()["error"]["code"] == -32700
    assert {run["metadata"]["name"] for run in outside.system.kubectl.list("run")} == before


async def test_earlier_protocol_is_spoken_too(outside: Outside) -> None:
    said = {"kind": "message", "role": "user", "messageId": uuid.uuid4().hex, "parts": [{"kind": "text", "text": "?"}]}
    call = {"jsonrpc": "2.0", "id": 7, "method": "message/send", "params": {"message": said}}
    async with outside.http() as http:
        answer = (await http.post(outside.url(), json=call)).raise_for_status().json()
    assert answer["result"]["status"]["state"] == "completed"
    assert answer["result"]["artifacts"][0]["parts"][0]["text"] == "it is sunny"


async def test_what_cannot_be_taken_is_an_error_of_json_rpc(outside: Outside, client: Client) -> None:
    with pytest.raises(InvalidParamsError, match="262144"):
        await events(client, message("x" * 300_000))
    with pytest.raises(InvalidParamsError):
        await events(client, message("   "))
    with pytest.raises(TaskNotFoundError):
        await client.get_task(GetTaskRequest(id="a2a-nothing"))
    going_on = message("more")
    going_on.message.task_id = "a2a-nothing"
    with pytest.raises(UnsupportedOperationError, match="no further messages"):
        await events(client, going_on)
    headers = {"A2A-Version": "1.0"}
    async with outside.http() as http:
        for body, code in (('{"jsonrpc"', -32700), ("[]", -32600), ('{"jsonrpc":"2.0","id":1,"method":"x"}', -32601)):
            answer = await http.post(outside.url(), content=body, headers=headers)
            assert answer.json()["error"]["code"] == code, body
        assert (await http.post(outside.url(), content=b" " * (2 << 20))).status_code == 413


# -- in: agents of others in our workflows ----------------------------------------------------------------------------


def external(system: System, name: str, url: str, *, key: str = "theirs", **more: Any) -> None:
    token = {"valueFrom": {"secretKeyRef": {"name": "tokens", "key": key}}}
    declare(system, "Agent", name, external={"url": url, "token": token, **more}, leaseDurationSeconds=3)


def asked(system: System, name: str, agent: str, prompt: str, **node: Any) -> dict[str, Any]:
    """Run a workflow whose only node hands a prompt to an agent; return the finished run."""
    nodes = [{"name": "ask", "agent": {"name": agent, "prompt": prompt, **node}}]
    declare(system, "Workflow", name, model="sky", runsOn={"agent": "weather"}, nodes=nodes, output="{{ outputs.ask }}")
    system.kubectl("wait", f"workflow/{name}", "--for=condition=Ready", "--timeout=60s")
    return system.finished(system.start_run(name), seconds=90)


def test_external_agent_is_registered_called_lost_and_found(outside: Outside) -> None:
    system, remote = outside.system, outside.remote
    external(system, "theirs", f"{remote.url}/ok", costPerCallUSD="0.02")
    assert ready(system, "theirs")["message"] == 'Its card is "Weather" 1.2; its skills are forecast.'
    lease = system.kubectl.get("lease", "theirs-external")
    agent = system.kubectl.get("agents.fairlead.dev", "theirs")
    assert lease is not None
    assert agent is not None
    assert lease["spec"]["holderIdentity"] == agent["metadata"]["uid"]
    assert (agent["status"]["pods"], agent["status"]["ready"], agent["status"]["total"]) == ("external", 1, 1)
    assert not system.kubectl.list("pods", "-l", "fairlead.dev/agent=theirs")
    run = asked(system, "ask-theirs", "theirs", "data please", output={"type": "object", "required": ["kind"]})
    assert (condition(run, "Succeeded")["reason"], run["status"]["cost"]["total"]) == ("Succeeded", "0.02")
    assert '"kind":"bug"' in run["status"]["result"].replace(" ", "")
    assert "JSON Schema" in remote.prompts[-1]
    remote.broken = True
    system.kubectl("wait", "agents.fairlead.dev/theirs", "--for=condition=Ready=False", "--timeout=60s")

    def told_why() -> bool:
        why = condition(system.kubectl.get("agents.fairlead.dev", "theirs"), "Ready")
        return why["reason"] == "ExternalUnreachable" and "HTTP 503" in why["message"]

    wait_for("the agent to say why it is not ready", told_why)
    remote.broken = False
    ready(system, "theirs")
    told = {event["reason"] for event in system.kubectl.list("events") if event["involvedObject"]["name"] == "theirs"}
    assert told >= {"AgentRegistered", "AgentLost"}


@pytest.mark.parametrize(
    ("prompt", "reason", "words"),
    [("reject", "AgentFailed", "not my job"), ("ask", "AgentNeedsInput", "which city?")],
)
def test_external_agent_that_does_not_answer_fails_its_node(
    outside: Outside, prompt: str, reason: str, words: str
) -> None:
    external(outside.system, "others", f"{outside.remote.url}/ok")
    run = asked(outside.system, f"ask-{prompt}", "others", prompt)
    assert condition(run, "Succeeded")["status"] == "False"
    assert words in condition(run, "Succeeded")["message"]
    with sqlite3.connect(outside.system.storage_url.removeprefix("sqlite:///")) as database:
        found = database.execute("SELECT reason FROM nodes WHERE run_uid = ?", (run["metadata"]["uid"],)).fetchall()
    assert found == [(reason,)]


def test_card_that_is_none_is_said_and_mended(outside: Outside) -> None:
    external(outside.system, "mended", f"{outside.remote.url}/html")

    def refused() -> bool:
        why = condition(outside.system.kubectl.get("agents.fairlead.dev", "mended"), "Ready")
        return why.get("reason") == "InvalidCard" and "no JSON" in why["message"]

    wait_for("the card to be refused", refused)
    external(outside.system, "mended", f"{outside.remote.url}/ok")
    ready(outside.system, "mended")


def test_one_of_our_agents_asks_another_through_a2a(outside: Outside) -> None:
    system = outside.system
    external(system, "neighbour", outside.url(), key="ours", caCertificate=system.gateway_ca.read_text())
    assert 'Its card is "weather"' in ready(system, "neighbour")["message"]
    before = set(runs(system))
    run = asked(system, "ask-neighbour", "neighbour", "json", output={"type": "object", "required": ["sun"]})
    assert (condition(run, "Succeeded")["reason"], run["status"]["result"]) == ("Succeeded", '{"sun":true}')
    assert len(set(runs(system)) - before) == 1


def test_tokens_are_nowhere_but_in_their_secret(outside: Outside) -> None:
    system = outside.system
    logs = system.gateway.log.read_text() + system.operator.log.read_text()
    objects = system.kubectl("get", "agents.fairlead.dev,workflowruns,leases,events", "-o", "json")
    assert TOKEN not in logs + objects
    assert outside.tokens["caller"] not in logs + objects
