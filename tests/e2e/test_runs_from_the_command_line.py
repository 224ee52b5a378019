"""Exit codes and streams of `fairlead run`, with a real agent."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.testing.kubectl import free_port
from fairlead.testing.laptop import Laptop
from fairlead.testing.remoteagent import running_remote_agent

pytestmark = pytest.mark.process_runtime


def kind(name: str, spec: dict[str, Any], *, kind: str = "Workflow") -> dict[str, Any]:
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def workflow(name: str, prompt: str) -> dict[str, Any]:
    inputs = [{"name": "count", "type": "integer", "default": 1}]
    node = {"name": "say", "llm": {"prompt": prompt}}
    spec = {"model": "m", "runsOn": {"agent": "a"}, "inputs": inputs, "nodes": [node], "output": "{{ outputs.say }}"}
    return kind(name, spec)


def pausing(name: str) -> dict[str, Any]:
    nodes = [{"name": "pause", "wait": {"seconds": 1}}, {"name": "say", "needs": ["pause"], "llm": {"prompt": "count"}}]
    return kind(name, {"model": "m", "runsOn": {"agent": "a"}, "nodes": nodes, "output": "{{ outputs.say }}"})


RESPONSES = [
    {"match": "^slow", "reply": "at last", "latencyMs": 30_000},
    {"match": "^endless", "reply": "never", "latencyMs": 600_000},
    {"match": "^bad", "error": {"status": 400, "message": "no such thing"}},
    {"match": "^count", "reply": "counted"},
]


@pytest.fixture(scope="module")
def ready(laptop: Laptop, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    objects = [
        kind("m", {"scripted": {"responses": RESPONSES}}, kind="Model"),
        kind("a", {"model": "m"}, kind="Agent"),
        workflow("good", "count to {{ inputs.count }}"),
        workflow("bad", "bad"),
        workflow("slow", "slow"),
        workflow("endless", "endless"),
        pausing("pausing"),
    ]
    file = tmp_path_factory.mktemp("objects") / "all.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    said = laptop("apply", "-f", str(file))
    assert said.count("created") == len(objects)
    assert laptop("apply", "-f", str(file)).count("unchanged") == len(objects)
    return laptop


def test_run_without_waiting_says_what_to_do_next(ready: Laptop) -> None:
    done = ready.run("run", "good")
    assert done.stdout.startswith("workflowrun.fairlead.dev/good-")
    assert done.stdout.endswith(" created\n")
    assert "logs -f good-" in done.stderr


def test_run_that_succeeds_gives_its_output(ready: Laptop) -> None:
    done = ready.run("run", "good", "-i", "count=3", "--name", "good-3", "--wait")
    assert done.stdout == "workflowrun.fairlead.dev/good-3 created\n"
    assert "good-3  Succeeded" in done.stderr
    assert ready("output", "good-3") == "counted\n"
    assert '"count": 3' in ready("get", "run", "good-3", "-o", "json")


def test_run_that_is_watched_shows_each_node(ready: Laptop) -> None:
    assert "Succeeded  say" in ready.run("run", "good", "--watch").stderr


def test_run_with_logs_prints_them(ready: Laptop) -> None:
    assert "[say] succeeded" in ready("run", "good", "--logs")


def test_run_that_is_refused_says_so_everywhere_and_can_be_tried_again(ready: Laptop, tmp_path: Path) -> None:
    file = tmp_path / "refused.yaml"
    spec = {"workflowRef": {"name": "good"}, "inputs": {"count": "many"}}
    file.write_text(yaml.safe_dump(kind("refused", spec, kind="WorkflowRun")))
    done = ready.run("run", str(file), "--logs", code=1)
    assert "refused  InvalidInputs\n" in done.stderr
    assert "Again: fairlead rerun refused --watch" in done.stderr.replace("main.py", "fairlead")
    for command in (("logs", "-f"), ("logs",), ("output",), ("trace",)):
        assert "refused did not begin: InvalidInputs: " in ready.run(*command, "refused", code=4).stderr
    again = ready.run("rerun", "refused", "-i", "count=2", "--wait")
    assert "refused did not begin, so all of it is done" in again.stderr


def test_logs_of_a_node_that_is_not_there_say_so(ready: Laptop) -> None:
    ready.run("run", "good", "--name", "good-logs", "--wait")
    assert 'good-logs has no node "nobody"; it has say' in ready.run("logs", "good-logs", "nobody", code=4).stderr
    assert "[say] started" in ready("logs", "good-logs", "say")


def test_cost_of_a_name_that_nothing_has_is_an_error_and_no_empty_table(ready: Laptop) -> None:
    done = ready.run("cost", "nobody", code=4)
    assert 'there is no workflow and no run "nobody"' in done.stderr
    assert done.stdout == ""
    assert "total" in ready("cost", "pausing")


def test_run_of_a_file_needs_no_object(ready: Laptop, tmp_path: Path) -> None:
    file = tmp_path / "inline.yaml"
    file.write_text(yaml.safe_dump(workflow("inline", "count")))
    assert "inline-" in ready("run", str(file), "--wait")
    assert "workflow.fairlead.dev/inline" not in ready("get", "flow", "-o", "name")


def test_run_of_a_file_with_a_broken_graph_is_refused_before_a_run_is_made(ready: Laptop, tmp_path: Path) -> None:
    broken = workflow("broken", "count")
    broken["spec"]["nodes"][0]["needs"] = ["nobody"]
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump(broken))
    done = ready.run("run", str(file), "--watch", code=3)
    assert 'node "say": needs unknown node "nobody"' in done.stderr
    assert str(file) in done.stderr
    assert "broken" not in ready("get", "run", "-o", "name")


def test_run_can_say_only_its_name(ready: Laptop) -> None:
    assert ready("run", "good", "--name", "named", "-o", "name") == "workflowrun.fairlead.dev/named\n"
    ready("wait", "named")


def test_run_that_is_watched_is_never_silent_for_long(ready: Laptop) -> None:
    following = ready.command("run", "slow", "--name", "slow-4", "--watch")
    assert following.stderr is not None
    lines = iter(following.stderr.readline, "")
    assert any(" …  " in line and "say" in line for line in lines)
    ready("stop", "slow-4")
    following.communicate(timeout=60)


def test_suspended_run_does_nothing_until_it_is_resumed(ready: Laptop, tmp_path: Path) -> None:
    file = tmp_path / "pausing-1.yaml"
    spec = {"workflowRef": {"name": "pausing"}, "suspend": True}
    file.write_text(yaml.safe_dump(kind("pausing-1", spec, kind="WorkflowRun")))
    ready("run", str(file))
    assert ready("suspend", "pausing-1") == "workflowrun.fairlead.dev/pausing-1 suspended\n"
    ready.wait_for("it to be suspended", lambda: "Suspended" in ready("get", "run", "pausing-1"))
    assert ready.run("wait", "pausing-1", "--timeout", "1s", code=124).stderr.startswith("pausing-1 is not there yet")
    ready("resume", "pausing-1")
    ready("wait", "pausing-1", "--timeout", "2m")
    assert ready("output", "pausing-1") == "counted\n"
    assert "has ended already" in ready.run("suspend", "pausing-1").stderr


def test_rerun_reuses_what_is_the_same(ready: Laptop) -> None:
    ready("run", "good", "-i", "count=5", "--name", "five", "--wait")
    said = ready.run("rerun", "five", "--name", "five-again", "--wait")
    assert said.stdout == "workflowrun.fairlead.dev/five-again created\n"
    assert "1 reused" in said.stderr
    assert ready.read("five-again", "calls") == []
    ready("rerun", "five", "--from", "start", "--name", "five-anew", "--wait")
    assert len(ready.read("five-anew", "calls")) == 1


def test_rerun_reads_inputs_as_the_workflow_that_it_runs_declares_them(ready: Laptop, tmp_path: Path) -> None:
    file = tmp_path / "passing.yaml"

    def revision() -> str:
        found = ready.kubectl.get("workflow", "passing") or {}
        return str(found.get("status", {}).get("revision", ""))

    said = {"name": "say", "tool": {"name": "json_query", "arguments": {"data": "{{ inputs }}", "expression": "@"}}}
    spec = {"inputs": [{"name": "count", "type": "integer"}], "nodes": [said], "output": "{{ outputs.say }}"}
    spec["runsOn"] = {"agent": "a"}
    file.write_text(yaml.safe_dump(kind("passing", spec)))
    ready("apply", "-f", str(file))
    ready("run", "passing", "-i", "count=1", "--name", "pass-1", "--wait")
    spec["inputs"] = [{"name": "count", "type": "string"}]
    file.write_text(yaml.safe_dump(kind("passing", spec)))
    before = revision()
    ready("apply", "-f", str(file))
    ready.wait_for("the change", lambda: revision() not in ("", before))
    ready("rerun", "pass-1", "-i", "count=2", "--name", "pass-2", "--wait")
    assert json.loads(ready("output", "pass-2", "-o", "json")) == {"count": 2}
    ready.kubectl.run("delete", "workflow", "passing")
    ready("rerun", "pass-2", "-i", "count=3", "--name", "pass-3", "--wait")
    assert json.loads(ready("output", "pass-3", "-o", "json")) == {"count": 3}


def test_run_that_fails_ends_with_1_and_says_why(ready: Laptop) -> None:
    done = ready.run("run", "bad", "--wait", code=1)
    assert "NodeFailed" in done.stderr
    assert "no such thing" in done.stderr
    assert ready.run("output", "@latest-failed", code=1).stdout == ""


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ("count=many", 'input "count" must be of type integer'),
        ("cuont=1", 'unknown input "cuont"'),
    ],
)
def test_run_with_wrong_inputs_ends_with_3_before_anything_is_made(ready: Laptop, inputs: str, said: str) -> None:
    done = ready.run("run", "good", "-i", inputs, code=3)
    assert said in done.stderr
    assert done.stdout == ""


def test_run_that_takes_too_long_ends_with_124_and_goes_on(ready: Laptop) -> None:
    done = ready.run("run", "slow", "--name", "slow-1", "--wait", "--timeout", "2s", code=124)
    assert "it goes on" in done.stderr
    assert "slow-1 stopping" in ready("stop", "slow-1")
    ready.wait_for("it to end", lambda: "Cancelled" in ready("get", "run", "slow-1"))


def test_run_stopped_by_a_person_ends_with_5(ready: Laptop) -> None:
    following = ready.command("run", "slow", "--name", "slow-2", "--watch")
    ready.wait_for("it to run", lambda: "Running" in ready.run("get", "run", "slow-2", code=None).stdout)
    ready("stop", "slow-2")
    out, err = following.communicate(timeout=60)
    assert following.returncode == 5, out + err


def test_ctrl_c_detaches_and_the_run_goes_on(ready: Laptop) -> None:
    following = ready.command("run", "slow", "--name", "slow-3", "--watch")
    ready.wait_for("it to run", lambda: "Running" in ready.run("get", "run", "slow-3", code=None).stdout)
    following.send_signal(signal.SIGINT)
    out, err = following.communicate(timeout=60)
    assert following.returncode == 130, out + err
    assert "slow-3 goes on. Stop it:" in err
    assert "Traceback" not in err
    assert "Running" in ready("get", "run", "slow-3")
    ready("stop", "slow-3")


def test_doctor_finds_nothing_wrong(ready: Laptop) -> None:
    said = ready("doctor")
    assert "the gateway answers" in said
    assert "bad" not in said


def described(laptop: Laptop, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(laptop("agents", "describe", name, "-o", "json"))
    return found


def test_agents_are_listed_with_why_one_is_not_ready(ready: Laptop, tmp_path: Path) -> None:
    stuck = kind("stuck", {"model": "m", "pod": {"image": "nowhere.example/agent:1"}}, kind="Agent")
    file = tmp_path / "stuck.yaml"
    file.write_text(yaml.safe_dump(stuck))
    ready("apply", "-f", str(file))
    ready.kubectl("wait", "fagent/a", "--for=condition=Ready", "--timeout=60s")
    ready.wait_for("the reason", lambda: "ImagePullFailed: " in ready("agents", "list", "-o", "wide"))
    head, first, second = ready("agents", "list").splitlines()
    assert head.split() == ["NAME", "READY", "PODS", "QUEUE", "MODEL", "SKILLS", "WHY", "NOT", "READY"]
    assert first.split() == ["a", "True", "1/1", "0", "m", "-"]
    assert second.split()[:3] == ["stuck", "False", "0/1"]
    (pod,) = described(ready, "stuck")["pods"]
    assert pod["state"] == "ImagePullFailed"
    ready.kubectl("delete", "fagent", "stuck")


def test_agents_drain_waits_for_what_a_pod_does_and_the_pool_goes_on(ready: Laptop) -> None:
    run = ready.run("run", "endless").stdout.split("/")[1].split()[0]

    def at_work() -> list[str]:
        return [task["run"] for pod in described(ready, "a")["pods"] for task in pod["tasks"]]

    ready.wait_for("the run's claim", lambda: at_work() == [run])
    busy = ready.run("agents", "drain", "a", "--wait", "--timeout", "1s", code=124)
    assert busy.stdout == "pod/a-0 draining\n"
    assert busy.stderr == "still at work: a-0; they take nothing new\n"
    ready("stop", run)

    def drained() -> list[str]:
        return ready.run("agents", "drain", "a", "--wait", code=None).stdout.splitlines()

    ended = ready.wait_for("the drain", drained)  # once one pod is gone and the next is not there yet, there is none
    assert ended[-1].endswith((" drained", " gone"))
    assert ready.run("run", "good", "--wait").returncode == 0, "another pod has taken its place"


def test_agents_drain_of_what_is_not_there_says_so(ready: Laptop) -> None:
    assert "neither a registered pod nor an agent" in ready.run("agents", "drain", "nobody", code=4).stderr


def test_agents_register_waits_for_the_card_or_says_why_there_is_none(ready: Laptop) -> None:
    silent = f"http://127.0.0.1:{free_port()}"
    refused = ready.run("agents", "register", "broker", "--url", silent, code=1)
    assert refused.stdout == "agent.fairlead.dev/broker created\n"
    assert "broker is not ready: ExternalUnreachable: " in refused.stderr
    with running_remote_agent() as remote:
        done = ready.run("agents", "register", "broker", "--url", f"{remote.url}/ok")
        assert done.stdout == "agent.fairlead.dev/broker configured\n"
        assert "agents describe" not in done.stderr
        row = next(line for line in ready("agents", "list").splitlines() if line.startswith("broker"))
        assert row.split()[1] == "True"
        assert f"{remote.url}/ok" in ready("agents", "describe", "broker")
    assert "runs elsewhere" in ready.run("agents", "drain", "broker", code=1).stderr
    assert "which runs here" in ready.run("agents", "register", "a", "--url", silent, code=1).stderr
    ready.kubectl("delete", "fagent", "broker")
