"""Every example in `configs/` does on a real laptop what its first lines say."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from fairlead.testing.laptop import Laptop
from fairlead.testing.remoteagent import running_remote_agent

pytestmark = pytest.mark.process_runtime

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True)
class Example:
    """A run of an example that needs nobody, and what it gives."""

    folder: str
    output: Any
    inputs: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    """Nodes and how they ended, where that is the point."""

    @property
    def run(self) -> str:
        """The name of its run."""
        return f"{self.folder}-{EXAMPLES.index(self)}"


EXAMPLES = [
    Example("hello", "tea: A good companion, if you drink it in time.", {"product": "tea"}),
    Example(
        "routing",
        "Sorry about that! We pay it back today.",
        {"message": "You charged me twice"},
        {"refund": "Succeeded", "fix": "Skipped", "answer": "Succeeded"},
    ),
    Example(
        "routing",
        "Thank you for writing!",
        {"message": "Hello"},
        {"refund": "Skipped", "fix": "Skipped", "answer": "Succeeded"},
    ),
    Example("parallel-join", "A calm harbour. Tides come twice a day."),
    Example(
        "foreach",
        {
            "summaries": ["Ships rest here.", "Light for the night.", "Things that hold.", "Things that hold."],
            "labels": {"coffee": "coffee costs 4", "tea": "tea costs 3"},
            "nothing": [],
        },
    ),
    Example("repeat", "A rope that holds four tons."),
    Example(
        "retry-and-errors",
        "Wind from the west. No traffic: ModelRefused",
        {},
        {"weather": "Succeeded", "traffic": "Failed", "must": "Skipped", "@finally": "Succeeded"},
    ),
    Example("sub-workflow", "Der Hafen / Le port"),
    Example("wait", "Asked. Reminded."),
    Example("agent", "We have 12 ropes and can deliver tomorrow."),
    Example("llm-tools", "Seven orders, 210 euros in all."),
    Example("code", {"said": "Measured in Kiel.", "highest": 3.4, "mean": 2.15, "lines": "4"}),
    Example(
        "code",
        {"said": "Measured in Atlantis.", "highest": 3.4, "mean": 2.15, "lines": "CodeFailed"},
        {"city": "Atlantis"},
        {"measure": "Succeeded", "lines": "Failed"},
    ),
    Example("code-agent", "Seven orders, 210 euros in all."),
    Example("cache", "Dear Ada, Harbours are old."),
    Example("budget", 3, {"questions": 3}),
    Example("rerun", "Guess what? Tides come twice a day!"),
    Example("providers", "billing"),
    Example("scaling", 6),
]
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "errors": ("retry-and-errors", {"fail": True}),
    "spent": ("budget", {"questions": 30}),
    "approval-yes": ("approval", {}),
    "approval-no": ("approval", {}),
    "tool-approve": ("tool-approval", {}),
    "tool-reject": ("tool-approval", {}),
    "gruff": ("rerun", {"tone": "gruff"}),
    "cache-first": ("cache", {"topic": "Quays"}),
}
"""Runs that need somebody, or that do not end well: their workflows and inputs."""


@pytest.fixture(scope="module")
def examples(laptop: Laptop, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A laptop with everything applied but the quickstart, which has tests of its own, and all runs started at once.

    They share one warm pod, but for those whose pods are the point: thirty pods of their own would only show how fast
    this machine starts processes.
    """
    paths = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if path.parent.name != "quickstart"]
    objects = [obj for path in paths for obj in yaml.safe_load_all(path.read_text())]
    for obj in objects:
        if obj["kind"] == "Workflow":
            obj["spec"].setdefault("runsOn", {"agent": "pool"})
    wanted = {**{one.run: (one.folder, dict(one.inputs)) for one in EXAMPLES}, **OTHERS}
    objects.append(declared("Agent", "pool", {"concurrency": 40}))
    objects += [
        declared("WorkflowRun", name, {"workflowRef": {"name": workflow}, "inputs": inputs})
        for name, (workflow, inputs) in wanted.items()
    ]
    file = tmp_path_factory.mktemp("examples") / "all.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    laptop("apply", "-f", str(file))
    return laptop


def declared(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def ended(laptop: Laptop, run: str) -> dict[str, Any]:
    """Wait for a run's end; return the gateway's record of it."""

    def final() -> dict[str, Any] | None:
        found = laptop.find(run)
        return found if found and found["state"] in ("Succeeded", "Failed", "Cancelled") else None

    record: dict[str, Any] = laptop.wait_for(f"the end of {run}", final)
    return record


def output(laptop: Laptop, run: str) -> Any:
    return laptop.ask(f"{run}/output")["output"]


def states(record: dict[str, Any]) -> dict[str, str]:
    return {node["node"]: node["state"] for node in record["nodes"] if not node["item"]}


def test_every_example_is_in_the_list() -> None:
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    listed = (CONFIGS / "README.md").read_text()
    assert {folder for folder in folders if f"| [{folder}](" not in listed} == set()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: path.name)
def test_every_file_says_what_it_shows(path: Path) -> None:
    assert path.read_text().startswith("#")
    assert all(isinstance(one, dict) for one in yaml.safe_load_all(path.read_text()))


def case(example: Example) -> Any:
    marks = [pytest.mark.bubblewrap] if example.folder.startswith("code") else []
    return pytest.param(example, id=example.run, marks=marks)


@pytest.mark.parametrize("example", [case(example) for example in EXAMPLES])
def test_example_gives_what_it_promises(examples: Laptop, example: Example) -> None:
    record = ended(examples, example.run)
    assert output(examples, example.run) == example.output, record["message"]
    found = states(record)
    assert {name: found.get(name) for name in example.states} == example.states


def test_example_of_errors_tells_the_team_and_tidies_up(examples: Laptop) -> None:
    record = ended(examples, "errors")
    found = states(record)
    assert (record["reason"], found["must"], found["report"]) == ("NodeFailed", "Failed", "Skipped")
    assert (found["@onFailure"], found["@finally"]) == ("Succeeded", "Succeeded")


def test_example_of_an_approval_waits_for_a_person_and_keeps_who_it_was(examples: Laptop) -> None:
    examples("wait", "approval-yes", "--for", "approval", "--timeout", "2m")
    assert "Send this? Dear customer" in examples("approvals")
    assert examples("approve", "approval-yes", "-m", "fine") == "approval-yes ship approved\n"
    examples("wait", "approval-yes", "--timeout", "2m")
    released = output(examples, "approval-yes")
    assert (released["sent"][:13], released["comment"]) == ("Dear customer", "fine")
    assert released["released_by"]
    assert released["released_by"] in examples("approvals", "approval-yes")
    assert examples.run("approve", "approval-yes", code=4).stderr.startswith("error: approval-yes does not wait")


def test_example_of_an_approval_that_is_rejected_ends_with_5(examples: Laptop) -> None:
    examples("wait", "approval-no", "--for", "approval", "--timeout", "2m")
    examples("reject", "approval-no", "ship", "-m", "the tone is wrong")
    assert "the tone is wrong" in examples.run("wait", "approval-no", "--timeout", "2m", code=5).stderr


@pytest.mark.parametrize(
    ("verb", "answer"),
    [("approve", "We have paid 30 euros back."), ("reject", "I am not allowed to pay that back")],
)
def test_example_of_a_tool_that_needs_approval(examples: Laptop, verb: str, answer: str) -> None:
    run = f"tool-{verb}"
    examples("wait", run, "--for", "approval", "--timeout", "2m")
    assert '"amount": 30' in examples.run(verb, run).stderr
    ended(examples, run)
    assert output(examples, run).startswith(answer)


def test_example_of_a_cache_asks_once(examples: Laptop) -> None:
    ended(examples, "cache-first")
    examples("run", "cache", "--name", "cache-second", "-i", "topic=quays", "-i", "reader=Bob", "--wait")
    nodes = {run: [call["node"] for call in examples.read(run, "calls")] for run in ("cache-first", "cache-second")}
    assert {run: asked.count("research") for run, asked in nodes.items()} == {"cache-first": 1, "cache-second": 0}
    assert output(examples, "cache-second") == "Hello, Harbours are old."


def test_example_of_a_rerun_does_only_what_changed(examples: Laptop) -> None:
    assert ended(examples, "gruff")["state"] == "Failed"
    done = examples.run("rerun", "gruff", "--name", "friendly", "-i", "tone=friendly", "--watch", "--timeout", "2m")
    assert "reused" in done.stderr
    assert output(examples, "friendly") == "Guess what? Tides come twice a day!"
    assert [call["node"] for call in examples.read("friendly", "calls")] == ["text"]


def test_example_of_a_budget_ends_before_it_is_overspent(examples: Laptop) -> None:
    record = ended(examples, "spent")
    assert record["reason"] == "BudgetExceeded"
    assert 0.009 <= float(record["cost"]["total"]) <= 0.01


def test_example_of_a_graph_of_ones_own_is_played_by_its_agent(examples: Laptop, tmp_path: Path) -> None:
    on_a_laptop = f"env: [{{name: PYTHONPATH, value: {CONFIGS / 'user-graph'}}}]"
    file = tmp_path / "user-graph.yaml"
    text = (CONFIGS / "user-graph/user-graph.yaml").read_text()
    file.write_text(re.sub(r"^    image: .*$", f"    {on_a_laptop}", text, flags=re.MULTILINE))
    examples("apply", "-f", str(file))
    examples("run", "user-graph", "--name", "user-graph", "--wait", "--timeout", "2m")
    assert output(examples, "user-graph") == "Worth it."
    assert [call["node"] for call in examples.read("user-graph", "calls")] == ["verdict"] * 3


class Customers(BaseHTTPRequestHandler):
    """What the Tools of `tool-http` call."""

    seen: ClassVar[list[tuple[str, str, str, bytes]]] = []

    def do_GET(self) -> None:
        self._answer(b'{"name": "Ada", "city": "Kiel"}')

    def do_POST(self) -> None:
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, self.headers.get("Authorization") or "", sent))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Customers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_example_of_an_http_tool_places_arguments_and_the_key(examples: Laptop, address: str, tmp_path: Path) -> None:
    file = tmp_path / "tool-http.yaml"
    file.write_text((CONFIGS / "tool-http/tool-http.yaml").read_text().replace("https://example.com", address))
    examples("apply", "-f", str(file))
    examples("run", "tool-http", "--name", "tool-http", "--wait", "--timeout", "2m")
    assert output(examples, "tool-http") == "Ada"
    looked, noted = Customers.seen[-2:]
    assert looked[:3] == ("GET", "/customers/7?fields=name%2Ccity", "Bearer put-your-key-here")
    assert (noted[0], noted[1], json.loads(noted[3])) == ("POST", "/customers/7/notes", {"text": "Hello Ada"})
    assert "put-your-key-here" not in json.dumps(
        [examples.read("tool-http", part) for part in ("calls", "trace", "journal")]
    )


def test_example_of_a2a_asks_an_agent_of_someone_else(examples: Laptop, tmp_path: Path) -> None:
    with running_remote_agent() as remote:
        remote.token = "put-your-token-here"  # noqa: S105 - the one in the example
        file = tmp_path / "a2a.yaml"
        text = (CONFIGS / "a2a/a2a.yaml").read_text()
        file.write_text(text.replace("https://agents.example.com/weather", f"{remote.url}/ok"))
        examples("apply", "-f", str(file))
        examples.kubectl("wait", "agents.fairlead.dev/forecaster", "--for=condition=Ready", "--timeout=60s")
        examples("run", "a2a", "--name", "a2a", "--wait", "--timeout", "2m")
    assert output(examples, "a2a") == "The harbour is open. Mind the forecast."
    assert remote.prompts == ["Will there be a gale at Kiel?"]
    assert examples.ask("a2a")["cost"]["total"] == "0.002"
    said = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "May we come in tonight?"}]}
    answer = examples.say("harbourmaster", "SendMessage", {"message": said})
    assert answer["task"]["artifacts"][0]["parts"][0]["text"] == "The harbour is open."
    assert answer["task"]["metadata"]["fairlead.dev/run"] == f"default/{answer['task']['id']}"


def test_example_of_concurrency_lets_the_urgent_run_overtake(examples: Laptop) -> None:
    records = [ended(examples, name) for name in ("first", "ordinary", "urgent")]
    spans = sorted((one["startedAt"], one["finishedAt"], one["name"]) for one in records)
    order = [name for *_, name in spans]
    assert order.index("urgent") <= 1, "it overtakes whoever waits; the three come at once, and one of them has begun"
    assert all(ends <= begins for (_, ends, _), (begins, _, _) in pairwise(spans))
