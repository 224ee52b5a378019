"""The quickstart's workflow: the agent's engine, the scripted model and the real `sql` tool, without a cluster."""

import asyncio
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.api.v1alpha1.model import Scripted
from fairlead.core.validation import load_documents, validate_documents
from fairlead.llm.base import ChatMessage, ChatRequest
from fairlead.llm.scripted import Script, ScriptedModel
from fairlead.tools.base import ToolContext, ToolFailed
from fairlead.tools.child import Children
from fairlead.tools.registry import Registry
from fairlead.tools.sql import Sql
from fairlead_agent.engine import Execution
from fairlead_agent.inputs import check_inputs
from fairlead_agent.protocol import Call, CallReply, Entry, ErrorInfo, Kind, LogLine, Progress, RunInfo, State, Task

FOLDER = Path(__file__).resolve().parents[3] / "configs/quickstart"
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return document


CSV = load("data.yaml")["data"]["messages.csv"]
MESSAGES = list(csv.DictReader(io.StringIO(CSV)))
RESPONSES = load("model.yaml")["spec"]["scripted"]["responses"]


def expected_label(message: dict[str, str]) -> dict[str, str]:
    """What the script says of a message: the first of its entries that fits, looked up independently."""
    prompt = f"Classify this message to our support team.\n\nSubject: {message['subject']}\n\n{message['text']}"
    reply = next(entry["reply"] for entry in RESPONSES if re.search(entry["match"], prompt))
    label: dict[str, str] = json.loads(reply)
    return label


class NoWaiting:
    """A clock on which scripted latency takes no time."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, _seconds: float) -> None:
        await asyncio.sleep(0)


class Desk:
    """The gateway's part: keeps the journal and answers calls from the script and the real tool."""

    def __init__(self, data: str, script: dict[str, Any]) -> None:
        self.journal: list[Entry] = []
        self.calls: list[Call] = []
        self._data = data
        self._registry = Registry([Sql(Children())])
        self._model = ScriptedModel(Script(Scripted.model_validate(script)), NoWaiting(), Counter())

    async def append(self, first: int, entries: Sequence[Entry], _progress: Progress) -> bool:
        assert first == len(self.journal)
        self.journal += entries
        return False

    async def call(self, call: Call) -> CallReply:
        self.calls.append(call)
        if call.llm is not None:
            messages = tuple(ChatMessage(one.role, one.content) for one in call.llm.messages)
            answer = await self._model.complete(ChatRequest(messages, call.llm.output))
            return CallReply(result=answer.text, scripted=True)
        assert call.tool is not None
        try:
            context = ToolContext(self._read, 60)
            return CallReply(result=await self._registry.use(call.tool.name, call.tool.arguments, context))
        except ToolFailed as error:
            return CallReply(error=ErrorInfo(reason=error.reason, message=str(error), retryable=False))

    async def _read(self, name: str, key: str) -> bytes:
        assert (name, key) == ("support-messages", "messages.csv")
        return self._data.encode()

    def log(self, line: LogLine) -> None:
        pass

    async def flush(self) -> None:
        pass


async def execute(data: str, **given: Any) -> Desk:
    spec = load("workflow.yaml")["spec"]
    inputs, problems = check_inputs(spec["inputs"], given)
    assert problems == []
    desk = Desk(data, load("model.yaml")["spec"]["scripted"])
    info = RunInfo(uid="u", namespace="default", name="quickstart", workflow="support-report")
    task = Task(id="t", attempt=1, run=info, spec=spec, inputs=inputs)
    ticks = iter(range(10**9))
    await Execution(task, port=desk, now=lambda: NOW + timedelta(milliseconds=next(ticks))).run()
    return desk


def finished(desk: Desk) -> dict[str, Entry]:
    return {entry.node: entry for entry in desk.journal if entry.kind is Kind.NODE_FINISHED}


@pytest.fixture(scope="module")
def desk() -> Desk:
    return asyncio.run(execute(CSV, **load("run.yaml")["spec"]["inputs"]))


def test_files_are_valid_together() -> None:
    documents = [
        document for path in sorted(FOLDER.glob("*.yaml")) for document in load_documents(path.read_text()).documents
    ]
    assert validate_documents(documents) == []


def test_data_are_varied_and_small() -> None:
    assert len(MESSAGES) == 240
    assert len({message["text"] for message in MESSAGES}) == 240
    assert {message["channel"] for message in MESSAGES} == {"email", "chat", "form", "phone"}
    assert {message["language"] for message in MESSAGES} == {"en", "de", "es", "fr"}
    assert len((FOLDER / "data.yaml").read_bytes()) < 200_000


def test_run_succeeds_with_every_node(desk: Desk) -> None:
    end = desk.journal[-1]
    assert (end.kind, end.state) == (Kind.RUN_FINISHED, State.SUCCEEDED), (end.reason, end.error)
    states = {name: entry.state for name, entry in finished(desk).items()}
    assert states.pop("all_clear") is State.SKIPPED
    assert set(states.values()) == {State.SUCCEEDED}


def test_every_message_is_classified_as_the_script_says(desk: Desk) -> None:
    labels = finished(desk)["labels"].output
    assert [{key: row[key] for key in ("category", "urgency", "sentiment")} for row in labels] == [
        expected_label(message) for message in MESSAGES
    ]
    assert [row["id"] for row in labels] == [message["id"] for message in MESSAGES]


def test_totals_are_those_of_the_messages(desk: Desk) -> None:
    wanted = [expected_label(message) for message in MESSAGES]
    totals = finished(desk)["totals"].output
    assert {row["category"]: row["messages"] for row in totals} == Counter(one["category"] for one in wanted)
    assert sum(row["urgent"] for row in totals) == sum(one["urgency"] == "high" for one in wanted)
    assert sum(row["unhappy"] for row in totals) == sum(one["sentiment"] == "negative" for one in wanted)
    assert sum(row["percent"] for row in totals) == pytest.approx(100, abs=0.5)


def test_channels_are_those_of_the_messages(desk: Desk) -> None:
    channels = finished(desk)["channels"].output
    assert {row["channel"]: row["messages"] for row in channels} == Counter(one["channel"] for one in MESSAGES)


def test_only_urgent_messages_are_answered_enterprise_first(desk: Desk) -> None:
    answers = finished(desk)["answers"].output
    by_id = {message["id"]: message for message in MESSAGES}
    assert len(answers) == 10
    assert all(expected_label(by_id[row["id"]])["urgency"] == "high" for row in answers)
    tiers = ["enterprise", "team", "free"]
    ranks = [tiers.index(row["tier"]) for row in answers]
    assert ranks == sorted(ranks)
    assert all(row["answer"] and row["body"] for row in answers)


def test_report_has_the_figures_and_the_answers(desk: Desk) -> None:
    report = desk.journal[-1].output
    assert report.startswith("# Support report\n\n240 messages, ")
    for row in finished(desk)["totals"].output:
        assert f"| {row['category']} | {row['messages']} |" in report
    for row in finished(desk)["answers"].output:
        assert f"### {row['id']} · {row['subject']}" in report
    assert "{{" not in report


def test_model_is_asked_once_for_each_message_and_answer(desk: Desk) -> None:
    asked = Counter(call.node for call in desk.calls)
    assert (asked["classify"], asked["reply"], asked["escalate"], asked["digest"]) == (240, 10, 1, 1)


async def test_run_without_urgent_messages_takes_the_other_branch() -> None:
    calm = [message for message in MESSAGES if expected_label(message)["urgency"] == "low"][:5]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(calm[0]))
    writer.writeheader()
    writer.writerows(calm)
    desk = await execute(text.getvalue())
    states = {name: (entry.state, entry.reason) for name, entry in finished(desk).items()}
    assert states["all_clear"][0] is State.SUCCEEDED
    assert states["reply"] == (State.SKIPPED, "WhenFalse")
    assert states["answers"] == (State.SKIPPED, "NeedsSkipped")
    report = desk.journal[-1].output
    assert "Nothing is urgent today." in report
    assert "No enterprise customer is affected." in report


async def test_run_with_fewer_messages_and_answers() -> None:
    desk = await execute(CSV, messages=60, replies=2)
    assert len(finished(desk)["labels"].output) == 60
    assert len(finished(desk)["answers"].output) == 2
