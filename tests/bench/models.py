"""A model call through Fairlead's gateway next to one through LiteLLM's proxy, both before the same stand-in."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from tests.bench.harness import Arm, Comparison
from tests.bench.http1 import Connection
from tests.bench.rivals import python_of

from fairlead.core import names
from fairlead.kube import KubeClient
from fairlead.storage import open_storage
from fairlead.storage.base import QueuedTask, Revision, Run
from fairlead.testing.apiserver import running_apiserver
from fairlead.testing.gateway import GatewayProcess, create_agent_pod, gateway_authority, running_gateway
from fairlead.testing.kubectl import free_port
from fairlead.testing.storage import NOW
from fairlead.wiring import cluster_id
from fairlead_agent.protocol import call_key

CALLS = 200
AT_ONCE = 8
PIECES = 50
_MODEL = "gpt-4o-mini"
_PROMPT = "Sort this message, please: the printer is on fire again. " * 10
_START_SECONDS = 120.0
_NAMESPACE = "bench"


@dataclass
class Caller:
    """Makes calls over connections that are kept open."""

    url: str
    context: ssl.SSLContext | None
    token: str
    path: str
    body: Callable[[int], dict[str, Any]]
    check: Callable[[bytes], bool]
    pid: int
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def calls(self, count: int) -> Sequence[float]:
        """Make so many calls, some at once; return how long each took."""
        each = [count // AT_ONCE + (number < count % AT_ONCE) for number in range(AT_ONCE)]
        taken = await asyncio.gather(*(self._some(number) for number in each if number))
        return [seconds for part in taken for seconds in part]

    async def _some(self, count: int) -> list[float]:
        connection = await Connection.open(self.url, context=self.context, token=self.token)
        taken = []
        for _ in range(count):
            begun = time.perf_counter()
            body = orjson.dumps(self.body(next(self._numbers)))
            status, answer = await connection.request("POST", self.path, body)
            if status != 200 or not self.check(answer):
                message = f"{self.url}{self.path}: {status} {answer[:500]!r}"
                raise RuntimeError(message)
            taken.append(time.perf_counter() - begun)
        connection.drop()
        return taken

    def arm(self, name: str) -> Arm:
        """Return what is measured."""
        return Arm(name, self.calls, lambda: (self.pid,))


@asynccontextmanager
async def _provider() -> AsyncIterator[str]:
    """Start the stand-in, in a process that is not measured."""
    command = [sys.executable, "-m", "fairlead.testing.standins", str(PIECES)]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def _proxy(folder: Path, provider: str) -> AsyncIterator[tuple[Caller, Caller]]:
    """Start LiteLLM's proxy as its documentation says, with one worker and no database."""
    python = await python_of("litellm")
    key, port = f"sk-{secrets.token_hex(24)}", free_port()
    given = {"model": f"openai/{_MODEL}", "api_base": f"{provider}/v1", "api_key": "k"}
    config = {"model_list": [{"model_name": _MODEL, "litellm_params": given}]}
    file = folder / "proxy.json"  # JSON is YAML
    file.write_bytes(orjson.dumps(config))
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [str(python.with_name("litellm")), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "proxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        await _wait_for(f"{url}/health/liveliness", folder / "proxy.log")
        yield _through_proxy(url, key, process.pid, stream=False), _through_proxy(url, key, process.pid, stream=True)
    finally:
        process.terminate()
        await process.wait()


def _through_proxy(url: str, key: str, pid: int, *, stream: bool) -> Caller:
    def body(_number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": _PROMPT}]
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return {"model": _MODEL, "messages": messages, **more}

    def check(answer: bytes) -> bool:
        ending = b"[DONE]" if stream else b"truth"
        return ending in answer and b'"completion_tokens":7' in answer.replace(b" ", b"")

    return Caller(url, None, key, "/v1/chat/completions", body, check, pid)


async def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                if (await client.get(url)).is_success:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)
    message = f"{url} does not answer: see {log}"
    raise RuntimeError(message)


@asynccontextmanager
async def _gateway(folder: Path, provider: str) -> AsyncIterator[tuple[Caller, Caller]]:
    """Start a gateway, with all that it does for a call: the fence, the intent, the answer and its span, on a disk."""
    with running_apiserver(folder) as server:
        kube = await KubeClient.connect(kubeconfig=server.kubeconfig, user_agent="bench")
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
        settings = {"allow_loopback_models": "true"}
        with running_gateway(folder, kubeconfig=server.kubeconfig, namespace=_NAMESPACE, **settings) as gateway:
            yield await _through_gateway(kube, gateway, provider)
        await kube.aclose()


async def _through_gateway(kube: KubeClient, gateway: GatewayProcess, provider: str) -> tuple[Caller, Caller]:
    cluster = await cluster_id(kube)
    tasks = [await _submit(gateway, cluster, provider, stream=stream) for stream in (False, True)]
    token = await create_agent_pod(kube, "bench", namespace=_NAMESPACE)
    context = ssl.create_default_context(cadata=await gateway_authority(kube, _NAMESPACE))
    async with httpx.AsyncClient(base_url=gateway.url, verify=context, trust_env=False) as client:

        async def post(path: str, bearer: str, body: dict[str, Any]) -> Any:
            answer = await client.post(path, json=body, headers={"Authorization": f"Bearer {bearer}"})
            return answer.raise_for_status().json()

        session = (await post("/v1/register", token, {"version": "0.1.0", "concurrency": 2}))["session"]
        claimed = (await post("/v1/claim", session, {"limit": 2, "waitSeconds": 5}))["tasks"]
    assert {task["id"] for task in claimed} == set(tasks)
    whole, streamed = (_asks(gateway, context, session, task) for task in tasks)
    return whole, streamed


async def _submit(gateway: GatewayProcess, cluster: str, provider: str, *, stream: bool) -> str:
    model = {"model": f"openai/{_MODEL}", "baseURL": f"{provider}/v1", "parameters": {"stream": stream}}
    spec = {"model": "default", "nodes": [{"name": "ask", "llm": {"prompt": "?"}}]}
    workflow = {"name": "bench", "uid": "w", "generation": 1, "spec": spec}
    document = {"workflow": workflow, "workflows": {}, "agents": {}, "models": {"default": model}, "tools": {}}
    revision, uid = Revision(names.digest(document), document), str(uuid.uuid4())
    storage = open_storage(gateway.storage_url)
    run = Run(uid, cluster, _NAMESPACE, f"bench-{uid[:8]}", "bench", revision.digest, {}, NOW)
    task = QueuedTask(f"{uid}-task", uid, names.agent_pool(cluster, _NAMESPACE, "default"))
    await storage.submit(run, revision=revision, task=task)
    await storage.aclose()
    return task.id


def _asks(gateway: GatewayProcess, context: ssl.SSLContext, session: str, task: str) -> Caller:
    def body(number: int) -> dict[str, Any]:
        request = {"model": "default", "messages": [{"role": "user", "content": _PROMPT}]}
        key = call_key("ask", None, 1, 1, number)
        return {"attempt": 1, "key": key, "digest": f"d{number}", "action": "llm", "node": "ask", "llm": request}

    def check(answer: bytes) -> bool:
        reply = orjson.loads(answer)
        return "truth" in str(reply.get("result")) and reply["usage"]["outputTokens"] == 7

    return Caller(gateway.url, context, session, f"/v1/tasks/{task}/calls", body, check, gateway.process.pid)


@asynccontextmanager
async def comparisons(folder: Path) -> AsyncIterator[list[Comparison]]:
    """Start both and yield what to compare."""
    for name in ("proxy", "gateway"):
        (folder / name).mkdir()
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(_provider())
        proxy = await stack.enter_async_context(_proxy(folder / "proxy", provider))
        gateway = await stack.enter_async_context(_gateway(folder / "gateway", provider))
        titles = ("a call, answered in one piece", f"a call, streamed in {PIECES} pieces")
        yield [
            Comparison(title, CALLS, [theirs.arm("LiteLLM's proxy"), ours.arm("Fairlead's gateway")])
            for title, theirs, ours in zip(titles, proxy, gateway, strict=True)
        ]
