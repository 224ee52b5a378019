"""A reference model of the semantics, which random workflows are held against: it interprets one node after the other.

The model has no scheduler: it goes through the nodes in the order of their needs, through regions in a loop, and into
sub-workflows by recursion, and adds up what everything would take if nothing waited for what it does not need.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from typing import Any, NamedTuple
from zlib import crc32

from fairlead_agent.graph import Outcome, Work
from fairlead_agent.graph.paths import HANDLERS, ON_FAILURE
from fairlead_agent.protocol import ErrorInfo, State

LISTS = {"[]": {}, "[1, 2, 3]": {"0": 1, "1": 2, "2": 3}, "{'b': 1, 'a': 2}": {"a": 2, "b": 1}}
"""What the ``forEach`` of random workflows gives: the items by their keys."""


def canonical(value: Any) -> Any:
    """Leave out which of several errors came first, and when."""
    if isinstance(value, dict):
        if value.keys() in ({"reason", "message"}, {"until"}):
            return min(value)
        return {key: canonical(value[key]) for key in sorted(value)}
    return [canonical(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Oracle:
    """Says how each try ends, and how long it takes; every output depends on all that the try is given."""

    seed: int
    failing: int
    """Per cent."""

    def _draw(self, *key: Any) -> int:
        return crc32(repr((self.seed, key)).encode())

    def __call__(self, work: Work, given: Any) -> Outcome:
        """Return how a try ends."""
        key = (work.node, work.item, work.iteration, work.try_number)
        if self._draw("fails", *key) % 100 < self.failing:
            return Outcome(error=ErrorInfo(reason="ToolFailed", message="no"))
        return Outcome(f"{self._draw(key, canonical(given)):x}")

    def seconds(self, work: Work) -> float:
        """Return how long a try takes."""
        return float(self._draw("takes", work.node, work.item, work.iteration) % 9)


class Region(NamedTuple):
    """What goes round, and its round: `before` is what its members had given when it began."""

    members: frozenset[str]
    round: int
    before: dict[str, Any]


class Ended(NamedTuple):
    """How something ended, and when."""

    state: State
    output: Any
    at: float


@dataclass
class Model:
    """The semantics, by the book."""

    workflows: dict[str, Any]
    oracle: Oracle
    records: dict[tuple[str, str | None, int], Ended] = field(default_factory=dict)
    failures: int = 0

    def run(self, spec: dict[str, Any]) -> Ended:
        """Interpret a whole run."""
        return self.workflow(spec, "", {}, 0.0)

    def workflow(self, spec: dict[str, Any], prefix: str, inputs: dict[str, Any], start: float) -> Ended:
        """Interpret one workflow that begins at *start*: its nodes, then its handlers."""
        ended = self.nodes(spec, prefix, inputs, start)
        good = ended.state is State.SUCCEEDED
        for name, field_ in HANDLERS.items():
            if field_ not in spec or (good and name == ON_FAILURE):
                continue
            handling = Handling(self, spec[field_], prefix, name, ended)
            handled = self.records[prefix + name, None, 1] = handling.unit(name, None, 1, [], ended.at)
            ended = ended._replace(at=handled.at, state=handled.state if good else ended.state)
        return ended

    def nodes(self, spec: dict[str, Any], prefix: str, inputs: dict[str, Any], start: float) -> Ended:
        """Interpret the nodes of a workflow."""
        inside = Interpreter(self, spec, prefix, inputs)
        inside.level(frozenset(inside.nodes), "", [], start)
        if inside.settled != inside.nodes.keys():
            return Ended(State.FAILED, None, start)
        needed = {need for node in inside.nodes.values() for need in node["needs"]}
        output = {name: value for name, value in inside.outputs.items() if name not in needed}
        return Ended(State.SUCCEEDED, output, max(inside.free.values()))


class Interpreter:
    """One workflow."""

    def __init__(self, model: Model, spec: dict[str, Any], prefix: str, inputs: dict[str, Any]) -> None:
        self.model, self.prefix, self.inputs = model, prefix, inputs
        self.nodes = {node["name"]: node for node in spec["nodes"]}
        self.outputs: dict[str, Any] = {}
        self.states: dict[str, State] = {}
        self.free: dict[str, float] = {}
        """When those may go on who need a node."""
        self.settled: set[str] = set()
        self.turns: dict[str, int] = {}

    def paths(self, first: str, last: str) -> Iterator[set[str]]:
        """Yield the nodes of every path from *first* to *last*."""
        if first == last:
            yield {last}
        for need in self.nodes[last]["needs"]:
            yield from ({*path, last} for path in self.paths(first, need))

    def members(self, end: str) -> frozenset[str]:
        """Return what the ``repeat`` of *end* repeats."""
        return frozenset().union(*self.paths(self.nodes[end]["repeat"]["from"], end))

    def ancestors(self, name: str) -> set[str]:
        """Return what a node needs, directly or not."""
        needs = self.nodes[name]["needs"]
        return set(needs).union(*(self.ancestors(need) for need in needs))

    def level(self, names: frozenset[str], end: str, around: list[Region], start: float) -> None:
        """Go once through the nodes of a region, or of the workflow."""
        loops = {one: self.members(one) for one in names if one != end and "repeat" in self.nodes[one]}
        self.settled -= names
        todo = [name for name in self.nodes if name in names]
        while name := next((one for one in todo if self.settled.issuperset(self.nodes[one]["needs"])), ""):
            inner = max((one for one in loops if name in loops[one]), key=lambda one: len(loops[one]), default="")
            if inner:
                self.region(inner, loops[inner], around, start)
            else:
                self.node(name, around, start)
            todo = [one for one in todo if one != name and one not in loops.get(inner, ())]

    def region(self, end: str, members: frozenset[str], around: list[Region], start: float) -> None:
        """Go through a region until it is good, or often enough."""
        repeat = self.nodes[end]["repeat"]
        for number in range(1, repeat["maxIterations"] + 1):
            before = {name: self.outputs.get(name) for name in members}
            rounds = [*around, Region(members, number, before)]
            self.level(members, end, rounds, start)
            start = self.free.get(end, start)
            if end not in self.settled:
                return
            if self.states[end] is not State.SUCCEEDED or self.holds(repeat["until"], end, rounds, of_end=True):
                break
        self.free |= dict.fromkeys(members, start)

    def node(self, name: str, around: list[Region], start: float) -> None:
        """Let a node have its turn."""
        node = self.nodes[name]
        turn = self.turns[name] = self.turns.get(name, 0) + 1
        start = max([start, *(self.free[need] for need in node["needs"])])
        if (node["needs"] and all(self.states[need] is State.SKIPPED for need in node["needs"])) or not self.holds(
            node.get("when", "true"), name, around
        ):
            ended = Ended(State.SKIPPED, None, start)
        elif "forEach" in node:
            ended = self.each(name, turn, around, start)
        else:
            ended = self.unit(name, None, turn, around, start)
        self.end(name, turn, ended, around)

    def end(self, name: str, turn: int, ended: Ended, around: list[Region]) -> None:
        """Take note of how a node ended."""
        node, goes_on = self.nodes[name], self.nodes[name].get("onError") == "Continue"
        self.outputs[name] = ended.output
        repeat = node.get("repeat")
        if repeat and ended.state is State.SUCCEEDED and repeat["onExhausted"] == "Fail":
            exhausted = around[-1].round >= repeat["maxIterations"]
            if exhausted and not self.holds(repeat["until"], name, around, of_end=True):
                ended = Ended(State.FAILED, "message" if goes_on else None, ended.at)
                self.outputs[name] = ended.output
        self.model.failures += ended.state is State.FAILED
        self.model.records[self.prefix + name, None, turn] = ended
        self.states[name], self.free[name] = ended.state, ended.at
        if ended.state is not State.FAILED or (goes_on and "forEach" not in node):
            self.settled.add(name)

    def each(self, name: str, turn: int, around: list[Region], start: float) -> Ended:
        """Go through the items of a node."""
        node = self.nodes[name]
        values = LISTS[node["forEach"]]
        slots = [start] * node.get("maxParallel", 8)
        heapify(slots)
        results = {}
        for key in values:
            results[key] = self.unit(name, key, turn, around, slots[0])
            self.model.records[self.prefix + name, key, turn] = results[key]
            heapreplace(slots, results[key].at)
        outputs = {key: result.output for key, result in results.items()}
        at = max((result.at for result in results.values()), default=start)
        if any(result.state is State.FAILED for result in results.values()):
            self.model.failures += 1
            if node.get("onError") != "Continue":
                return Ended(State.FAILED, None, at)
        return Ended(State.SUCCEEDED, outputs if node["forEach"][0] == "{" else list(outputs.values()), at)

    def unit(self, name: str, item: str | None, turn: int, around: list[Region], at: float) -> Ended:
        """Try a node, or one of its items, as often as it may."""
        node, limit = self.nodes[name], self.nodes[name].get("retry", {}).get("limit", 0)
        for number in range(1, limit + 2):
            ended = self.attempt(Work(self.prefix + name, item, turn, number), name, around, at)
            if ended.state is State.SUCCEEDED:
                return ended
            self.model.failures += 1
            at = ended.at + (2.0**number if number <= limit else 0)
        return Ended(State.FAILED, "message" if node.get("onError") == "Continue" else None, at)

    def attempt(self, work: Work, name: str, around: list[Region], at: float) -> Ended:
        """Return how one try ends."""
        node = self.nodes[name]
        if "wait" in node:
            return Ended(State.SUCCEEDED, "until", at + node["wait"]["seconds"])
        if "workflow" in node:
            inputs = {
                key: self.value(text, name, work.item, around) for key, text in node["workflow"]["inputs"].items()
            }
            spec = self.model.workflows[node["workflow"]["name"]]
            return self.model.workflow(spec, work.prefix, inputs, at)
        given = node["tool"]["arguments"] if "tool" in node else {}
        sees = {key: self.value(text, name, work.item, around) for key, text in given.items()}
        outcome = self.model.oracle(work, sees if "tool" in node else None)
        state = State.SUCCEEDED if outcome.error is None else State.FAILED
        return Ended(state, outcome.output, at + self.model.oracle.seconds(work))

    def value(self, text: str, name: str, item: str | None, around: list[Region]) -> Any:
        """Return what ``{{ … }}`` gives."""
        match text.strip("{} ").split("."):
            case ["outputs", other] if other.endswith(" == null"):
                return self.seen(other.removesuffix(" == null"), name, around) is None
            case ["outputs", other]:
                return self.seen(other, name, around)
            case ["inputs", key]:
                return self.inputs.get(key)
            case ["iteration"]:
                return around[-1].round if around else 1
            case ["item"]:
                return LISTS[self.nodes[name]["forEach"]][item or ""]
            case ["item > 1"]:
                return LISTS[self.nodes[name]["forEach"]][item or ""] > 1
            case unknown:
                raise AssertionError(unknown)

    def seen(self, other: str, name: str, around: list[Region]) -> Any:
        """Return the output of *other* as *name* sees it."""
        if other in self.ancestors(name):
            return self.outputs[other]
        return next(region for region in reversed(around) if other in region.members).before.get(other)

    def holds(self, text: str, name: str, around: list[Region], *, of_end: bool = False) -> bool:
        """Return whether a condition is true."""
        if text in ("true", "false"):
            return text == "true"
        if found := re.fullmatch(r"iteration >= (\d)", text):
            return (around[-1].round if around else 1) >= int(found[1])
        other = text.removeprefix("outputs.").removesuffix(" == null")
        return (self.outputs[name] if of_end and other == name else self.seen(other, name, around)) is None


class Handling(Interpreter):
    """A handler of a workflow that ends."""

    def __init__(self, model: Model, handler: dict[str, Any], prefix: str, name: str, end: Ended) -> None:
        super().__init__(model, {"nodes": [{**handler, "name": name}]}, prefix, {})
        self.run = end

    def value(self, text: str, name: str, item: str | None, around: list[Region]) -> Any:
        """Return what ``{{ … }}`` gives: how the workflow ended, or what it gave."""
        del name, item, around
        good, asked = self.run.state is State.SUCCEEDED, text.strip("{} ")
        if asked.endswith((".state", ".reason")):
            return self.run.state.value if asked == "run.state" else "Succeeded" if good else "NodeFailed"
        return self.run.output[asked.rpartition(".")[2]] if good else None
