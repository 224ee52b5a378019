"""Every example in `configs/` does on a real laptop what its first lines say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from fairlead.testing.laptop import Laptop

pytestmark = pytest.mark.process_runtime

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True)
class Example:
    """A run of an example that needs nobody, and what it gives."""

    folder: str
    output: Any
    inputs: tuple[str, ...] = ()
    states: tuple[tuple[str, str], ...] = ()
    """Nodes and how they ended, where that is the point."""


EXAMPLES = [
    Example("hello", "tea: A good companion, if you drink it in time.", ("product=tea",)),
    Example(
        "routing",
        "Sorry about that! We pay it back today.",
        ("message=You charged me twice",),
        (("refund", "Succeeded"), ("fix", "Skipped"), ("answer", "Succeeded")),
    ),
    Example(
        "routing",
        "Thank you for writing!",
        ("message=Hello",),
        (("refund", "Skipped"), ("fix", "Skipped"), ("answer", "Succeeded")),
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
        (),
        (("weather", "Succeeded"), ("traffic", "Failed"), ("must", "Skipped"), ("@finally", "Succeeded")),
    ),
    Example("sub-workflow", "Der Hafen / Le port"),
    Example("wait", "Asked. Reminded."),
    Example("agent", "We have 12 ropes and can deliver tomorrow."),
    Example("llm-tools", "Seven orders, 210 euros in all."),
    Example("cache", "Dear Ada, Harbours are old."),
    Example("budget", 3, ("questions=3",)),
    Example("rerun", "Guess what? Tides come twice a day!"),
    Example("providers", "billing"),
]


@pytest.fixture(scope="module")
def examples(laptop: Laptop) -> Laptop:
    """A laptop with everything applied, but the quickstart, which has tests of its own."""
    folders = [path for path in CONFIGS.iterdir() if path.is_dir() and path.name != "quickstart"]
    laptop("apply", *(part for folder in folders for part in ("-f", str(folder))))
    return laptop


def start(laptop: Laptop, folder: str, *inputs: str, code: int = 0) -> str:
    """Run an example to its end; return the run's name."""
    given = [part for text in inputs for part in ("-i", text)]
    done = laptop.run("run", folder, *given, "--wait", "--timeout", "2m", code=code)
    return done.stdout.split()[0].rpartition("/")[2]


def output(laptop: Laptop, run: str) -> Any:
    return laptop.ask(f"{run}/output")["output"]


def states(laptop: Laptop, run: str) -> dict[str, str]:
    return {node["node"]: node["state"] for node in laptop.ask(run)["nodes"] if not node["item"]}


def test_every_example_is_in_the_list() -> None:
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    listed = (CONFIGS / "README.md").read_text()
    assert {folder for folder in folders if f"| [{folder}](" not in listed} == set()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: path.name)
def test_every_file_says_what_it_shows(path: Path) -> None:
    assert path.read_text().startswith("#")
    assert all(isinstance(one, dict) for one in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{one.folder}-{index}" for index, one in enumerate(EXAMPLES)])
def test_example_gives_what_it_promises(examples: Laptop, example: Example) -> None:
    run = start(examples, example.folder, *example.inputs)
    assert output(examples, run) == example.output
    if example.states:
        found = states(examples, run)
        assert {name: found.get(name) for name, _ in example.states} == dict(example.states)


def test_example_of_errors_tells_the_team_and_tidies_up(examples: Laptop) -> None:
    run = start(examples, "retry-and-errors", "fail=true", code=1)
    found = states(examples, run)
    assert (found["must"], found["report"], found["@onFailure"], found["@finally"]) == (
        *("Failed", "Skipped"),
        *("Succeeded", "Succeeded"),
    )
    weather = next(node for node in examples.ask(run)["nodes"] if node["node"] == "weather")
    assert weather["tries"] <= 3


def test_example_of_an_approval_waits_for_a_person_and_keeps_who_it_was(examples: Laptop) -> None:
    examples("run", "approval", "--name", "approval-yes")
    examples("wait", "approval-yes", "--for", "approval", "--timeout", "1m")
    assert "Send this? Dear customer" in examples("approvals")
    said = examples.run("approve", "approval-yes", "-m", "fine")
    assert said.stdout == "approval-yes ship approved\n"
    examples("wait", "approval-yes", "--timeout", "1m")
    released = output(examples, "approval-yes")
    assert released["sent"].startswith("Dear customer")
    assert released["comment"] == "fine"
    assert released["released_by"]
    assert released["released_by"] in examples("approvals", "approval-yes")
    assert examples.run("approve", "approval-yes", code=4).stderr.startswith("error: approval-yes does not wait")


def test_example_of_an_approval_that_is_rejected_ends_with_5(examples: Laptop) -> None:
    examples("run", "approval", "--name", "approval-no")
    examples("wait", "approval-no", "--for", "approval", "--timeout", "1m")
    examples("reject", "approval-no", "ship", "-m", "the tone is wrong")
    ended = examples.run("wait", "approval-no", "--timeout", "1m", code=5)
    assert "the tone is wrong" in ended.stderr


@pytest.mark.parametrize(
    ("verb", "answer"),
    [("approve", "We have paid 30 euros back."), ("reject", "I am not allowed to pay that back")],
)
def test_example_of_a_tool_that_needs_approval(examples: Laptop, verb: str, answer: str) -> None:
    name = f"tool-{verb}"
    examples("run", "tool-approval", "--name", name)
    examples("wait", name, "--for", "approval", "--timeout", "1m")
    said = examples.run(verb, name)
    assert '"amount": 30' in said.stderr
    examples("wait", name, "--timeout", "1m")
    assert output(examples, name).startswith(answer)


def test_example_of_a_cache_asks_once(examples: Laptop) -> None:
    first = start(examples, "cache", "topic=Quays")
    second = start(examples, "cache", "topic=quays", "reader=Bob")
    research = {
        run: [call for call in examples.read(run, "calls") if call["node"] == "research"] for run in (first, second)
    }
    assert (len(research[first]), len(research[second])) == (1, 0)
    assert output(examples, second) == "Hello, Harbours are old."


def test_example_of_a_rerun_does_only_what_changed(examples: Laptop) -> None:
    failed = start(examples, "rerun", "tone=gruff", code=1)
    done = examples.run("rerun", failed, "-i", "tone=friendly", "--watch", "--timeout", "1m")
    again = done.stdout.split()[0].rpartition("/")[2]
    assert "reused" in done.stderr
    assert output(examples, again) == "Guess what? Tides come twice a day!"
    assert [call["node"] for call in examples.read(again, "calls")] == ["text"]


def test_example_of_a_budget_ends_before_it_is_overspent(examples: Laptop) -> None:
    run = start(examples, "budget", "questions=30", code=5)
    record = examples.ask(run)
    assert record["reason"] == "BudgetExceeded"
    assert 0.009 <= float(record["cost"]["total"]) <= 0.01


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
    done = examples.run("run", "tool-http", "--watch", "--timeout", "1m")
    run = done.stdout.split()[0].rpartition("/")[2]
    assert output(examples, run) == "Ada"
    looked, noted = Customers.seen[-2:]
    assert looked[:3] == ("GET", "/customers/7?fields=name%2Ccity", "Bearer put-your-key-here")
    assert (noted[0], noted[1], json.loads(noted[3])) == ("POST", "/customers/7/notes", {"text": "Hello Ada"})
    assert "put-your-key-here" not in json.dumps([examples.read(run, part) for part in ("calls", "trace", "journal")])


def test_example_of_concurrency_lets_the_urgent_run_overtake(examples: Laptop) -> None:
    for name in ("first", "ordinary", "urgent"):
        examples("wait", name, "--timeout", "2m")
    records = {name: examples.ask(name) for name in ("first", "ordinary", "urgent")}
    spans = sorted((one["startedAt"], one["finishedAt"], name) for name, one in records.items())
    assert [name for *_, name in spans] == ["first", "urgent", "ordinary"]
    assert all(ends <= begins for (_, ends, _), (begins, _, _) in pairwise(spans))
