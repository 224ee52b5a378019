"""The real operator on a real API server and a real database; tests play gateway and agent through the storage port."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.core import names
from fairlead.kube import KubeClient
from fairlead.localcluster.apiserver import pki
from fairlead.storage import Storage, open_storage
from fairlead.storage.base import AgentSession, Approval, Claimed, Effects, Fence, RunEnd, RunState
from fairlead.testing.apiserver import ApiServer
from fairlead.testing.kubectl import Kubectl, condition, wait_for
from fairlead.testing.storage import make_approval
from fairlead.testing.system import Service, make_namespace

ROOT = Path(__file__).resolve().parents[3]
MODEL = {"scripted": {"responses": [{"reply": "hello"}]}}
NODES = [{"name": "greet", "llm": {"prompt": "hi"}}]


class Ready(BaseHTTPRequestHandler):
    """Answers ``/readyz`` as the gateway does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@dataclass
class Stage:
    """What stays up for all tests here: the operator, its database, a gateway that only says that it is there."""

    cluster: ApiServer
    kubectl: Kubectl
    operator: Service
    storage_url: str

    def make(self, kind: str, name: str, spec: dict[str, Any], **meta: Any) -> dict[str, Any]:
        """Create an object and return it."""
        obj = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}
        made: dict[str, Any] = json.loads(self.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(obj)))
        return made

    def workflow(self, name: str, **spec: Any) -> dict[str, Any]:
        """Create a workflow of one node that asks the model ``default``."""
        return self.make("Workflow", name, {"model": "default", "nodes": NODES} | spec)

    def run(self, name: str, **spec: Any) -> dict[str, Any]:
        """Create a run."""
        return self.make("WorkflowRun", name, spec)

    def change(self, kind: str, name: str, **spec: Any) -> None:
        """Change fields of an object's spec."""
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def until(self, kind: str, name: str, reason: str, *, of: str = "Ready") -> dict[str, Any]:
        """Wait until a condition of an object has *reason*; return the object."""

        def there() -> dict[str, Any] | None:
            obj = self.kubectl.get(kind, name)
            return obj if condition(obj, of).get("reason") == reason else None

        found: dict[str, Any] = wait_for(f"{kind} {name} with {of} {reason}", there)
        return found

    def pod(self, **labels: str) -> dict[str, Any]:
        """Wait for the one pod that has these labels and is not going."""
        selector = ",".join(f"{names.GROUP}/{key}={value}" for key, value in labels.items())

        def there() -> dict[str, Any] | None:
            pods = [
                pod for pod in self.kubectl.list("pods", "-l", selector) if "deletionTimestamp" not in pod["metadata"]
            ]
            return pods[0] if len(pods) == 1 else None

        found: dict[str, Any] = wait_for(f"a pod with {selector}", there)
        return found

    def calls(self) -> list[dict[str, Any]]:
        """Return what the operator has asked of the API server; Leases are not counted (DESIGN §3)."""
        mine = (
            record for record in self.cluster.audit() if record["userAgent"].startswith(("fairlead-operator", "kopf"))
        )
        return [record for record in mine if record["resource"] != "leases"]

    def writes(self) -> list[dict[str, Any]]:
        """Return those of the calls that write."""
        return [record for record in self.calls() if record["verb"] in {"create", "update", "patch", "delete"}]


@dataclass
class Player:
    """Gateway and agent of one pod, at once."""

    storage: Storage
    kube: KubeClient
    pod: dict[str, Any]
    session: AgentSession
    seconds: int = 15
    tasks: list[Claimed] = field(default_factory=list)

    @property
    def lease(self) -> dict[str, Any]:
        """The Lease as the gateway writes it."""
        meta = self.pod["metadata"]
        labels = {key: value for key, value in meta["labels"].items() if key == names.AGENT_LABEL}
        owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": meta["name"],
                "namespace": meta["namespace"],
                "labels": {**names.PART_OF_LABELS, **labels},
                "ownerReferences": [owner],
            },
            "spec": {
                "holderIdentity": meta["uid"],
                "leaseDurationSeconds": self.seconds,
                "renewTime": now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }

    async def take(self) -> Claimed | None:
        """Take a task if there is one."""
        found = await self.storage.claim(self.session, limit=1, at=now())
        self.tasks += found
        return found[0] if found else None

    async def report(self, claimed: Claimed, *, done: int, total: int, current: tuple[str, ...]) -> None:
        """Say how far a task has come."""
        length = len(await self.storage.journal(claimed.task.id))
        entry = {"kind": "NodeStarted", "node": "greet", "at": now().isoformat()}
        effects = Effects(done=done, total=total, current=current)
        await self.storage.append(self._fence(claimed), first=length, entries=[entry], effects=effects, at=now())

    async def finish(self, claimed: Claimed, output: Any, state: RunState = RunState.SUCCEEDED, **end: str) -> None:
        """End a task."""
        length = len(await self.storage.journal(claimed.task.id))
        entry = {"kind": "RunFinished", "at": now().isoformat()}
        ended = RunEnd(state, end.get("reason", state.value), end.get("message", ""), output, now())
        effects = Effects(done=1, total=1, current=(), end=ended)
        await self.storage.append(self._fence(claimed), first=length, entries=[entry], effects=effects, at=now())

    async def ask(self, claimed: Claimed, node: str, **more: Any) -> Approval:
        """Have people decide, and give the task back until they have."""
        question = make_approval(
            f"{node}/-/1/1/0", claimed.run.uid, task_id=claimed.task.id, cluster=claimed.run.cluster
        )
        named = {"namespace": claimed.run.namespace, "run_name": claimed.run.name}
        asked = replace(question, requested_at=now(), deadline=now() + timedelta(days=1), **named, **more)
        asked = await self.storage.open_approval(self._fence(claimed), asked)
        await self.storage.park(self._fence(claimed), keys=[asked.key], wake_at=None, reason="Approval", at=now())
        return asked

    @staticmethod
    def _fence(claimed: Claimed) -> Fence:
        return Fence(claimed.task.id, claimed.task.session, claimed.task.attempt)


def now() -> datetime:
    """Return the time that the gateway's clock shows."""
    return datetime.now(UTC)  # noqa: TID251 - the test is the gateway


@dataclass
class Play:
    """What one test has: the stage, and adapters on its own event loop."""

    stage: Stage
    storage: Storage
    kube: KubeClient

    async def register(self, pod: dict[str, Any], *, seconds: int = 15) -> Player:
        """Register a pod as the gateway does: Lease, session, announcement."""
        meta = pod["metadata"]
        cluster = (await self.kube.list("v1", "Namespace", field_selector="metadata.name=kube-system"))[0]
        uid = cluster["metadata"]["uid"]
        agent = meta["labels"].get(names.AGENT_LABEL)
        namespace = meta["namespace"]
        if agent:
            pool = names.agent_pool(uid, namespace, agent)
        else:
            pool = names.run_pool(uid, namespace, meta["annotations"][names.POOL_ANNOTATION])
        session = AgentSession(
            id=secrets.token_hex(8),
            token_digest=secrets.token_hex(32),
            cluster=uid,
            namespace=namespace,
            pod=meta["name"],
            pod_uid=meta["uid"],
            pool=pool,
            concurrency=4,
            version="0.1.0",
            capabilities=("llm",),
            created_at=now(),
        )
        player = Player(self.storage, self.kube, pod, session, seconds)
        await self.kube.create(player.lease)
        await self.storage.register(session, at=now())
        return player

    async def claim(self, player: Player) -> Claimed:
        """Wait for a task of the player's pool and take it."""
        for _ in range(400):
            found = await player.take()
            if found is not None:
                return found
            await asyncio.sleep(0.05)
        message = f"no task for {player.session.pool}"
        raise AssertionError(message)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server that says that it is ready, over TLS: its URL and the PEM of its authority."""
    keys = pki.ensure(tmp_path_factory.mktemp("gateway"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ready)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.cert, keys.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", keys.ca_pem()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def stage(cluster: ApiServer, gateway: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The operator as it is installed: the service account and the rights of manifests/base."""
    folder = tmp_path_factory.mktemp("operator")
    kubectl = make_namespace(cluster, folder)
    install(kubectl)
    url, authority = gateway
    published: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.GATEWAY_CA_CONFIGMAP, "namespace": names.SYSTEM_NAMESPACE},
        "data": {names.CA_KEY: authority},
    }
    system = replace(kubectl, namespace=names.SYSTEM_NAMESPACE)
    before = system.get("configmap", names.GATEWAY_CA_CONFIGMAP)
    system("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(published))
    storage = f"sqlite:///{folder}/fairlead.db"
    settings = operator_settings(service_account_kubeconfig(cluster, kubectl, folder), storage, url=url)
    settings["FAIRLEAD_WATCH_NAMESPACES"] = json.dumps([kubectl.namespace])
    operator = Service("fairlead.controllers", settings, folder / "operator.log")
    made = Stage(cluster, kubectl, operator, storage)
    operator.start()
    try:
        made.make("Model", "default", MODEL)
        made.until("model", "default", "Accepted")
        yield made
    finally:
        operator.stop()
        if before is not None:  # of a gateway that is installed there
            published["data"] = before["data"]
            system.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(published))
        else:
            system.run("delete", "configmap", names.GATEWAY_CA_CONFIGMAP, check=False)
        kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false", check=False)


def install(kubectl: Kubectl) -> None:
    """Apply the CRDs and what manifests/base says of namespace and rights."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    kinds = {"Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    rendered = yaml.safe_load_all(kubectl("kustomize", str(ROOT / "manifests" / "base")))
    for document in sorted(rendered, key=lambda found: found["kind"] != "Namespace"):
        if document["kind"] in kinds:
            where = ["-n", document["metadata"]["namespace"]] if "namespace" in document["metadata"] else []
            kubectl("apply", "--server-side", "--force-conflicts", *where, "-f", "-", stdin=json.dumps(document))


def service_account_kubeconfig(cluster: ApiServer, kubectl: Kubectl, folder: Path) -> Path:
    """Return a kubeconfig of the operator's service account."""
    token = kubectl("create", "token", "fairlead-operator", "-n", names.SYSTEM_NAMESPACE, "--duration=2h").strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = folder / "operator.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def operator_settings(kubeconfig: Path, storage: str, *, url: str, **more: str) -> dict[str, str]:
    """Return the environment of an operator that is quick enough for tests."""
    return {
        "FAIRLEAD_KUBECONFIG": str(kubeconfig),
        "FAIRLEAD_STORAGE_URL": storage,
        "FAIRLEAD_GATEWAY_URL": url,
        "FAIRLEAD_IDENTITY": "under-test",
        "FAIRLEAD_AGENT_IMAGE": "fairlead-agent-played-by-the-test:0",
        "FAIRLEAD_AGENT_IMAGE_PULL_POLICY": "Never",
        "FAIRLEAD_PROBE_PORT": "0",
        "FAIRLEAD_LEASE_POLL_SECONDS": "0.5",
        "FAIRLEAD_RESYNC_SECONDS": "2",
        **more,
    }


@pytest.fixture
async def play(stage: Stage) -> AsyncIterator[Play]:
    """The stage, with adapters for one test."""
    storage = open_storage(stage.storage_url)
    kube = await KubeClient.connect(kubeconfig=stage.cluster.kubeconfig, user_agent="tests")
    yield Play(stage, storage, kube)
    await kube.aclose()
    await storage.aclose()
