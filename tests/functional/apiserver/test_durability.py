"""What was acknowledged is there after a kill -9, and versions never go back."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from urllib3.exceptions import HTTPError

from fairlead.testing.apiserver import ApiServer, running_apiserver, start_apiserver, stop_apiserver

pytestmark = pytest.mark.process_runtime
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def connect(api: Any) -> Any:
    def make(server: ApiServer) -> Any:
        return type(api)(server.kubeconfig)

    return make


def write_until_refused(client: Any, worker: int, written: dict[str, int]) -> None:
    """Create and change objects, and note every version that was acknowledged, until the server is gone."""
    number = 0
    while True:
        name = f"w{worker}-{number}"
        try:
            created = client.post(MAPS, {"metadata": {"name": name}, "data": {"n": "0"}})
            assert created.status == 201
            written[name] = int(created["metadata"]["resourceVersion"])
            changed = client.merge(f"{MAPS}/{name}", {"data": {"n": "1"}})
            written[name] = int(changed["metadata"]["resourceVersion"])
        except (OSError, HTTPError):
            return
        number += 1


def test_kill_loses_no_acknowledged_write(tmp_path: Path, connect: Any, eventually: Any) -> None:
    server = start_apiserver(tmp_path)
    assert server.process is not None
    written: dict[str, int] = {}
    writers = [
        threading.Thread(target=write_until_refused, args=(connect(server), worker, written)) for worker in range(4)
    ]
    for writer in writers:
        writer.start()
    eventually(lambda: len(written) > 60, seconds=30)
    server.process.kill()
    server.process.wait()
    for writer in writers:
        writer.join()
    with running_apiserver(tmp_path) as again:
        client = connect(again)
        listed = client.get(MAPS)
        found = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in listed["items"]}
        lost = {name: version for name, version in written.items() if found.get(name, 0) < version}
        assert not lost
        assert int(listed["metadata"]["resourceVersion"]) >= max(written.values())
        fresh = client.post(MAPS, {"metadata": {"name": "fresh"}})
        assert int(fresh["metadata"]["resourceVersion"]) > max(written.values())


def test_restart_keeps_identity_objects_and_ends_old_watches(tmp_path: Path, connect: Any) -> None:
    first = start_apiserver(tmp_path)
    client = connect(first)
    version = client.post(MAPS, {"metadata": {"name": "a"}})["metadata"]["resourceVersion"]
    client.post(MAPS, {"metadata": {"name": "b"}})
    stop_apiserver(first)
    assert first.process is not None
    assert first.process.returncode == 0
    with running_apiserver(tmp_path, port=int(first.url.rpartition(":")[2])) as second:
        assert (second.url, second.admin_token) == (first.url, first.admin_token)
        assert client.get(f"{MAPS}/a")["metadata"]["resourceVersion"] == version
        gone = client.get(f"{MAPS}?watch=true&resourceVersion={version}")
        assert (gone.status, gone["reason"]) == (410, "Expired")
        current = client.get(MAPS)["metadata"]["resourceVersion"]
        assert list(client.watch(f"{MAPS}?resourceVersion={current}", seconds=1)) == []


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with running_apiserver(tmp_path) as server:
        command = [sys.executable, "-m", "fairlead.localcluster.apiserver", "--data-dir", str(server.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Another API server is using" in done.stderr


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "cluster.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    command = [sys.executable, "-m", "fairlead.localcluster.apiserver", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "was written by a newer version" in done.stderr


def test_files_are_the_owners_only(tmp_path: Path) -> None:
    with running_apiserver(tmp_path) as server:
        assert server.data_dir is not None
        open_to_others = [
            path
            for path in server.data_dir.rglob("*")
            if path.stat().st_mode & 0o077 and path.suffix in {".key", ".token", ".db", ".log"}
        ]
        assert open_to_others == []
        assert server.data_dir.stat().st_mode & 0o077 == 0
        assert server.url.startswith("https://127.0.0.1:")


def test_audit_log_says_who_did_what_and_no_secret(cluster: ApiServer, api: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    api.post(
        path, {"metadata": {"name": "s"}, "stringData": {"password": "canary-in-the-audit-log"}}, User_Agent="me/1"
    )
    records = [record for record in cluster.audit() if record["namespace"] == namespace and record["name"] == ""]
    written = [record for record in records if record["resource"] == "secrets"]
    assert [(each["verb"], each["code"], each["user"], each["userAgent"]) for each in written] == [
        ("create", 201, "fairlead-admin", "me/1")
    ]
    assert cluster.audit_log is not None
    assert b"canary" not in cluster.audit_log.read_bytes()


def test_optimistic_locking_lets_no_update_get_lost(api: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    api.post(path, {"metadata": {"name": "counter"}, "data": {"n": "0"}})

    def increment(_: int) -> int:
        client, conflicts = api.acting(token=api_token(api)), 0
        while True:
            current = client.get(f"{path}/counter").body
            current["data"]["n"] = str(int(current["data"]["n"]) + 1)
            answer = client.put(f"{path}/counter", current)
            if answer.status == 200:
                return conflicts
            assert answer.status == 409
            conflicts += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(40)))
    assert api.get(f"{path}/counter")["data"]["n"] == "40"


def api_token(api: Any) -> str:
    return str(api.client.configuration.api_key["BearerToken"]).removeprefix("Bearer ")


def test_pages_are_whole_while_others_write(api: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    for number in range(40):
        api.post(path, {"metadata": {"name": f"kept-{number:02}"}})
    stop = threading.Event()

    def churn() -> None:
        client = api.acting(token=api_token(api))
        while not stop.is_set():
            client.post(path, {"metadata": {"name": "aa"}})
            client.delete(f"{path}/aa")

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        seen: list[str] = []
        token = ""
        while True:
            page = api.get(f"{path}?limit=7&continue={token}")
            seen += [item["metadata"]["name"] for item in page["items"]]
            token = page["metadata"].get("continue", "")
            if not token:
                break
    finally:
        stop.set()
        churning.join()
    assert [name for name in seen if name != "aa"] == [f"kept-{number:02}" for number in range(40)]
