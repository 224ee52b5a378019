from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config

from fairlead.testing.apiserver import ApiServer

Json = dict[str, Any]
WIDGETS = "example.com"


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


class Api:
    """Plain requests with the rights of a kubeconfig, or with another token."""

    def __init__(self, kubeconfig: Path, *, token: str | None = None, headers: dict[str, str] | None = None) -> None:
        self._kubeconfig = kubeconfig
        self.client = config.new_client_from_config(config_file=str(kubeconfig))
        self.url = self.client.configuration.host
        self._headers = dict(headers or {})
        keys = self.client.configuration.api_key
        authorization = keys.get("BearerToken") or keys.get("authorization")
        if token is not None:
            authorization = f"Bearer {token}" if token else None
        if authorization:
            self._headers["Authorization"] = authorization

    def acting(self, *, token: str | None = None, **headers: str) -> Api:
        return Api(self._kubeconfig, token=token, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def send(
        self, method: str, path: str, body: Any = None, *, content: str = "application/json", **headers: str
    ) -> Answer:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        every = {**self._headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if data is not None:
            every["Content-Type"] = content
        pool = self.client.rest_client.pool_manager
        answer = pool.request(method, self.url + path, body=data, headers=every, retries=False)
        try:
            parsed = json.loads(answer.data)
        except ValueError:
            parsed = answer.data.decode()
        return Answer(answer.status, parsed, {name.lower(): value for name, value in answer.headers.items()})

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.send("POST", path, body, **headers)

    def put(self, path: str, body: Any) -> Answer:
        return self.send("PUT", path, body)

    def merge(self, path: str, body: Any) -> Answer:
        return self.send("PATCH", path, body, content="application/merge-patch+json")

    def json_patch(self, path: str, body: Any) -> Answer:
        return self.send("PATCH", path, body, content="application/json-patch+json")

    def apply(self, path: str, body: Any, *, manager: str = "test", force: bool = False) -> Answer:
        query = f"?fieldManager={manager}" + ("&force=true" if force else "")
        return self.send("PATCH", path + query, body, content="application/apply-patch+yaml")

    def delete(self, path: str, body: Any = None) -> Answer:
        return self.send("DELETE", path, body)

    def watch(self, path: str, *, seconds: int = 5, accept: str = "application/json") -> Iterator[Json]:
        """Yield events until the server ends the watch."""
        headers = {**self._headers, "Accept": accept}
        joint = "&" if "?" in path else "?"
        url = f"{self.url}{path}{joint}watch=true&timeoutSeconds={seconds}"
        answer = self.client.rest_client.pool_manager.request("GET", url, headers=headers, preload_content=False)
        rest = b""
        try:
            for chunk in answer.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        finally:
            answer.close()


def eventually(condition: Callable[[], Any], *, seconds: float = 10.0) -> Any:
    """Return the first true value of *condition*."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
    return value


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


@pytest.fixture(scope="session")
def api(cluster: ApiServer) -> Api:
    return Api(cluster.kubeconfig)


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace for one test, with its default service account."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    created = api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    assert created.status == 201
    eventually(lambda: api.get(f"/api/v1/namespaces/{name}/serviceaccounts/default").status == 200)
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


WIDGET_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "color": {"type": "string", "default": "red"},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "weight": {"type": "integer"}},
                    },
                },
            },
            "x-kubernetes-validations": [
                {"rule": "self.size >= oldSelf.size", "message": "a widget does not shrink"},
            ],
        },
        "status": {
            "type": "object",
            "properties": {
                "phase": {"type": "string"},
                "replicas": {"type": "integer"},
                "conditions": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
                    },
                },
            },
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
}
WIDGET_CRD: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": WIDGETS,
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wg"], "categories": ["gadgets"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": WIDGET_SCHEMA},
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"},
                },
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }
        ],
    },
}


@pytest.fixture(scope="session")
def widgets(api: Api) -> Iterator[str]:
    """The path of a custom resource's API, for the whole session."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert api.post(path, WIDGET_CRD).status in {201, 409}
    root = f"/apis/{WIDGETS}/v1"
    eventually(lambda: api.get(root).status == 200)
    eventually(lambda: api.get(f"{root}/widgets").status == 200)
    yield root
    api.delete(f"{path}/widgets.example.com")


def widget(name: str, **spec: Any) -> Json:
    return {"apiVersion": f"{WIDGETS}/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 1, **spec}}


@pytest.fixture(name="widget")
def _widget() -> Callable[..., Json]:
    return widget


def configmap(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture(name="configmap")
def _configmap() -> Callable[..., Json]:
    return configmap


@dataclass
class Kubectl:
    """The real kubectl, with a home of its own."""

    environment: dict[str, str]
    namespace: str

    def __call__(self, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        done = subprocess.run(
            command, input=stdin, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode != 0) is fails, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if fails else "")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def kubectl(cluster: ApiServer, namespace: str, tmp_path: Path) -> Kubectl:
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    return Kubectl({**kept, "HOME": str(tmp_path), "KUBECONFIG": str(cluster.kubeconfig)}, namespace)
