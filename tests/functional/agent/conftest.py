"""A gateway for one agent, over real HTTPS, and the agent as a real process."""

from __future__ import annotations

import json
import os
import select
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fairlead_agent.protocol import (
    Append,
    AskApproval,
    AwaitSignals,
    Call,
    CallReply,
    CancelTurns,
    Claim,
    Entry,
    Heartbeat,
    HeartbeatReply,
    Kind,
    Logs,
    Park,
    Parked,
    Register,
    Release,
    RunInfo,
    Session,
    Signal,
    Signals,
    StartTurn,
    Task,
    TurnAnswer,
    TurnInfo,
)

CANARY = "canary-token-5b0f"
DEADLINE = 30.0


def certificate(folder: Path) -> tuple[Path, str]:
    """Write a key with a self-signed certificate for loopback; return the file and the certificate as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)  # noqa: TID251 - a certificate is valid by the real clock
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = built.public_bytes(serialization.Encoding.PEM)
    file = folder / "gateway.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + pem
    )
    return file, pem.decode()


class Refusal(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class StandIn:
    """Keeps journals, calls and sessions of one agent in memory, by the rules of the wire contract."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.queue: list[Task] = []
        self.tasks: dict[str, Task] = {}
        self.journals: dict[str, list[Entry]] = {}
        self.sessions: list[str] = []
        self.valid: set[str] = set()
        self.beats: list[tuple[float, Heartbeat]] = []
        self.reply = HeartbeatReply()
        self.lines: list[str] = []
        self.released: list[str] = []
        self.registrations: list[tuple[str, Register]] = []
        self.sent: Counter[str] = Counter()
        self.answers: dict[str, threading.Event] = {}
        self.results: dict[str, CallReply] = {}
        self.fenced: set[str] = set()
        self.failures: list[int] = []
        """Statuses to answer the next appends with, after they were committed."""
        self.log_failures: list[int] = []
        """The same for lines of logs."""
        self.signals: dict[str, dict[str, Signal]] = {}
        self.parked: dict[str, Park] = {}
        self.approvals: list[AskApproval] = []
        self.turns: dict[str, tuple[str, str]] = {}
        """For each turn's task: who waits for it, and under which key."""
        self.ended_turns: list[str] = []
        self.agents: dict[str, TurnInfo] = {}
        self.cancelled: list[CancelTurns] = []
        self.down = False
        self.wrong_protocol = False
        self.once = False
        self.heartbeat_seconds = 0.2
        self.handler: Callable[[Call], Any] = lambda call: f"did {call.node}"

    def submit(
        self, spec: dict[str, Any], *, task: str = "t1", fields: dict[str, Any] | None = None, **inputs: Any
    ) -> None:
        """Queue a run; *fields* are further ones of its `Task`."""
        run = RunInfo(uid=task, namespace="ns", name=f"run-{task}", workflow="w")
        with self.lock:
            self.queue.append(Task(id=task, attempt=0, run=run, spec=spec, inputs=inputs, **(fields or {})))

    def answer(self, path: str, token: str, body: bytes, *, gone: Callable[[], bool]) -> Any:
        """Answer one request; *gone* tells whether the asker has hung up."""
        if path == "/v1/register":
            return self._register(token, Register.model_validate_json(body))
        with self.lock:
            if token not in self.valid:
                raise Refusal(401, "SessionExpired")
        if path == "/v1/heartbeat":
            with self.lock:
                self.beats.append((time.monotonic(), Heartbeat.model_validate_json(body)))
                return self.reply
        if path == "/v1/claim":
            return {"tasks": [task.model_dump(mode="json", by_alias=True) for task in self._claim(token, body, gone)]}
        _, _, _, task_id, what = path.split("/", 4)
        return self._of_task(task_id, what, body)

    def _register(self, token: str, message: Register) -> Session:
        if self.wrong_protocol:
            raise Refusal(426, "UnknownProtocol")
        with self.lock:
            self.registrations.append((token, message))
            session = f"session-{len(self.registrations)}-{CANARY}"
            self.valid = {session}
            self.sessions.append(session)
        return Session(
            session=session,
            pod="pod-1",
            pool="pool",
            heartbeat_seconds=self.heartbeat_seconds,
            lease_duration_seconds=3,
            once=self.once,
        )

    def _claim(self, token: str, body: bytes, gone: Callable[[], bool]) -> list[Task]:
        message = Claim.model_validate_json(body)
        end = time.monotonic() + min(message.wait_seconds, 0.5)
        while time.monotonic() < end and not gone():
            with self.lock:
                if self.queue and token in self.valid:
                    return [self._hand_out(self.queue.pop(0)) for _ in range(min(message.limit, len(self.queue)))]
            time.sleep(0.01)
        return []

    def _hand_out(self, task: Task) -> Task:
        journal = self.journals.setdefault(task.id, [])
        known = tuple(self.signals.get(task.id, {}).values())
        changed = {"attempt": task.attempt + 1, "journal": tuple(journal), "signals": known}
        claimed = task.model_copy(update=changed)
        self.tasks[task.id] = claimed
        return claimed

    def requeue(self, task_id: str) -> None:
        """Take a task from its pod."""
        with self.lock:
            self.queue.append(self.tasks[task_id])

    def signal(self, task_id: str, key: str, value: Any) -> None:
        """Bring a signal about, and queue who is parked for it."""
        with self.lock:
            self.signals.setdefault(task_id, {}).setdefault(key, Signal(key=key, value=value))
            if task_id in self.parked and key in self.parked.pop(task_id).keys:
                self.queue.append(self.tasks[task_id])

    def _of_task(self, task_id: str, what: str, body: bytes) -> Any:
        attempt = json.loads(body)["attempt"]
        with self.lock:
            if task_id in self.fenced or attempt != self.tasks[task_id].attempt:
                raise Refusal(409, "Fenced")
        answer = {
            "journal": lambda: self._append(task_id, Append.model_validate_json(body)),
            "calls": lambda: self._call(task_id, Call.model_validate_json(body)),
            "logs": lambda: self._log(Logs.model_validate_json(body)),
            "approvals": lambda: self.approvals.append(AskApproval.model_validate_json(body)),
            "turns": lambda: self._start_turn(task_id, StartTurn.model_validate_json(body)),
            "turns/cancel": lambda: self.cancelled.append(CancelTurns.model_validate_json(body)),
            "signals": lambda: self._signals(task_id, AwaitSignals.model_validate_json(body)),
            "park": lambda: self._park(task_id, Park.model_validate_json(body)),
            "release": lambda: self._release(task_id, Release.model_validate_json(body)),
        }
        return answer[what]()

    def _log(self, logs: Logs) -> None:
        with self.lock:
            self.lines += [line.text for line in logs.lines][max(len(self.lines) - logs.first, 0) :]
            if self.log_failures:
                raise Refusal(self.log_failures.pop(0), "Unavailable")

    def _release(self, task_id: str, _message: Release) -> None:
        with self.lock:
            self.released.append(task_id)
            self.queue.append(self.tasks[task_id])

    def _start_turn(self, task_id: str, asked: StartTurn) -> None:
        with self.lock:
            turn_id = f"{task_id}-turn-{len(self.turns)}"
            if (task_id, asked.key) in self.turns.values():
                return
            self.turns[turn_id] = (task_id, asked.key)
            turn = self.agents[asked.agent].model_copy(update={"prompt": asked.prompt, "node": asked.node})
            parent = self.tasks[task_id]
            given = {"tools": parent.tools, "kind": "turn", "turn": turn}
            self.queue.append(Task(id=turn_id, attempt=0, run=parent.run, spec={}, inputs={}, **given))

    def _signals(self, task_id: str, wanted: AwaitSignals) -> Signals:
        end = time.monotonic() + min(wanted.wait_seconds, 0.5)
        while True:
            with self.lock:
                found = tuple(one for key, one in self.signals.get(task_id, {}).items() if key in wanted.keys)
            if found or time.monotonic() > end:
                return Signals(signals=found)
            time.sleep(0.01)

    def _park(self, task_id: str, park: Park) -> Parked:
        with self.lock:
            found = tuple(one for key, one in self.signals.get(task_id, {}).items() if key in park.keys)
            if not found:
                self.parked[task_id] = park
                self.tasks[task_id] = self.tasks[task_id].model_copy(
                    update={"attempt": self.tasks[task_id].attempt + 1}
                )
        return Parked(parked=not found, signals=found)

    def _append(self, task_id: str, message: Append) -> Any:
        with self.lock:
            journal = self.journals[task_id]
            assert message.first <= len(journal), "an append left a gap"
            new = message.entries[len(journal) - message.first :]
            journal += new
            if new and new[-1].kind is Kind.TURN_FINISHED:
                self.ended_turns.append(task_id)
                answer = TurnAnswer(output=new[-1].output, error=new[-1].error)
                self.signal(*self.turns[task_id], answer.model_dump(mode="json", by_alias=True))
            if self.failures:
                raise Refusal(self.failures.pop(0), "Unavailable")
            return {"length": len(journal)}

    def _call(self, task_id: str, call: Call) -> CallReply:
        key = f"{task_id}:{call.key}"
        with self.lock:
            first = key not in self.answers
            done = self.answers.setdefault(key, threading.Event())
        if first:
            self.sent[key] += 1
            result = self.handler(call)
            self.results[key] = result if isinstance(result, CallReply) else CallReply(result=result)
            done.set()
        done.wait(DEADLINE)
        return self.results[key]

    def ended(self, task_id: str = "t1") -> Entry | None:
        """Return how a run ended, once it has."""
        with self.lock:
            journal = self.journals.get(task_id, [])
            return journal[-1] if journal and journal[-1].kind is Kind.RUN_FINISHED else None


def handler_for(gateway: StandIn) -> type[BaseHTTPRequestHandler]:
    """Return what serves *gateway*."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if gateway.down:
                self.close_connection = True
                self.connection.close()
                return
            try:
                token = self.headers["authorization"].removeprefix("Bearer ")
                answer = gateway.answer(self.path, token, body, gone=self._gone)
            except Refusal as refusal:
                self._send(refusal.status, json.dumps({"reason": refusal.reason, "message": "no"}).encode())
                return
            text = answer.model_dump_json(by_alias=True) if hasattr(answer, "model_dump_json") else json.dumps(answer)
            self._send(200, text.encode())

        def _gone(self) -> bool:
            return bool(select.select([self.connection], [], [], 0)[0])

        def _send(self, status: int, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler


class Server(ThreadingHTTPServer):
    """Says nothing of clients that were killed."""

    daemon_threads = True

    def handle_error(self, *_args: Any) -> None:
        pass


class Pod:
    """An agent process."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.env = env
        self.log = folder / "log"
        self.token = folder / "token"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, **env: str) -> subprocess.Popen[bytes]:
        """Start the process."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fairlead_agent"], env=self.env | env, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        return process

    def events(self) -> list[dict[str, Any]]:
        """Return the lines that it has printed; each must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait for a condition, with a deadline."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    pytest.fail(f"not within {DEADLINE:g} seconds: {what or condition}")


@pytest.fixture
def wait() -> Callable[..., Any]:
    """Provide `until`."""
    return until


@pytest.fixture
def gateway() -> StandIn:
    """Provide the gateway's state."""
    return StandIn()


@pytest.fixture
def pod(gateway: StandIn, tmp_path: Path) -> Iterator[Pod]:
    """Serve the gateway over HTTPS and provide an agent to start."""
    file, pem = certificate(tmp_path)
    server = Server(("127.0.0.1", 0), handler_for(gateway))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    token = tmp_path / "token"
    token.write_text(f"{CANARY}-pod\n")
    env = {
        "PATH": os.environ["PATH"],
        "FAIRLEAD_GATEWAY_URL": f"https://127.0.0.1:{server.server_port}",
        "FAIRLEAD_GATEWAY_CA": pem,
        "FAIRLEAD_TOKEN_FILE": str(token),
        "FAIRLEAD_CONCURRENCY": "2",
        "FAIRLEAD_DRAIN_SECONDS": "5",
    }
    made = Pod(tmp_path, env)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    server.shutdown()
    server.server_close()
    assert CANARY not in (made.log.read_text() if made.log.exists() else ""), "a token is in the log"
