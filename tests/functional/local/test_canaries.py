"""Secrets with a mark, planted in a system that really runs: afterwards everything is searched for them."""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fairlead.localcluster.supervisor.home import Home
from fairlead.testing.laptop import Laptop
from fairlead.testing.standins import Failure, StandIn, running_standin

pytestmark = [pytest.mark.process_runtime, pytest.mark.kubectl]

KEY = "canary/key+93b1f6d2a7"
"""A provider's key: in its Secret and in requests to the provider, and nowhere else."""
ARGUMENT = "canary-argument-5c08e2"
"""A credential that somebody wrote into a workflow: where the workflow is kept, and nowhere else."""
API = "fairlead.dev/v1alpha1"
TOKEN = re.compile(rb"eyJ[\w-]{10,}\.[\w-]{10,}\.")
"""A service account's token."""
REQUEST = {"url": "http://127.0.0.1:9/", "headers": {"Authorization": f"Bearer {ARGUMENT}", "X-Api-Key": ARGUMENT}}


def forms(secret: str) -> list[bytes]:
    """Return how a secret may be written."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return [each.encode() for each in dict.fromkeys((secret, encoded, quote(secret, safe="")))]


def objects(standin: StandIn) -> list[dict[str, Any]]:
    key = {"valueFrom": {"secretKeyRef": {"name": "provider", "key": "key"}}}
    model = {"model": "openai/gpt-4o-mini", "baseURL": f"{standin.url}/v1", "apiKey": key, "retries": 0}
    request = {"name": "http_request", "arguments": REQUEST}
    wrong = {"name": "http_request", "arguments": {**REQUEST, "body": "a", "json": 1}}
    query = {"name": "http_request", "arguments": {"url": f"http://127.0.0.1:9/?token={ARGUMENT}"}}
    nodes: list[dict[str, Any]] = [
        {"name": "refused", "llm": {"prompt": "first"}, "onError": "Continue"},
        {"name": "broken", "needs": ["refused"], "llm": {"prompt": "second"}, "onError": "Continue"},
        {"name": "fine", "needs": ["broken"], "llm": {"prompt": "third"}},
        {"name": "request", "tool": request, "onError": "Continue"},
        {"name": "wrong", "tool": wrong, "onError": "Continue"},
        {"name": "query", "tool": query, "onError": "Continue"},
    ]
    described = [
        ("Model", "cloud", model),
        ("Agent", "default", {"concurrency": 4}),
        ("Workflow", "canaries", {"model": "cloud", "runsOn": {"agent": "default"}, "nodes": nodes}),
        ("WorkflowRun", "canaries", {"workflowRef": {"name": "canaries"}}),
    ]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "provider"}, "stringData": {"key": KEY}}
    return [
        secret,
        *(
            {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
            for kind, name, spec in described
        ),
    ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A home whose only run met every way in which a secret could slip out."""
    laptop = Laptop(Home(tmp_path_factory.mktemp("canaries") / "home"))
    with running_standin() as standin:
        standin.failures += [Failure(401, f"wrong key {KEY}"), Failure(500, f"{KEY} and {KEY[:-2]}")]
        laptop.up()
        try:
            laptop.kubectl.apply(*objects(standin))
            laptop.kubectl("wait", "workflowrun/canaries", "--for=condition=Finished", "--timeout=120s")
            assert [seen.headers["authorization"] for seen in standin.asked] == [f"Bearer {KEY}"] * 3
            yield laptop
        finally:
            laptop.run("down", code=None)


def files(laptop: Laptop, *without: str) -> dict[Path, bytes]:
    """Return every file of the home but those whose names begin with *without*."""
    found = (path for path in laptop.home.root.rglob("*") if path.is_file() and not path.is_symlink())
    return {path: path.read_bytes() for path in found if not path.name.startswith(without)}


def shown(laptop: Laptop) -> str:
    """Return everything that people can read of the run."""
    said = [laptop.run(*command, "canaries", code=None) for command in (["output"], ["logs"], ["trace"], ["cost"])]
    parts = [laptop.read("canaries", part) for part in ("journal", "calls", "trace", "logs")]
    assert all(parts)
    status = (laptop.kubectl.get("workflowrun", "canaries") or {})["status"]
    events = laptop.kubectl.list("events")
    described = laptop.kubectl("describe", "workflowrun,pod,lease")
    return "".join([*(each.stdout + each.stderr for each in said), json.dumps([parts, status, events]), described])


def test_key_is_in_its_secret_only(ran: Laptop) -> None:
    kept = files(ran, "cluster.db")  # where the Secret is
    assert {ran.home.database, ran.home.logs / "gateway.log"} <= set(kept)
    everything = {str(path): content for path, content in kept.items()} | {"shown": shown(ran).encode()}
    for form in forms(KEY):
        assert [place for place, content in everything.items() if form in content] == []
    objects = ran.kubectl(
        "get", "all,cm,lease,pod,events,workflow,workflowrun,model,agents.fairlead.dev", "-A", "-o", "json"
    )
    assert "canaries" in objects
    assert not [form for form in forms(KEY) if form.decode() in objects]


def test_credential_in_arguments_is_where_the_workflow_is_kept_only(ran: Laptop) -> None:
    kept = files(ran, "cluster.db", "fairlead.db")
    everything = {str(path): content for path, content in kept.items()} | {"shown": shown(ran).encode()}
    with sqlite3.connect(f"file:{ran.home.database}?mode=ro", uri=True) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: repr(database.execute(f'SELECT * FROM "{name}"').fetchall()).encode() for name in tables}  # noqa: S608
    assert ARGUMENT.encode() in rows.pop("revisions")
    assert {"calls", "spans", "journal", "runs", "nodes", "sessions"} <= set(rows)
    assert [place for place, content in (everything | rows).items() if ARGUMENT.encode() in content] == []


def test_tokens_are_in_no_log_and_no_table(ran: Laptop) -> None:
    logs = {path: content for path, content in files(ran, "cluster.db").items() if path.suffix in {".log", ".db"}}
    assert [path for path, content in logs.items() if TOKEN.search(content)] == []


def test_agent_process_has_nothing_to_give_away(ran: Laptop) -> None:
    process = Path("/proc") / str(ran.agent_pid())
    environment = dict(line.split("=", 1) for line in (process / "environ").read_text().split("\0") if "=" in line)
    assert environment["FAIRLEAD_GATEWAY_URL"].startswith("https://127.0.0.1:")
    assert not {"KUBECONFIG", "FAIRLEAD_KUBECONFIG", "FAIRLEAD_STORAGE_URL", "FAIRLEAD_HOME"} & set(environment)
    for content in ((process / "environ").read_bytes(), (process / "cmdline").read_bytes()):
        assert not TOKEN.search(content)
        assert b"canary" not in content
    pod = ran.kubectl.list("pod")[0]
    assert "canary" not in json.dumps(pod)
    assert not pod["spec"]["automountServiceAccountToken"]


def test_backup_is_for_its_owner_only(ran: Laptop, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ran("backup", str(tmp_path / "copy.tar.gz"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "copy.tar.gz").stat().st_mode) == 0o600
    with tarfile.open(tmp_path / "copy.tar.gz") as archive:
        assert [member.name for member in archive if member.isfile() and member.mode & 0o077] == []
    assert [path.name for path in tmp_path.iterdir()] == ["copy.tar.gz"]
