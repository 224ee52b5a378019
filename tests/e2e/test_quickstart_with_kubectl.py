"""The quickstart on a laptop, with plain kubectl and with the command line."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fairlead.localcluster.data import find_data
from fairlead.localcluster.supervisor.processes import Identity
from fairlead.testing.laptop import Laptop

pytestmark = [pytest.mark.process_runtime, pytest.mark.kubectl]

QUICKSTART = str(find_data("configs") / "quickstart")


@pytest.fixture(scope="module")
def finished(laptop: Laptop) -> Laptop:
    """The laptop after the quickstart was applied and has run."""
    laptop.kubectl("apply", "-f", QUICKSTART)
    laptop.kubectl("wait", "run/quickstart", "--for=condition=Finished", "--timeout=110s")
    return laptop


def test_apply_runs_the_quickstart_and_again_changes_nothing(finished: Laptop) -> None:
    assert "condition met" in finished.kubectl("wait", "run/quickstart", "--for=condition=Succeeded", "--timeout=5s")
    again = finished.kubectl("apply", "-f", QUICKSTART).splitlines()
    assert again
    assert all(line.endswith("unchanged") for line in again), again
    server_side = finished.kubectl("apply", "--server-side", "-f", QUICKSTART)
    assert server_side.count("serverside-applied") == len(again)
    assert finished.kubectl.run("diff", "-f", QUICKSTART, check=False).returncode == 0
    assert len(finished.kubectl.list("run")) == 1


def test_get_shows_what_a_person_needs(finished: Laptop) -> None:
    shown = finished.kubectl("get", "flow,run,fagent,llm")
    for expected in ("support-report", "quickstart", "Succeeded", "11/11", "1/1", "scripted"):
        assert expected in shown
    assert "workflowrun.fairlead.dev/quickstart" in finished.kubectl("get", "run", "-o", "name")
    assert "default-0" in finished.kubectl("get", "run", "-o", "wide")
    assert len(finished.kubectl("api-resources", "--categories=fairlead", "-o", "name").split()) == 5
    assert "prompt" in finished.kubectl("explain", "workflow.spec.nodes", "--recursive")
    assert finished.kubectl("auth", "can-i", "create", "workflowruns.fairlead.dev").strip() == "yes"


def test_describe_logs_leases_and_events(finished: Laptop) -> None:
    described = finished.kubectl("describe", "run", "quickstart")
    assert "Succeeded" in described
    assert "registered" in finished.kubectl("logs", "default-0")
    (lease,) = [lease for lease in finished.kubectl.list("lease") if lease["metadata"]["name"] == "default-0"]
    assert lease["metadata"]["ownerReferences"][0]["kind"] == "Pod"
    assert "Started container agent" in finished.kubectl("get", "events")


def test_reading_commands_show_the_run(finished: Laptop) -> None:
    assert finished("output", "quickstart").startswith("# Support report")
    assert finished("output") == finished("output", "@latest")
    assert "[classify] succeeded" in finished("logs", "quick")
    assert "[classify]" not in finished("logs", "quickstart", "load")
    assert "classify x240" in finished("trace", "quickstart")
    spans = json.loads(finished("trace", "quickstart", "-o", "json"))
    assert sum(span["kind"] == "item" and span["name"].startswith("classify[") for span in spans) == 240
    assert "support-report" in finished("cost", "-A")
    record = json.loads(finished("cost", "quickstart", "-o", "json"))
    assert record["usage"]["inputTokens"] > 10_000


def test_explaining_commands_agree_with_the_run(finished: Laptop) -> None:
    profile = json.loads(finished("profile", "quickstart", "-o", "json"))
    assert abs(sum(part["seconds"] for part in profile["shares"].values()) - profile["seconds"]) < 1e-6
    assert abs(sum(part["seconds"] for part in profile["criticalPath"]) - profile["seconds"]) < 1e-6
    assert next(node for node in profile["nodes"] if node["node"] == "classify")["executions"] == 240
    assert f"the run waited longest for {profile['slowestNode']}" in finished("profile", "quickstart")
    assert "runs wait longest for" in finished("profile", "support-report")
    costs = json.loads(finished("cost", "quickstart", "-o", "json"))
    assert sum(row["usage"]["inputTokens"] for row in costs["items"]) == costs["usage"]["inputTokens"]
    assert "classify" in finished("cost", "support-report", "--by", "node")
    plan = json.loads(finished("plan", "support-report", "-o", "json"))
    assert plan["waves"][0] == ["load"]
    assert {one["there"] for one in plan["needs"]} == {True}
    assert next(node for node in plan["nodes"] if node["node"] == "classify")["executions"]["most"] == 240
    assert 'no Workflow "support-report"' in finished.run("plan", "support-report", "-n", "kube-public", code=3).stderr


def test_get_prints_every_format(finished: Laptop) -> None:
    assert "quickstart" in finished("get", "runs")
    assert "workflowrun.fairlead.dev/quickstart" in finished("get", "run", "-o", "name")
    assert json.loads(finished("get", "run", "quickstart", "-o", "json"))["kind"] == "WorkflowRun"
    assert json.loads(finished("get", "llm", "-o", "json"))["kind"] == "List"
    assert "kind: Agent" in finished("get", "fagent", "default", "-o", "yaml")
    assert "NAMESPACE" in finished("get", "pods", "-A")
    assert "No resources found" in finished.run("get", "run", "-n", "kube-system").stderr
    assert "MESSAGE" in finished("get", "run", "-o", "wide")


def test_commands_say_what_they_do_not_find(finished: Laptop) -> None:
    assert 'no run "quickstrat"' in finished.run("trace", "quickstrat", code=4).stderr
    assert 'did you mean "quickstart"' in finished.run("trace", "quickstrat", code=4).stderr
    assert 'no workflow "nothing"' in finished.run("run", "nothing", code=4).stderr
    assert "no resource type" in finished.run("get", "gizmos", code=4).stderr


def test_agent_killed_in_the_middle_does_not_lose_or_repeat_work(finished: Laptop) -> None:
    following = finished.command("run", "support-report", "--name", "killed", "--watch")
    finished.wait_for("classify to be half done", lambda: _items_done(finished, "killed") > 60)
    pod = finished.kubectl.get("pod", "default-0")
    assert Identity.of(finished.agent_pid()).signal(signal.SIGKILL)
    out, err = following.communicate(timeout=150)
    assert following.returncode == 0, out + err
    _check_nothing_ran_twice(finished.journal("killed"))
    after = finished.kubectl.get("pod", "default-0")
    assert pod is not None
    assert after is not None
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] >= 1
    assert finished("output", "killed") == finished("output", "quickstart")


def test_supervisor_killed_in_the_middle_goes_on_where_it_was(finished: Laptop) -> None:
    finished("run", "support-report", "--name", "crashed")
    finished.wait_for("classify to be half done", lambda: _items_done(finished, "crashed") > 60)
    before = finished.state
    agent = Identity.of(finished.agent_pid())
    finished.crash()
    assert not agent.alive()
    finished.up()
    assert dict(finished.state.ports) == dict(before.ports)
    finished.kubectl("wait", "run/crashed", "--for=condition=Finished", "--timeout=110s")
    assert "condition met" in finished.kubectl("wait", "run/crashed", "--for=condition=Succeeded", "--timeout=5s")
    _check_nothing_ran_twice(finished.journal("crashed"))
    assert finished("output", "crashed") == finished("output", "quickstart")


def _items_done(laptop: Laptop, run: str) -> int:
    if laptop.find(run) is None:
        return 0
    return sum(entry["kind"] == "ItemFinished" for entry in laptop.journal(run))


def _check_nothing_ran_twice(journal: list[dict[str, Any]]) -> None:
    ended: set[tuple[str, str | None]] = set()
    for entry in journal:
        key = (entry.get("node", ""), entry.get("item"))
        if entry["kind"] in ("ItemFinished", "NodeFinished"):
            assert key not in ended, f"{key} finished twice"
            ended.add(key)
        elif entry["kind"] in ("ItemStarted", "NodeStarted"):
            assert key not in ended, f"{key} was started again after it had finished"
    assert sum(item is not None and node == "classify" for node, item in ended) == 240
    assert {entry["attempt"] for entry in journal} >= {1, 2}


def test_backup_taken_while_it_runs_goes_on_in_another_home(finished: Laptop, spare: Laptop, tmp_path: Path) -> None:
    import tarfile

    file = tmp_path / "copy.tar.gz"
    assert finished("backup", str(file)).strip() == str(file)
    with tarfile.open(file) as archive:
        archive.extractall(spare.home.root, filter="data")
    finished("down")
    spare.up()
    assert spare("output", "quickstart").startswith("# Support report")
    assert "quickstart" in spare.kubectl("get", "run")
    spare("down")
    finished.up()


def test_delete_takes_what_belongs_to_it(finished: Laptop) -> None:
    finished.kubectl("delete", "fagent", "default")
    finished.wait_for("its pods to go", lambda: not finished.kubectl.list("pods"))
    finished.wait_for("their leases to go", lambda: not finished.kubectl.list("lease"))
    finished.kubectl("delete", "-f", QUICKSTART, "--ignore-not-found")
    assert not finished.kubectl.list("flow")
