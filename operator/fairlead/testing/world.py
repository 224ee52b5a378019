"""A gateway with its cluster and storage, and agent pods that a test plays: what functional tests of the wire use."""

from __future__ import annotations

import ssl
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from fairlead.core import names
from fairlead.kube import KubeClient
from fairlead.storage import Storage
from fairlead.storage.base import QueuedTask, Revision, Run
from fairlead.testing.apiserver import ApiServer
from fairlead.testing.gateway import (
    GatewayProcess,
    create_agent_pod,
    gateway_authority,
    start_gateway,
    stop_gateway,
)
from fairlead.testing.storage import NOW
from fairlead_agent.protocol import call_key

SCRIPT = {
    "scripted": {
        "responses": [{"match": "hello", "reply": "hi there"}, {"match": "slow", "reply": "late", "latencyMs": 1500}]
    }
}
NODES = [
    {"name": "greet", "llm": {"prompt": "hello"}},
    {"name": "slow", "llm": {"prompt": "slow"}},
    {"name": "count", "tool": {"name": "sql", "arguments": {}}},
    {"name": "fetch", "tool": {"name": "http_request", "arguments": {}}},
    {"name": "cloud", "llm": {"prompt": "x", "model": "cloud"}},
    {"name": "loop", "llm": {"prompt": "x", "tools": ["json_query", "guarded"]}},
    {"name": "declared", "tool": {"name": "declared", "arguments": {}}},
    {"name": "guarded", "tool": {"name": "guarded", "arguments": {}}},
    {"name": "ship", "approval": {"message": "Ship it?"}},
    {"name": "named", "approval": {"message": "Ship it?", "approvers": ["release-team"], "timeoutSeconds": 60}},
    {"name": "fix", "agent": {"name": "engineer", "prompt": "mend it"}},
    {"name": "kept", "llm": {"prompt": "hello"}, "cache": {"ttlSeconds": 60}},
    {"name": "inner", "workflow": {"name": "small"}},
]
SMALL = {"nodes": [{"name": "greet", "llm": {"prompt": "hello"}}]}
ENGINEER = {"model": "default", "instructions": "You mend things.", "tools": ["json_query", "guarded"], "maxTurns": 7}
TOOLS: dict[str, Any] = {
    "guarded": {"builtin": {"name": "json_query", "config": {"expression": "a"}}, "requireApproval": True},
}


@dataclass
class Pod:
    """An agent pod, played by the test."""

    client: httpx.AsyncClient
    name: str
    token: str
    session: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    async def post(self, path: str, body: dict[str, Any], *, token: str | None = None) -> httpx.Response:
        """Send a request as the pod."""
        bearer = self.session if token is None else token
        return await self.client.post(
            f"/v1{path}", json=body, headers={"Authorization": f"Bearer {bearer}"} if bearer else {}
        )

    async def register(self) -> httpx.Response:
        """Present the pod's token; keep the session."""
        answer = await self.post("/register", {"version": "0.1.0", "concurrency": 2}, token=self.token)
        if answer.is_success:
            self.info = answer.json()
            self.session = self.info["session"]
        return answer

    async def claim(self, **asked: Any) -> list[dict[str, Any]]:
        """Ask for tasks."""
        answer = await self.post("/claim", {"limit": 1, "waitSeconds": 0} | asked)
        answer.raise_for_status()
        tasks: list[dict[str, Any]] = answer.json()["tasks"]
        return tasks

    async def task(self, task: dict[str, Any], what: str, **body: Any) -> httpx.Response:
        """Send anything else about a task; *what* is the end of the path: ``park``, ``approvals``."""
        return await self.post(f"/tasks/{task['id']}/{what}", {"attempt": task["attempt"], **body})

    async def call(self, task: dict[str, Any], node: str, *, number: int = 1, **changes: Any) -> httpx.Response:
        """Make a call of the first try of *node*."""
        body = {
            "attempt": task["attempt"],
            "key": call_key(node, None, 1, 1, number),
            "digest": "d1",
            "action": "llm",
            "node": node,
            **changes,
        }
        return await self.post(f"/tasks/{task['id']}/calls", body)

    async def append(self, task: dict[str, Any], first: int, *entries: dict[str, Any], **more: Any) -> httpx.Response:
        """Add entries to the journal."""
        stamped = [{"at": "2026-01-02T03:04:05Z", **entry} for entry in entries]
        body = {"attempt": task["attempt"], "first": first, "entries": stamped, **more}
        return await self.post(f"/tasks/{task['id']}/journal", body)


@dataclass
class World:
    """One namespace with a gateway of its own."""

    server: ApiServer
    kube: KubeClient
    gateway: GatewayProcess
    storage: Storage
    system_namespace: str
    """The gateway's own."""
    namespace: str
    """Of pods and runs."""
    cluster: str
    folder: Path
    settings: dict[str, str]
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    async def client(self) -> httpx.AsyncClient:
        """Return a client that trusts the authority which the gateway published."""
        authority = await gateway_authority(self.kube, self.system_namespace)
        context = ssl.create_default_context(cadata=authority)
        client = httpx.AsyncClient(base_url=self.gateway.url, verify=context, trust_env=False, timeout=60)
        self.clients.append(client)
        return client

    async def pod(self, name: str, *, agent: str = "default", registered: bool = True, **meta: Any) -> Pod:
        """Create an agent pod."""
        token = await create_agent_pod(self.kube, name, namespace=self.namespace, agent=agent, **meta)
        pod = Pod(await self.client(), name, token)
        if registered:
            answer = await pod.register()
            answer.raise_for_status()
        return pod

    async def submit(self, *, agent: str = "default", **given: Any) -> Run:
        """Queue a run of `NODES`.

        *given*: ``models``, ``agents`` and ``tools`` by name, ``run`` (fields of the run), and fields of the workflow's
        spec.
        """
        uid = str(uuid.uuid4())
        parts = {kind: given.pop(kind, None) or {} for kind in ("models", "agents", "tools", "run")}
        spec = {"model": "default", "nodes": NODES, **given}
        document = {
            "workflow": {"name": "triage", "uid": "w", "generation": 1, "spec": spec},
            "workflows": {"small": SMALL},
            "agents": {"engineer": ENGINEER, **parts["agents"]},
            "models": {"default": SCRIPT, **parts["models"]},
            "tools": {**TOOLS, **parts["tools"]},
        }
        revision = Revision(names.digest(document), document)
        run = Run(uid, self.cluster, self.namespace, f"run-{uid[:8]}", "triage", revision.digest, {"message": "m"}, NOW)
        task = QueuedTask(f"{uid}-task", uid, names.agent_pool(self.cluster, self.namespace, agent))
        await self.storage.submit(replace(run, **parts["run"]), revision=revision, task=task)
        return run

    async def person(self, account: str, *verbs: str) -> str:
        """Return a token of a new service account that may do this to the namespace's runs."""
        metadata = {"name": account, "namespace": self.namespace}
        await self.kube.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        if verbs:
            rbac = "rbac.authorization.k8s.io"
            rules = [{"apiGroups": ["fairlead.dev"], "resources": ["workflowruns"], "verbs": list(verbs)}]
            await self.kube.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
            subject = {"kind": "ServiceAccount", "name": account, "namespace": self.namespace}
            ref = {"apiGroup": rbac, "kind": "Role", "name": account}
            binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": metadata}
            await self.kube.create({**binding, "subjects": [subject], "roleRef": ref})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": metadata, "spec": {}}
        answer = await self.kube.create(request, subresource="token", name=account)
        return str(answer["status"]["token"])

    async def decide(self, run: str, *, token: str = "", **answer: Any) -> httpx.Response:
        """Answer an approval as somebody who may, or as the bearer of *token*."""
        bearer = token or await self.person(f"person-{uuid.uuid4().hex[:8]}", "get", "update")
        client = await self.client()
        path = f"/v1/namespaces/{self.namespace}/runs/{run}/approvals"
        return await client.post(path, json=answer, headers={"Authorization": f"Bearer {bearer}"})

    def restart(self) -> None:
        """Stop the gateway and start it again."""
        stop_gateway(self.gateway)
        self.start()

    def start(self) -> None:
        """Start the gateway on the same storage."""
        self.gateway = start_gateway(
            self.folder, kubeconfig=self.server.kubeconfig, namespace=self.system_namespace, **self.settings
        )
