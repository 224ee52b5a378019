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
