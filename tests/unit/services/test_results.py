"""Which results of an earlier run a rerun may use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fairlead.services.results import Results, results_of
from fairlead.storage.base import Run, Storage
from fairlead.testing.clock import FakeClock
from fairlead.testing.simulation import Simulation
from fairlead.testing.storage import make_run
from fairlead_agent.protocol import Rerun


def finished(node: str, item: str | None = None, state: str = "Succeeded", **more: Any) -> dict[str, Any]:
    kind = "NodeFinished" if item is None else "ItemFinished"
    return {
        "kind": kind,
        "node": node,
        "state": state,
        "digest": "d",
        **({} if item is None else {"item": item}),
        **more,
    }


def test_results_of_a_journal_are_what_succeeded() -> None:
    good = finished("a")
    assert results_of([{"kind": "NodeStarted", "node": "a"}, good, finished("b", state="Failed")]) == [good]


def test_results_of_a_node_that_went_on_without_an_item_are_its_other_items() -> None:
    journal = [
        finished("a", "0"),
        finished("a", "", "Failed"),
        finished("a"),
        finished("a", iteration=2),
        finished("b"),
    ]
    used = results_of(journal)
    assert [(one["node"], one.get("item"), one.get("iteration", 1)) for one in used] == [
        ("a", "0", 1),
        ("a", None, 2),
        ("b", None, 1),
    ]


EACH = {
    "name": "each",
    "forEach": "inputs.x",
    "tool": {"name": "echo", "arguments": {"x": "{{ item }}"}},
}
INNER = {
    "inputs": [{"name": "k"}, {"name": "y"}],
    "nodes": [
        {"name": "p", "tool": {"name": "echo", "arguments": {"k": "{{ inputs.k }}"}}},
        {"name": "q", "needs": ["p"], "tool": {"name": "echo", "arguments": {"y": "{{ inputs.y }}"}}},
    ],
}
WITHIN = {
    "name": "each",
    "forEach": "inputs.x",
    "workflow": {"name": "inner", "inputs": {"k": "{{ item }}", "y": "{{ inputs.y }}"}},
}


@dataclass
class History:
    """Runs, each a rerun of the one before, as storage keeps them."""

    node: dict[str, Any] = field(default_factory=lambda: EACH)
    records: dict[str, Run] = field(default_factory=dict)
    journals: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)

    async def get_run(self, uid: str) -> Run | None:
        return self.records.get(uid)

    async def tasks_of_run(self, uid: str) -> list[Any]:
        return [SimpleNamespace(id=uid, kind="run"), SimpleNamespace(id="turn", kind="turn")]

    async def journal(self, task_id: str) -> list[Mapping[str, Any]]:
        self.read.append(task_id)
        return self.journals[task_id]

    def told(self, of: str, from_: str = "Failed") -> Rerun:
        """Return what the engine of a rerun is told."""
        results = Results(cast("Storage", self), FakeClock(), cast("Any", None))
        return Rerun.model_validate(asyncio.run(results.rerun(make_run("next", rerun_of=of, rerun_from=from_))))

    def run(self, uid: str, *, of: str = "", from_: str = "Failed", fails: str = "", **inputs: Any) -> list[str]:
        """Run once more; return what was done and not taken over."""

        async def echo(call: Any) -> Any:
            if call.node == fails:
                raise Simulation.tool_error("ToolFailed", retryable=False)
            return call.tool.arguments

        spec = {"inputs": [{"name": "x", "type": "array"}, {"name": "y"}], "nodes": [self.node]}
        world = Simulation().finish(
            spec,
            inputs={"y": "", **inputs},
            workflows={"inner": INNER},
            handler=echo,
            uid=uid,
            rerun=self.told(of, from_) if of else None,
        )
        self.records[uid] = make_run(uid, rerun_of=of)
        self.journals[uid] = [entry.model_dump(mode="json", by_alias=True) for entry in world.journal]
        return sorted(key.rsplit("/", 3)[0].removesuffix("/-") for key in world.sent)


def test_rerun_of_a_rerun_knows_the_items_of_a_node_that_was_taken_over_as_a_whole() -> None:
    history = History()
    history.run("first", x=[1, 2, 3])
    assert history.run("second", of="first", x=[1, 2, 3]) == []
    assert history.run("third", of="second", x=[1, 2, 3]) == []
    assert history.run("fourth", of="third", x=[1, 2, 3, 4]) == ["each/=3"]
    assert history.run("fifth", of="fourth", x=[0, 4, 3, 2, 1]) == ["each/=0"]


def test_rerun_of_a_rerun_knows_what_is_inside_a_workflow_that_was_taken_over_as_a_whole() -> None:
    history = History(WITHIN)
    assert len(history.run("first", x=["a", "b"], y="1")) == 4
    assert history.run("second", of="first", x=["a", "new"], y="1") == ["each[1]/p"]
    assert history.run("third", of="second", x=["a", "new"], y="1") == []
    assert history.run("fourth", of="third", x=["a", "new"], y="2") == ["each[0]/q", "each[1]/q"]


def test_rerun_of_a_rerun_does_again_what_failed_there() -> None:
    history = History(WITHIN)
    history.run("first", x=["a", "b"], y="1")
    history.run("second", of="first", from_="each", x=["a", "b"], y="1", fails="each[1]/p")
    assert history.run("third", of="second", x=["a", "b"], y="1") == ["each[0]/q", "each[1]/p", "each[1]/q"]


@pytest.mark.parametrize("gone", ["forgotten", "elsewhere"])
def test_rerun_takes_what_there_is_when_an_older_run_is_gone(gone: str) -> None:
    history = History()
    history.run("first", x=[1, 2])
    history.run("second", of="first", x=[1, 2])
    if gone == "forgotten":
        del history.records["first"]
    else:
        history.records["first"] = replace(history.records["first"], namespace="other")
    assert history.run("third", of="second", x=[1, 2]) == []
    assert history.run("fourth", of="third", x=[1, 2, 3]) == ["each/=0", "each/=1", "each/=2"]


def test_rerun_follows_a_chain_so_far_and_no_further() -> None:
    history = History()
    history.run("0", x=[1])
    for number in range(1, 25):
        history.run(str(number), of=str(number - 1), x=[1])
    history.read.clear()
    assert [entry.item for entry in history.told("19").entries] == [None, "0"]
    assert [entry.item for entry in history.told("20").entries] == [None]
    assert len(history.read) == 40
