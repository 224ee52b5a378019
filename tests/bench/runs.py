"""Runs of one node: Fairlead's whole system next to a naive Kopf operator, each on an API server of its own."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import orjson
import yaml
from tests.bench.harness import Arm, Comparison
from tests.bench.http1 import Connection
from tests.bench.naive_operator import GROUP, PLURAL, VERSION

from fairlead.storage import Storage, open_storage
from fairlead.testing.apiserver import ApiServer, running_apiserver

_FAIRLEAD = {"apiVersion": "fairlead.dev/v1alpha1"}
_NODES = [{"name": "greet", "llm": {"prompt": "hello"}}]
CHAIN = 40
_CHAIN = [
    {"name": f"node_{number}", "needs": [f"node_{number - 1}"] if number else [], "llm": {"prompt": "hello"}}
    for number in range(CHAIN)
]
_RUNS = "/apis/fairlead.dev/v1alpha1/namespaces/default/workflowruns"
_DEADLINE_SECONDS = 60


class Stack(Protocol):
    """A system that runs workflows."""

    path: str
    pids: list[int]

    def body(self, name: str) -> dict[str, Any]:
        """Return a run to create."""

    def finished(self, item: dict[str, Any]) -> bool:
        """Say whether a run has ended; raise if it did not succeed."""

    async def node_started(self, item: dict[str, Any]) -> float:
        """Return when the run's node began, in seconds since 1970."""

    async def connect(self) -> Connection:
        """Open a connection to its API server."""


@dataclass
class Runner:
    """Makes runs on a stack and waits for their end."""

    stack: Stack
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def together(self, count: int) -> Sequence[float]:
        """Create runs at once and wait for all."""
        await self._run([f"run-{next(self._numbers)}" for _ in range(count)])
        return ()

    async def one_by_one(self, count: int) -> Sequence[float]:
        """Create a run, wait for its end, create the next; return how long each one's node took to begin."""
        taken = []
        for _ in range(count):
            begun = time.time()
            [item] = await self._run([f"run-{next(self._numbers)}"])
            taken.append(await self.stack.node_started(item) - begun)
        return taken

    async def _run(self, names: list[str]) -> list[dict[str, Any]]:
        connection, watcher = await self.stack.connect(), await self.stack.connect()
        _, answer = await connection.request("GET", f"{self.stack.path}?limit=1")
        since = orjson.loads(answer)["metadata"]["resourceVersion"]
        stream = await watcher.stream(f"{self.stack.path}?watch=1&resourceVersion={since}")
        bodies = [self.stack.body(name) for name in names]
        ended = asyncio.create_task(self._ended(stream, {body["metadata"]["name"] for body in bodies}))
        for body in bodies:
            status, answer = await connection.request("POST", self.stack.path, orjson.dumps(body))
            if status != 201:
                raise RuntimeError(f"create a run: {status} {answer[:500]!r}")
        async with asyncio.timeout(_DEADLINE_SECONDS):
            items = await ended
        connection.drop()
        watcher.drop()
        return items

    async def _ended(self, stream: AsyncIterator[bytes], missing: set[str]) -> list[dict[str, Any]]:
        rest, items = b"", []
        async for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                item = orjson.loads(line)["object"]
                if item["metadata"]["name"] in missing and self.stack.finished(item):
                    missing.discard(item["metadata"]["name"])
                    items.append(item)
            if not missing:
                return items
        raise RuntimeError("the watch ended")


@dataclass
class Fairlead:
    """Everything that `fairlead up` starts."""

    workflow: str
    url: str
    token: str
    context: ssl.SSLContext
    storage: Storage
    pids: list[int]
    path: str = _RUNS

    def body(self, name: str) -> dict[str, Any]:
        """Return a WorkflowRun."""
        spec = {"workflowRef": {"name": self.workflow}}
        return {**_FAIRLEAD, "kind": "WorkflowRun", "metadata": {"name": f"{self.workflow}-{name}"}, "spec": spec}

    def finished(self, item: dict[str, Any]) -> bool:
        """Look at the condition."""
        conditions = {each["type"]: each for each in item.get("status", {}).get("conditions", ())}
        if conditions.get("Succeeded", {}).get("status") == "False":
            raise RuntimeError(conditions["Succeeded"]["message"])
        return bool(conditions.get("Finished", {}).get("status") == "True")

    async def node_started(self, item: dict[str, Any]) -> float:
        """Look into the journal."""
        [task] = await self.storage.tasks_of_run(item["metadata"]["uid"])
        journal = await self.storage.journal(task.id)
        return datetime.fromisoformat(
            next(entry["at"] for entry in journal if entry["kind"] == "NodeStarted")
        ).timestamp()

    async def connect(self) -> Connection:
        """Open a connection to its API server."""
        return await Connection.open(self.url, context=self.context, token=self.token)


@dataclass
class Naive:
    """An API server, a pod runtime and the naive operator."""

    server: ApiServer
    pids: list[int]
    path: str = f"/apis/{GROUP}/{VERSION}/namespaces/default/{PLURAL}"

    def body(self, name: str) -> dict[str, Any]:
        """Return a run."""
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "NaiveRun", "metadata": {"name": name}, "spec": {}}

    def finished(self, item: dict[str, Any]) -> bool:
        """Look at the phase."""
        phase = item.get("status", {}).get("phase")
        if phase == "Failed":
            raise RuntimeError("the pod failed")
        return phase == "Succeeded"

    async def node_started(self, item: dict[str, Any]) -> float:
        """Look at the time of the first line of the pod's log."""
        name = item["metadata"]["name"]
        assert self.server.pod_log_dir is not None
        [log] = self.server.pod_log_dir.glob(f"default_{name}_*/agent/0.log")
        return datetime.fromisoformat(log.read_text().split(" ", 1)[0]).timestamp()

    async def connect(self) -> Connection:
        """Open a connection to its API server."""
        context = ssl.create_default_context(cafile=str(self.server.ca_file))
        return await Connection.open(self.server.url, context=context, token=self.server.admin_token)


@asynccontextmanager
async def fairlead(home: Path) -> AsyncIterator[list[Fairlead]]:
    """Start everything in a home of its own; yield a stack for each workflow.

    One has a pod for each run, one a warm pool, and one is a chain of `CHAIN` nodes on that pool.
    """
    environment = os.environ | {"FAIRLEAD_HOME": str(home), "FAIRLEAD_RUNTIME": "process"}  # as the naive operator
    program = Path(sys.executable).with_name("fairlead")

    async def call(*arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            program, *arguments, env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            raise RuntimeError(f"fairlead {' '.join(arguments)} failed")

    await call("up", "--detach")
    storage = open_storage(f"sqlite:///{home / 'fairlead.db'}")
    try:
        stacks = [_stack(home, storage, workflow=workflow) for workflow in ("alone", "warm", "chain")]
        await _apply(stacks[0], "/apis/fairlead.dev/v1alpha1/namespaces/default", _objects())
        yield stacks
    finally:
        await storage.aclose()
        await call("down")


def _stack(home: Path, storage: Storage, *, workflow: str) -> Fairlead:
    config = yaml.safe_load((home / "kubeconfig").read_text())
    cluster = config["clusters"][0]["cluster"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    token = config["users"][0]["user"]["token"]
    supervisor = orjson.loads((home / "supervisor.json").read_bytes())["supervisor"]["pid"]
    return Fairlead(workflow, cluster["server"], token, context, storage, [supervisor])


def _objects() -> list[tuple[str, dict[str, Any]]]:
    replies = [{"match": "hello", "reply": "hi there"}]
    specs = [
        ("models", "Model", "default", {"scripted": {"responses": replies}}),
        ("agents", "Agent", "default", {"scale": {"min": 1}, "concurrency": 8}),
        ("workflows", "Workflow", "alone", {"model": "default", "nodes": _NODES}),
        ("workflows", "Workflow", "warm", {"model": "default", "runsOn": {"agent": "default"}, "nodes": _NODES}),
        ("workflows", "Workflow", "chain", {"model": "default", "runsOn": {"agent": "default"}, "nodes": _CHAIN}),
    ]
    return [
        (plural, {**_FAIRLEAD, "kind": kind, "metadata": {"name": name}, "spec": spec})
        for plural, kind, name, spec in specs
    ]


async def _apply(stack: Stack, prefix: str, objects: Sequence[tuple[str, dict[str, Any]]]) -> None:
    connection = await stack.connect()
    for plural, item in objects:
        status, answer = await connection.request("POST", f"{prefix}/{plural}", orjson.dumps(item))
        if status != 201:
            raise RuntimeError(f"create {item['kind']}: {status} {answer[:500]!r}")
    connection.drop()


@asynccontextmanager
async def _naive(folder: Path) -> AsyncIterator[Naive]:
    """Start an API server, a pod runtime and the naive operator."""
    with running_apiserver(folder) as server:
        assert server.process is not None
        assert server.pod_log_dir is not None
        stack = Naive(server, [server.process.pid])
        await _apply(stack, "/apis/apiextensions.k8s.io/v1", [("customresourcedefinitions", _definition())])
        runtime = ["fairlead.localcluster.podruntime", "--kubeconfig", str(server.kubeconfig)]
        runtime += ["--pods-dir", str(folder / "pods"), "--log-dir", str(server.pod_log_dir)]
        operator = ["kopf", "run", str(Path(__file__).with_name("naive_operator.py")), "--all-namespaces", "--quiet"]
        children = [await _python(arguments, server) for arguments in (runtime, operator)]
        stack.pids += [child.pid for child in children]
        try:
            yield stack
        finally:
            for child in children:
                child.terminate()
                await child.wait()


async def _python(arguments: list[str], server: ApiServer) -> asyncio.subprocess.Process:
    environment = os.environ | {"KUBECONFIG": str(server.kubeconfig)}
    output = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env=environment, stdout=output, stderr=output
    )


def _definition() -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    version = {"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": PLURAL, "singular": "naiverun", "kind": "NaiveRun"}
    spec = {
        "group": GROUP,
        "scope": "Namespaced",
        "names": names,
        "versions": [version | {"subresources": {"status": {}}}],
    }
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": f"{PLURAL}.{GROUP}"}, "spec": spec}


@asynccontextmanager
async def comparisons(folder: Path) -> AsyncIterator[list[Comparison]]:
    """Start both systems and yield what to compare."""
    async with _naive(folder / "naive") as naive, fairlead(folder / "home") as (alone, warm, _):
        stacks = {"naive operator": naive, "Fairlead, a pod per run": alone, "Fairlead, warm pool": warm}
        runners = {name: Runner(stack) for name, stack in stacks.items()}
        for runner in runners.values():  # everything is there, and has been used, before anything is measured
            await runner.one_by_one(1)

        def arms(what: str) -> list[Arm]:
            return [
                Arm(name, getattr(runner, what), lambda pids=runner.stack.pids: pids)
                for name, runner in runners.items()
            ]

        yield [
            Comparison("a run of one node, 8 created at once", 8, arms("together")),
            Comparison("a run of one node, one after another; until its node began", 3, arms("one_by_one")),
            Comparison("the same on the warm pool, more often", 15, arms("one_by_one")[2:]),
        ]
