from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from fairlead_agent import __version__
from fairlead_agent.engine import CAPABILITIES
from fairlead_agent.protocol import Call, HeartbeatReply, Kind, State


def tool(name: str, **keys: Any) -> dict[str, Any]:
    arguments = keys.pop("arguments", {})
    return {"name": name, "tool": {"name": "echo", "arguments": arguments}, **keys}


TWO = {"nodes": [tool("a"), tool("b", needs=["a"])], "output": "{{ outputs.a }}, {{ outputs.b }}"}


def terminate(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(30)


def test_agent_registers_runs_and_says_so(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.submit(TWO)
    process = pod.start()
    ended = wait(gateway.ended)
    assert (ended.state, ended.output) == (State.SUCCEEDED, "did a, did b")
    wait(lambda: any(event["event"] == "run_finished" for event in pod.events()))
    assert terminate(process) == 0
    token, message = gateway.registrations[0]
    assert token.endswith("-pod")
    assert (message.version, message.concurrency, message.capabilities) == (__version__, 2, CAPABILITIES)
    events = [event["event"] for event in pod.events()]
    assert events[:2] == ["registered", "claimed"]
    assert events[-2:] == ["stopping", "stopped"]
    assert {"a", "b"} <= {event.get("node") for event in pod.events()}
    assert gateway.lines[-1] == "run succeeded"


def test_agent_runs_tasks_side_by_side_up_to_its_concurrency(gateway: Any, pod: Any, wait: Any) -> None:
    together = threading.Barrier(2, timeout=20)
    gateway.handler = lambda _call: (together.wait() and "") or ""
    for task in ("t1", "t2"):
        gateway.submit({"nodes": [tool("a")]}, task=task)
    gateway.submit({"nodes": [tool("a")]}, task="t3")
    gateway.submit({"nodes": [tool("a")]}, task="t4")
    pod.start()
    for task in ("t1", "t2", "t3", "t4"):
        assert wait(lambda task=task: gateway.ended(task)).state is State.SUCCEEDED


def test_agent_for_one_run_exits_when_it_is_done(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.once = True
    gateway.submit(TWO)
    process = pod.start()
    wait(gateway.ended)
    assert process.wait(30) == 0


def test_agent_killed_in_the_middle_goes_on_from_the_journal(gateway: Any, pod: Any, wait: Any) -> None:
    entered, go = threading.Event(), threading.Event()

    def handler(call: Call) -> Any:
        if call.node == "b":
            entered.set()
            go.wait(30)
        return f"did {call.node}"

    gateway.handler = handler
    gateway.submit(TWO)
    first = pod.start()
    wait(entered.is_set)
    first.kill()
    first.wait()
    gateway.requeue("t1")
    pod.start()
    go.set()
    assert wait(gateway.ended).output == "did a, did b"
    assert set(gateway.sent.values()) == {1}
    started = [entry.node for entry in gateway.journals["t1"] if entry.kind is Kind.NODE_STARTED]
    assert started == ["a", "b"]


def test_agent_outlives_a_gateway_that_goes_away(gateway: Any, pod: Any, wait: Any) -> None:
    entered = threading.Event()

    def handler(call: Call) -> Any:
        if call.node == "a":
            entered.set()
            gateway.down = True
        return f"did {call.node}"

    gateway.handler = handler
    gateway.submit(TWO)
    pod.start()
    wait(entered.is_set)
    beats = len(gateway.beats)
    gateway.down = False
    assert wait(gateway.ended).output == "did a, did b"
    wait(lambda: len(gateway.beats) > beats)
    assert set(gateway.sent.values()) == {1}
    assert len(gateway.registrations) == 1


def test_agent_repeats_an_append_that_it_got_no_answer_to(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.failures = [503, 502, 503]
    gateway.submit(TWO)
    pod.start()
    assert wait(gateway.ended).output == "did a, did b"
    kinds = [entry.kind for entry in gateway.journals["t1"]]
    assert kinds == [
        Kind.NODE_STARTED,
        Kind.NODE_FINISHED,
        Kind.NODE_STARTED,
        Kind.NODE_FINISHED,
        Kind.RUN_FINISHED,
    ]


def test_agent_sends_lines_that_it_got_no_answer_to_as_the_same(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.log_failures = [503, 502]
    gateway.submit(TWO)
    pod.start()
    wait(lambda: not gateway.log_failures and "run succeeded" in gateway.lines)
    assert gateway.lines == ["started", "succeeded", "started", "succeeded", "run succeeded"]


def test_agent_registers_again_with_a_fresh_token_when_its_session_is_over(gateway: Any, pod: Any, wait: Any) -> None:
    pod.start()
    wait(lambda: gateway.beats)
    pod.token.write_text(pod.token.read_text().strip() + "-rotated")
    gateway.valid = set()
    wait(lambda: len(gateway.registrations) == 2)
    assert gateway.registrations[1][0].endswith("-rotated")
    gateway.submit(TWO)
    assert wait(gateway.ended).state is State.SUCCEEDED


def test_agent_tries_to_register_until_it_may(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.down = True
    process = pod.start()
    wait(pod.log.exists)
    assert process.poll() is None
    gateway.down = False
    wait(lambda: gateway.registrations)


def test_agent_of_another_version_says_so_and_ends(gateway: Any, pod: Any) -> None:
    gateway.wrong_protocol = True
    process = pod.start()
    assert process.wait(30) == 3
    (event,) = pod.events()
    assert (event["event"], event["level"]) == ("not_registered", "error")
    assert event["why"] == "no", "the gateway's words"


def test_agent_stops_a_run_that_was_cancelled(gateway: Any, pod: Any, wait: Any) -> None:
    entered, go = threading.Event(), threading.Event()
    gateway.handler = lambda _call: (entered.set(), go.wait(30))[1]
    gateway.submit(TWO)
    pod.start()
    wait(entered.is_set)
    gateway.reply = HeartbeatReply(cancel=("t1",))
    ended = wait(gateway.ended)
    go.set()
    assert (ended.state, ended.reason) == (State.CANCELLED, "Stopped")


def test_agent_drops_a_lost_task_without_a_word(gateway: Any, pod: Any, wait: Any) -> None:
    entered, go = threading.Event(), threading.Event()
    gateway.handler = lambda _call: (entered.set(), go.wait(30))[1]
    gateway.submit(TWO)
    pod.start()
    wait(entered.is_set)
    before = list(gateway.journals["t1"])
    gateway.reply = HeartbeatReply(lost=("t1",))
    seen = len(gateway.beats)
    wait(lambda: any(beat.tasks == () for _, beat in gateway.beats[seen:]))
    go.set()
    gateway.reply = HeartbeatReply()
    gateway.submit({"nodes": [tool("a")]}, task="t2")
    wait(lambda: gateway.ended("t2"))
    assert gateway.journals["t1"] == before
    assert gateway.released == []


def test_agent_drops_a_fenced_task_without_a_word(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.submit(TWO)
    gateway.fenced = {"t1"}
    pod.start()
    wait(lambda: any(event["event"] == "task_dropped" for event in pod.events()))
    assert gateway.journals["t1"] == []


def test_agent_finishes_what_it_has_when_it_is_told_to_end(gateway: Any, pod: Any, wait: Any) -> None:
    entered, go = threading.Event(), threading.Event()

    def handler(call: Call) -> Any:
        if call.node == "a":
            entered.set()
            go.wait(30)
        return "ok"

    gateway.handler = handler
    gateway.submit(TWO)
    process = pod.start(FAIRLEAD_DRAIN_SECONDS="30")
    wait(entered.is_set)
    process.send_signal(signal.SIGTERM)
    wait(lambda: any(event["event"] == "stopping" for event in pod.events()))
    gateway.submit({"nodes": [tool("a")]}, task="t2")
    go.set()
    assert process.wait(30) == 0
    assert gateway.ended().state is State.SUCCEEDED
    assert "t2" not in gateway.journals
    assert gateway.released == []


def test_agent_hands_back_what_it_cannot_finish(gateway: Any, pod: Any, wait: Any) -> None:
    entered, go = threading.Event(), threading.Event()

    def handler(call: Call) -> Any:
        if call.node == "b":
            entered.set()
            go.wait(30)
        return f"did {call.node}"

    gateway.handler = handler
    gateway.submit(TWO)
    process = pod.start(FAIRLEAD_DRAIN_SECONDS="0")
    wait(entered.is_set)
    assert terminate(process) == 0
    assert gateway.released == ["t1"]
    pod.start()
    go.set()
    assert wait(gateway.ended).output == "did a, did b"
    assert set(gateway.sent.values()) == {1}


def test_agent_claims_nothing_while_it_drains(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.reply = HeartbeatReply(drain=True)
    pod.start()
    wait(lambda: len(gateway.beats) > 3)
    time.sleep(0.6)  # a claim from before the first heartbeat is held for half a second
    gateway.submit(TWO)
    beats = len(gateway.beats)
    wait(lambda: len(gateway.beats) > beats + 3)
    assert gateway.ended() is None
    gateway.reply = HeartbeatReply()
    wait(gateway.ended)


def test_heartbeat_goes_on_while_the_event_loop_is_busy(gateway: Any, pod: Any, wait: Any) -> None:
    nested = "[1, 2, 3, 4, 5, 6, 7, 8].map(a, inputs.n.map(b, inputs.n.all(c, c >= 0)))"
    spec = {"inputs": [{"name": "n", "type": "array"}], "nodes": [tool("a", arguments={"v": f"{{{{ {nested} }}}}"})]}
    gateway.heartbeat_seconds = 0.1
    gateway.submit(spec, n=list(range(3000)))
    pod.start()
    ended = wait(gateway.ended)
    assert "took more than 2 seconds" in ended.error.message
    started, finished = (gateway.journals["t1"][i].at for i in (0, 1))
    busy = (finished - started).total_seconds()
    assert busy > 1.5
    times = [at for at, _ in gateway.beats]
    longest = max(after - before for before, after in itertools.pairwise(times))
    assert longest < busy, "no heartbeat while the loop was busy"


def test_agent_trusts_only_the_given_authority(gateway: Any, pod: Any, wait: Any) -> None:
    pod.start(FAIRLEAD_GATEWAY_CA="")
    wait(lambda: pod.log.exists() and "CERTIFICATE_VERIFY_FAILED" in pod.log.read_text())
    assert gateway.registrations == []


@pytest.mark.parametrize(
    ("arguments", "env", "code", "text"),
    [
        pytest.param(["--version"], {}, 0, f"fairlead-agent {__version__}", id="version"),
        pytest.param(["--help"], {}, 0, "FAIRLEAD_GATEWAY_URL", id="help"),
        pytest.param(["--what"], {}, 2, "unknown argument '--what'", id="unknown-argument"),
        pytest.param([], {}, 2, "FAIRLEAD_GATEWAY_URL must be", id="no-gateway"),
        pytest.param([], {"FAIRLEAD_GATEWAY_URL": "http://x"}, 2, "https://", id="no-tls"),
        pytest.param(
            [],
            {"FAIRLEAD_GATEWAY_URL": "https://x", "FAIRLEAD_CONCURRENCY": "many"},
            2,
            "FAIRLEAD_CONCURRENCY must be a number from 1 to 1000, not 'many'",
            id="no-number",
        ),
    ],
)
def test_main_says_what_is_wrong(arguments: list[str], env: dict[str, str], code: int, text: str) -> None:
    command = [sys.executable, "-m", "fairlead_agent", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == code
    assert text in done.stdout + done.stderr


def test_agent_ends_when_told_to_before_it_could_register(gateway: Any, pod: Any, wait: Any) -> None:
    gateway.down = True
    process = pod.start()
    wait(lambda: pod.log.exists() and "no_answer" in pod.log.read_text())
    assert terminate(process) == 0


def test_agent_starts_without_the_libraries_of_command_lines(gateway: Any, pod: Any) -> None:
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"click", "prompt_toolkit", "pygments", "rich", "typer"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
from fairlead_agent.main import main
sys.exit(main([]))
"""
    gateway.once = True
    gateway.submit({"nodes": [tool("a", when="1 + 1 == 2")]})
    done = subprocess.run([sys.executable, "-c", code], env=pod.env, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert gateway.ended().state is State.SUCCEEDED
