"""Real SIGKILLs, on a real laptop: whichever process dies wherever in a run with every construct, it ends the same.

`make test` takes a sample; `make soak` kills every process after every second entry of the journal.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fairlead.localcluster.supervisor.home import Home
from fairlead.localcluster.supervisor.processes import Identity
from fairlead.testing.laptop import Laptop

pytestmark = [
    pytest.mark.process_runtime,
    # Where the peer is killed between accepting a connection and its handshake, Python 3.11 may leave the socket open.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]
API = {"apiVersion": "fairlead.dev/v1alpha1"}
ENTRIES = 48
"""Of the journal."""
IN_FLIGHT = 5
"""The most calls at a time: two of `sort`, and one each of `wrong`, `look` and `inner`."""
VICTIMS = ("agent", "gateway", "operator", "apiserver", "podruntime")
SAMPLE = [("agent", 20), ("gateway", 9)]


def query(name: str, data: Any, *, needs: tuple[str, ...] = (), **keys: Any) -> dict[str, Any]:
    """Return a node that computes something."""
    arguments = {"data": data, "expression": "@"}
    return {"name": name, "needs": list(needs), "tool": {"name": "json_query", "arguments": arguments}, **keys}


def thing(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """Return an object."""
    return {**API, "kind": kind, "metadata": {"name": name}, "spec": spec}


REPLIES = [
    {"match": "^sort c", "reply": "no idea", "latencyMs": 200},
    {"match": "^sort", "reply": '{"kind": "known"}', "latencyMs": 200},
    {"match": "does not fit", "reply": '{"kind": "mended"}'},
    {"match": "^look it up", "toolCalls": [{"name": "json_query", "arguments": {"data": [1], "expression": "[0]"}}]},
    {"match": "^judge draft 2", "reply": '{"kind": "good"}'},
    {"match": "^judge", "reply": '{"kind": "bad"}'},
    {"match": "^draft 1", "reply": "draft 1", "latencyMs": 200},
    {"match": "^draft", "reply": "draft 2", "latencyMs": 200},
    {"reply": "so it is", "latencyMs": 200},
]
SHAPE = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}
NODES = [
    query("load", ["a", "b", "c"]),
    {
        "name": "sort",
        "needs": ["load"],
        "forEach": "outputs.load",
        "maxParallel": 2,
        "llm": {"prompt": "sort {{ item }}", "output": SHAPE},
    },
    query("wrong", "{{ outputs.load }}", needs=("load",), onError="Continue")
    | {"tool": {"name": "json_query", "arguments": {"data": [], "expression": "((("}}},
    query("never", 1, needs=("load",), when="size(outputs.load) > 100"),
    {"name": "look", "needs": ["load"], "llm": {"prompt": "look it up", "tools": ["json_query"]}},
    {"name": "think", "needs": ["look"], "agent": {"name": "killed", "prompt": "think of {{ outputs.look }}"}},
    {"name": "inner", "needs": ["load"], "workflow": {"name": "killed-part", "inputs": {"x": "{{ outputs.load[0] }}"}}},
    {"name": "draft", "needs": ["sort"], "llm": {"prompt": "draft {{ iteration }}"}},
    {
        "name": "judge",
        "needs": ["draft"],
        "llm": {"prompt": "judge {{ outputs.draft }}", "output": SHAPE},
        "repeat": {"from": "draft", "until": "outputs.judge.kind == 'good'", "maxIterations": 3},
    },
    {"name": "pause", "needs": ["judge"], "wait": {"seconds": 6}},
    {"name": "agree", "needs": ["judge"], "approval": {"message": "Ship {{ outputs.draft }}?"}},
    query("ship", "{{ outputs.sort }}", needs=("pause", "agree", "inner", "think", "wrong")),
]
OBJECTS = [
    thing("Model", "killed", scripted={"responses": REPLIES}),
    thing("Agent", "killed", model="killed", tools=["json_query"], leaseDurationSeconds=5),
    thing(
        "Workflow",
        "killed-part",
        inputs=[{"name": "x"}],
        model="killed",
        nodes=[query("step", "{{ inputs.x }}"), {"name": "ask", "needs": ["step"], "llm": {"prompt": "part"}}],
        **{"finally": {"tool": {"name": "json_query", "arguments": {"data": "{{ run.state }}", "expression": "@"}}}},
        output="{{ outputs.ask }}",
    ),
    thing(
        "Workflow",
        "killed",
        model="killed",
        runsOn={"agent": "killed"},
        nodes=NODES,
        output={"sorted": "{{ outputs.ship }}", "thought": "{{ outputs.think }}", "part": "{{ outputs.inner }}"},
        **{"finally": {"tool": {"name": "json_query", "arguments": {"data": "{{ run.state }}", "expression": "@"}}}},
    ),
]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A home that is up, with everything applied."""
    made = Laptop(Home(tmp_path_factory.mktemp("killed") / "home"))
    made.up()
    made.kubectl.apply(*OBJECTS)
    made.kubectl("wait", "workflow/killed", "--for=condition=Ready", "--timeout=90s")
    made.kubectl("wait", "agents.fairlead.dev/killed", "--for=condition=Ready", "--timeout=90s")
    yield made
    made.run("down", code=None)


def run_and_kill(laptop: Laptop, victim: str, after: int) -> str:
    """Run the workflow; kill a process when the journal has so many entries; return the run's name."""
    name = f"killed-{victim}-{after}"
    if victim == "agent":  # a container that has died again and again waits for its next start up to five minutes
        laptop.kubectl("delete", "pods", "--all")
    laptop("run", "killed", "--name", name)
    laptop.wait_for(f"{after} entries", lambda: _length(laptop, name) >= after)
    if victim == "agent":
        (pod,) = laptop.kubectl.list("pods")
        assert Identity.of(laptop.agent_pid(pod["metadata"]["name"])).signal(signal.SIGKILL)
    else:
        assert laptop.state.children[victim].signal(signal.SIGKILL)
    laptop.wait_for("the end", lambda: _finished(laptop, name))
    return name


def _length(laptop: Laptop, name: str) -> int:
    """Return the length of a run's journal; say yes to what it asks."""
    try:
        journal = laptop.journal(name)
    except httpx.HTTPError:  # the gateway is coming back
        return 0
    told = {entry["kind"] for entry in journal if entry.get("node") == "agree"}
    if "Waiting" in told and "NodeFinished" not in told:
        laptop.run("approve", name, "agree", code=None)  # asked again if somebody died meanwhile
    return len(journal)


def _finished(laptop: Laptop, name: str) -> bool:
    if not _length(laptop, name):  # a run can end while the gateway that handed it out is still on its way back
        return False
    done = laptop.kubectl.run("get", "run", name, "-o", "json", check=False)
    if done.returncode:
        return False
    conditions = json.loads(done.stdout).get("status", {}).get("conditions", ())
    return any(one["type"] == "Finished" and one["status"] == "True" for one in conditions)


def check(laptop: Laptop, name: str, victim: str) -> None:
    """Hold a run to what no kill may change."""
    result = json.loads(laptop("output", name, "-o", "json"))
    assert result == {
        "sorted": [{"kind": "known"}, {"kind": "known"}, {"kind": "mended"}],
        "thought": "so it is",
        "part": "so it is",
    }
    journal = laptop.journal(name)
    ended = Counter((entry["node"], entry.get("iteration", 1)) for entry in journal if entry["kind"] == "NodeFinished")
    assert set(ended.values()) == {1}, f"finished twice: {ended}"
    (agreed,) = [one["output"] for one in journal if (one.get("node"), one["kind"]) == ("agree", "NodeFinished")]
    assert (agreed["approved"], bool(agreed["by"])) == (True, True)
    repeated = [call["key"] for call in laptop.read(name, "calls") if call.get("repeats")]
    assert not repeated or victim in {"gateway", "apiserver"}, f"sent twice: {repeated}"
    assert len(repeated) <= IN_FLIGHT, "more than was in flight"


@pytest.mark.parametrize(("victim", "after"), SAMPLE)
def test_run_survives_a_kill(laptop: Laptop, victim: str, after: int) -> None:
    check(laptop, run_and_kill(laptop, victim, after), victim)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("after", range(1, ENTRIES, 2))
@pytest.mark.parametrize("victim", VICTIMS)
def test_run_survives_every_kill(laptop: Laptop, victim: str, after: int) -> None:
    if (victim, after) not in SAMPLE:
        check(laptop, run_and_kill(laptop, victim, after), victim)
