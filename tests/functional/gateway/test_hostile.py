"""An agent that is taken over: it has a valid session and sends whatever it likes."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.testing.world import World

DEEP = "[" * 5000 + "]" * 5000
AT = '"at": "2026-01-02T03:04:05Z"'
ENTRY = '{"kind": "NodeFinished", "node": "greet", "state": "Succeeded", %s, %s}'


def append(entry: str, *, first: str = "0") -> str:
    return f'{{"attempt": 1, "first": {first}, "entries": [{entry}]}}'


BODIES = {
    "deep": append(ENTRY % (AT, f'"output": {DEEP}')),
    "less-deep": append(ENTRY % (AT, f'"output": {"[" * 190}{"]" * 190}')),
    "huge-integer": append(ENTRY % (AT, f'"output": {"9" * 400}')),
    "huge-integer-inside": append(ENTRY % (AT, f'"output": {{"a": [{"9" * 4000}]}}')),
    "not-a-number": append(ENTRY % (AT, '"output": [NaN, Infinity, -Infinity]')),
    "surrogate": append(ENTRY % (AT, '"output": "\\ud800"')),
    "zero-byte": append(ENTRY % (AT, '"output": "a\\u0000b", "reason": "\\u0000"')),
    "zero-byte-in-key": append(ENTRY % (AT, '"output": {"\\u0000": 1}')),
    "naive-time": append(ENTRY % ('"at": "2026-01-02T03:04:05"', '"output": 1')),
    "early-time": append(ENTRY % ('"at": "0001-01-01T00:00:00+23:59"', '"output": 1')),
    "late-time": append(ENTRY % ('"at": "9999-12-31T23:59:59-23:59"', '"output": 1')),
    "huge-iteration": append(ENTRY % (AT, f'"iteration": {"9" * 300}')),
    "large-iteration": append(ENTRY % (AT, f'"iteration": {2**70}')),
    "large-try": append(ENTRY % (AT, f'"tryNumber": {2**70}')),
    "negative-try": append(ENTRY % (AT, '"tryNumber": -1')),
    "far-first": append(ENTRY % (AT, '"output": 1'), first=str(2**70)),
    "no-state": append('{"kind": "RunFinished", "at": "2026-01-02T03:04:05Z"}'),
    "skipped-run": append('{"kind": "RunFinished", "at": "2026-01-02T03:04:05Z", "state": "Skipped"}'),
    "long-node": append(ENTRY.replace("greet", "n" * 100_000) % (AT, '"output": 1')),
    "million-entries": append(",".join(['{"kind":"NodeStarted","at":"2026-01-02T03:04:05Z"}'] * 400_000)),
    "progress": f'{{"attempt": 1, "first": 0, "entries": [], "progress": {{"done": {2**70}, "total": 1}}}}',
    "attempt": f'{{"attempt": {2**70}, "first": 0, "entries": []}}',
}


@pytest.mark.parametrize("name", BODIES)
async def test_append_of_anything_is_answered_and_never_a_failure(world: World, name: str) -> None:
    await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    headers = {"Authorization": f"Bearer {pod.session}"}

    answer = await pod.client.post(f"/v1/tasks/{task['id']}/journal", content=BODIES[name], headers=headers, timeout=60)

    assert answer.status_code in {200, 409, 413, 422}, answer.text
    assert (await pod.post("/heartbeat", {"tasks": [task["id"]]})).status_code == 200


CALLS: dict[str, dict[str, Any]] = {
    "huge-key": {"key": f"greet/-/1/1/{'9' * 5000}"},
    "other-digits": {"key": "greet/-/\u0661/1/1"},
    "long-key": {"key": "x" * 1_000_000},
    "huge-parameter": {"llm": {"model": "default", "messages": [], "parameters": {"seed": 10**400}}},
    "long-item": {"item": "x" * 1_000_000},
    "zero-item": {"item": "\x00"},
    "long-digest": {"digest": "x" * 1_000_000},
    "huge-attempt": {"attempt": 2**70},
    "long-timeout": {"timeoutSeconds": 10**12},
    "other-node": {"node": "slow"},
    "other-model": {"llm": {"model": "cloud", "messages": []}},
    "both": {"tool": {"name": "sql"}},
    "million-messages": {"llm": {"model": "default", "messages": [{"role": "user", "content": ""}] * 300_000}},
    "tools-of-another-node": {"llm": {"model": "default", "messages": [], "tools": ["json_query"]}},
    "node-that-does-something-else": {"node": "ship", "key": "ship/-/1/1/1"},
    "forged-path": {"node": "greet/-/1/1/1", "key": "greet/-/1/1/1/-/1/1/1"},
    "path-into-nowhere": {"node": "greet/greet", "key": "greet/greet/-/1/1/1"},
    "path-that-only-looks-like-one": {"node": "greet[0]#2.1", "key": "greet[0]#2.1/-/1/1/1"},
    "approved-tool-without-approval": {
        "node": "loop",
        "key": "loop/-/1/1/2",
        "action": "tool",
        "llm": None,
        "tool": {"name": "guarded", "arguments": {"data": {}}},
    },
    "tool-of-nobody": {
        "node": "loop",
        "key": "loop/-/1/1/2",
        "action": "tool",
        "llm": None,
        "tool": {"name": "http_request", "arguments": {}},
    },
}


@pytest.mark.parametrize("name", CALLS)
async def test_call_of_anything_is_answered_and_never_a_failure(world: World, name: str) -> None:
    await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    llm = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    usual = {"attempt": 1, "key": "greet/-/1/1/1", "digest": "d", "action": "llm", "node": "greet", "llm": llm}

    answer = await pod.post(f"/tasks/{task['id']}/calls", usual | CALLS[name])

    assert answer.status_code in {403, 409, 422}, answer.text


JOURNALS: dict[str, dict[str, Any]] = {
    "unknown-node": {"kind": "NodeStarted", "node": "absent"},
    "node-of-another-workflow": {"kind": "NodeStarted", "node": "greet/greet"},
    "odd-path": {"kind": "NodeStarted", "node": "greet["},
    "item-in-a-path": {"kind": "NodeStarted", "node": "inner/greet[0]"},
    "handler-that-is-not-there": {"kind": "NodeStarted", "node": "@finally"},
    "end-of-a-turn": {"kind": "TurnFinished", "state": "Succeeded"},
}


@pytest.mark.parametrize("name", JOURNALS)
async def test_append_of_what_the_workflow_does_not_have_is_refused(world: World, name: str) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    answer = await pod.append(task, 0, JOURNALS[name])
    assert (answer.status_code, answer.json()["reason"]) == (422, "InvalidRequest")
    assert await world.storage.nodes_of_run(run.uid) == []
    assert await world.storage.journal(task["id"]) == []


QUESTIONS: dict[str, dict[str, Any]] = {
    "node-that-asks-nobody": {"node": "greet", "key": "greet/-/1/1/1"},
    "key-of-another-node": {"key": "named/-/1/1/1"},
    "tool-that-needs-no-approval": {
        "node": "loop",
        "key": "loop/-/1/1/2",
        "tool": {"name": "json_query", "arguments": {}},
    },
    "tool-of-nobody": {"node": "loop", "key": "loop/-/1/1/2", "tool": {"name": "sql", "arguments": {}}},
    "endless": {"timeoutSeconds": -1},
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_approval_that_the_workflow_does_not_ask_for_is_refused(world: World, name: str) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    usual = {"key": "ship/-/1/1/1", "node": "ship", "message": "?"}
    assert (await pod.task(task, "approvals", **usual | QUESTIONS[name])).status_code in {403, 422}
    assert await world.storage.approvals_of_run(run.uid) == []


TURNS: dict[str, dict[str, Any]] = {
    "another-agent": {"agent": "default"},
    "node-that-hands-nothing": {"node": "greet", "key": "greet/-/1/1/1"},
    "key-of-another-node": {"key": "ship/-/1/1/1"},
    "unknown-node": {"node": "absent", "key": "absent/-/1/1/1"},
}


@pytest.mark.parametrize("name", TURNS)
async def test_turn_that_the_workflow_does_not_ask_for_is_refused(world: World, name: str) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    usual = {"key": "fix/-/1/1/1", "node": "fix", "agent": "engineer", "prompt": "x"}
    assert (await pod.task(task, "turns", **usual | TURNS[name])).status_code in {403, 422}
    assert [task.kind for task in await world.storage.tasks_of_run(run.uid)] == ["run"]


IN_A_TURN: dict[str, tuple[str, dict[str, Any]]] = {
    "end-of-the-run": ("journal", {"first": 0, "entries": [{"kind": "RunFinished", "state": "Succeeded"}]}),
    "node-of-the-run": (
        "journal",
        {"first": 0, "entries": [{"kind": "NodeFinished", "node": "fix", "state": "Failed"}]},
    ),
    "model-of-somebody-else": ("calls", {"llm": {"model": "cloud", "messages": []}}),
    "tool-of-somebody-else": ("calls", {"action": "tool", "tool": {"name": "sql", "arguments": {}}}),
    "another-node": ("calls", {"node": "greet", "key": "greet/-/1/1/1"}),
    "another-iteration": ("calls", {"key": "fix/-/2/1/1"}),
    "another-item": ("calls", {"key": "fix/=0/1/1/1", "item": "0"}),
    "turn-within": ("turns", {"key": "fix/-/1/1/2", "node": "fix", "agent": "engineer", "prompt": "x"}),
    "question-without-a-graph": ("approvals", {"key": "fix/-/1/1/2", "node": "fix", "message": "?"}),
    "question-of-the-run": ("approvals", {"key": "ship/-/1/1/1", "node": "ship", "message": "?"}),
}


@pytest.mark.parametrize("name", IN_A_TURN)
async def test_turn_does_only_what_its_agent_may(world: World, name: str) -> None:
    run = await world.submit()
    pod, engineer = await world.pod("agent-0"), await world.pod("engineer-0", agent="engineer")
    (task,) = await pod.claim()
    await pod.task(task, "turns", key="fix/-/1/1/1", node="fix", agent="engineer", prompt="x")
    (turn,) = await engineer.claim(waitSeconds=20)
    what, changes = IN_A_TURN[name]
    body: dict[str, Any] = dict(changes)
    if what == "calls":
        body = {"key": "fix/-/1/1/1", "digest": "d", "action": "llm", "node": "fix", **changes}
        if "llm" not in body and body["action"] == "llm":
            body["llm"] = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    for entry in body.get("entries", ()):
        entry["at"] = "2026-01-02T03:04:05Z"

    answer = await engineer.task(turn, what, **body)

    assert answer.status_code in {403, 422}, answer.text
    stored = await world.storage.get_run(run.uid)
    assert stored is not None
    assert not stored.state.final
    assert await world.storage.calls_of_run(run.uid) == []
    assert await world.storage.approvals_of_run(run.uid) == []


async def test_pod_of_another_pool_cannot_wait_park_ask_or_look_for_this_task(world: World) -> None:
    run = await world.submit()
    owner, stranger = await world.pod("agent-0"), await world.pod("agent-1", agent="other")
    (task,) = await owner.claim()
    await owner.task(task, "approvals", key="ship/-/1/1/1", node="ship", message="?")
    answers = {
        "signals": await stranger.task(task, "signals", keys=["ship/-/1/1/1"], waitSeconds=0),
        "park": await stranger.task(task, "park"),
        "approvals": await stranger.task(task, "approvals", key="ship/-/1/1/2", node="ship", message="?"),
        "turns": await stranger.task(task, "turns", key="fix/-/1/1/1", node="fix", agent="engineer", prompt="x"),
        "turns/cancel": await stranger.task(task, "turns/cancel", keys=["fix/-/1/1/1"]),
        "cache": await stranger.task(task, "cache", node="greet", digest="d", maxAgeSeconds=1),
    }
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 409)
    assert len(await world.storage.approvals_of_run(run.uid)) == 1
