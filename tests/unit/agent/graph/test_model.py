"""Random workflows, held against a reference model that interprets them one node after the other.

The model has no scheduler: it goes through the nodes in the order of their needs, through regions in a loop, and into
sub-workflows by recursion, and adds up what everything would take if nothing waited for what it does not need.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from itertools import count
from typing import Any, NamedTuple
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_agent.graph import Outcome, Work
from fairlead_agent.graph.paths import HANDLERS, ON_FAILURE
from fairlead_agent.graph.structure import Structure
from fairlead_agent.protocol import Entry, ErrorInfo, Kind, State

LISTS = {"[]": {}, "[1, 2, 3]": {"0": 1, "1": 2, "2": 3}, "{'b': 1, 'a': 2}": {"a": 2, "b": 1}}


def canonical(value: Any) -> Any:
    """Leave out which of several errors came first, and when."""
    if isinstance(value, dict):
        if value.keys() in ({"reason", "message"}, {"until"}):
            return min(value)
        return {key: canonical(value[key]) for key in sorted(value)}
    return [canonical(one) for one in value] if isinstance(value, list) else value


def root(path: str) -> str:
    """Return the node of the workflow itself that a path begins with."""
    return re.split(r"[/\[#]", path, maxsplit=1)[0]


@dataclass(frozen=True)
class Oracle:
    """Says how each try ends, and how long it takes; every output depends on all that the try is given."""

    seed: int
    failing: int
    """Per cent."""

    def _draw(self, *key: Any) -> int:
        return crc32(repr((self.seed, key)).encode())

    def __call__(self, work: Work, given: Any) -> Outcome:
        key = (work.node, work.item, work.iteration, work.try_number)
        if self._draw("fails", *key) % 100 < self.failing:
            return Outcome(error=ErrorInfo(reason="ToolFailed", message="no"))
        return Outcome(f"{self._draw(key, canonical(given)):x}")

    def seconds(self, work: Work) -> float:
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
        """Interpret a whole run: its nodes, then its handlers."""
        ended = self.workflow(spec, "", {}, 0.0)
        good = ended.state is State.SUCCEEDED
        for path, name in HANDLERS.items():
            if name not in spec or (good and path == ON_FAILURE):
                continue
            handled = self.records[path, None, 1] = Handling(self, path, spec[name], ended).unit(
                path, None, 1, [], ended.at
            )
            ended = ended._replace(at=handled.at, state=handled.state if good else ended.state)
        return ended

    def workflow(self, spec: dict[str, Any], prefix: str, inputs: dict[str, Any], start: float) -> Ended:
        """Interpret one workflow that begins at *start*."""
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
        return frozenset().union(*self.paths(self.nodes[end]["repeat"]["from"], end))

    def ancestors(self, name: str) -> set[str]:
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
        node, limit = self.nodes[name], self.nodes[name].get("retry", {}).get("limit", 0)
        for number in range(1, limit + 2):
            ended = self.attempt(Work(self.prefix + name, item, turn, number), name, around, at)
            if ended.state is State.SUCCEEDED:
                return ended
            self.model.failures += 1
            at = ended.at + (2.0**number if number <= limit else 0)
        return Ended(State.FAILED, "message" if node.get("onError") == "Continue" else None, at)

    def attempt(self, work: Work, name: str, around: list[Region], at: float) -> Ended:
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
        if other in self.ancestors(name):
            return self.outputs[other]
        return next(region for region in reversed(around) if other in region.members).before.get(other)

    def holds(self, text: str, name: str, around: list[Region], *, of_end: bool = False) -> bool:
        if text in ("true", "false"):
            return text == "true"
        if found := re.fullmatch(r"iteration >= (\d)", text):
            return (around[-1].round if around else 1) >= int(found[1])
        other = text.removeprefix("outputs.").removesuffix(" == null")
        return (self.outputs[name] if of_end and other == name else self.seen(other, name, around)) is None


class Handling(Interpreter):
    """A handler of a run that ends."""

    def __init__(self, model: Model, path: str, handler: dict[str, Any], end: Ended) -> None:
        super().__init__(model, {"nodes": [{**handler, "name": path}]}, "", {})
        self.run = end

    def value(self, text: str, name: str, item: str | None, around: list[Region]) -> Any:
        del name, item, around
        good, asked = self.run.state is State.SUCCEEDED, text.strip("{} ")
        if asked.endswith((".state", ".reason")):
            return self.run.state.value if asked == "run.state" else "Succeeded" if good else "NodeFailed"
        return self.run.output[asked.rpartition(".")[2]] if good else None


class Author:
    """Writes random workflows: any graph, its nodes conditional, looped, repeated, retried, nested, with handlers."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a test's choice
        self.size = size

    def maybe(self, share: float) -> bool:
        return self.random.random() < share

    def some(self, among: list[str], most: int) -> list[str]:
        return self.random.sample(among, min(len(among), self.random.randint(0, most)))

    def project(self) -> dict[str, Any]:
        """Return a workflow and those that it runs."""
        inputs = {"inputs": [{"name": "x", "type": "boolean"}]}
        inner = self.workflow() | inputs
        middle = self.workflow("inner") | inputs
        for node in (*inner["nodes"], *middle["nodes"]):
            if "tool" in node:
                node["tool"]["arguments"]["given"] = "{{ inputs.x }}"
        spec = self.workflow("inner", "middle")
        for name in HANDLERS.values():
            if self.maybe(0.3):
                spec[name] = self.handler(spec)
        return {"spec": spec, "workflows": {"inner": inner, "middle": middle}}

    def handler(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Return a handler; of nodes it sees what a good run gives, for what a failing one has left depends on time."""
        found: dict[str, Any] = {"timeoutSeconds": 86_400}
        if self.maybe(0.4):
            found["retry"] = {"limit": 1, "backoffSeconds": 2, "on": ["ToolFailed"]}
        if self.maybe(0.25):
            return found | {"workflow": {"name": self.random.choice(["inner", "middle"]), "inputs": {}}}
        needed = {need for node in spec["nodes"] for need in node["needs"]}
        leaf = self.random.choice([node["name"] for node in spec["nodes"] if node["name"] not in needed])
        output = f"{{{{ run.state != 'Succeeded' ? null : outputs.{leaf} }}}}"
        arguments = {"state": "{{ run.state }}", "reason": "{{ run.reason }}", "output": output}
        return found | {"tool": {"name": "t", "arguments": arguments}}

    def workflow(self, *nested: str) -> dict[str, Any]:
        nodes: list[dict[str, Any]] = []
        for i in range(self.random.randint(1, self.size)):
            nodes.append({"name": f"n{i}", "needs": self.needs(nodes), **self.action(nested), **self.modifiers()})
        spec = {"nodes": nodes}
        for _ in nodes:
            self.repeat(spec)
        for node in nodes:
            self.refer(spec, node)
        return spec

    def needs(self, nodes: list[dict[str, Any]]) -> list[str]:
        """Return what the next node needs: the last one, the same as the last one, the last two, or any."""
        near = [node["name"] for node in nodes[-3:]]
        beside = list(nodes[-1]["needs"]) if nodes else []
        return self.random.choice([near[-1:], beside, near[-2:], self.some(near, 2)])

    def action(self, nested: tuple[str, ...]) -> dict[str, Any]:
        if self.maybe(0.1):
            return {"wait": {"seconds": self.random.randint(0, 5)}}
        if nested and self.maybe(0.25):
            return {"workflow": {"name": self.random.choice(nested), "inputs": {}}}
        if self.maybe(0.1):
            return {"approval": {"message": "?"}}
        tool = {"tool": {"name": "t", "arguments": {"round": "{{ iteration }}"}}}
        return tool | {"cache": {"ttlSeconds": 60}} if self.maybe(0.15) else tool

    def modifiers(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.maybe(0.15):
            found["when"] = self.random.choice(["false", "true", "iteration >= 2"])
        if self.maybe(0.2):
            found |= {"forEach": self.random.choice(list(LISTS)), "maxParallel": self.random.randint(1, 3)}
        if self.maybe(0.4):
            limit = self.random.randint(0, 2)
            found["retry"] = {"limit": limit, "backoffSeconds": 2, "on": ["ToolFailed", "RepeatExhausted"]}
        if self.maybe(0.3):
            found["onError"] = "Continue"
        return found

    def repeat(self, spec: dict[str, Any]) -> None:
        """Let some node go back, if the checks allow it."""
        node = self.random.choice(spec["nodes"])
        if {"forEach", "repeat"} & node.keys():
            return
        place = Interpreter(Model({}, Oracle(0, 0)), spec, "", {})
        first = self.random.choice([node["name"], *sorted(place.ancestors(node["name"])) * 3])
        until = self.random.choice(["true", "false", "iteration >= 2", "iteration >= 3", f"outputs.{first} == null"])
        exhausted = self.random.choice(["Fail", "Continue", "Continue"])
        limit = self.random.randint(1, 3)
        node["repeat"] = {"from": first, "until": until, "maxIterations": limit, "onExhausted": exhausted}
        if list(Structure.read(spec["nodes"]).problems()):
            del node["repeat"]

    def refer(self, spec: dict[str, Any], node: dict[str, Any]) -> None:
        """Let a node look at whatever it may."""
        place = Interpreter(Model({}, Oracle(0, 0)), spec, "", {})
        regions = [place.members(end) for end in place.nodes if "repeat" in place.nodes[end]]
        around = [members for members in regions if node["name"] in members]
        there = sorted(place.ancestors(node["name"]).union(*around))
        texts = [f"{{{{ outputs.{other} }}}}" for other in there] + ["{{ item }}"] * ("forEach" in node)
        seen = self.some(texts, 3)
        if "tool" in node:
            node["tool"]["arguments"] |= {f"a{i}": text for i, text in enumerate(seen)}
        elif "workflow" in node and seen:
            node["workflow"]["inputs"]["x"] = seen[0].replace(" }}", " > 1 }}" if "item" in seen[0] else " == null }}")
        if there and self.maybe(0.1):
            node["when"] = f"outputs.{self.random.choice(there)} == null"


def kept(journal: list[Entry]) -> dict[tuple[str, str | None, int], Ended]:
    """Return what a journal says of what ended by itself."""
    ends = [entry for entry in journal if entry.kind in (Kind.NODE_FINISHED, Kind.ITEM_FINISHED)]
    by_rule = [entry for entry in ends if entry.state in (State.SUCCEEDED, State.FAILED) or entry.reason in RULES]
    found = {(entry.node, entry.item, entry.iteration): entry for entry in by_rule}
    assert len({(entry.node, entry.item, entry.iteration) for entry in ends}) == len(ends), "a record is not unique"
    return {
        key: Ended(entry.state or State.SUCCEEDED, canonical(entry.output), (entry.at - journal[0].at).total_seconds())
        for key, entry in found.items()
    }


RULES = ("WhenFalse", "NeedsSkipped")
ORACLES = st.builds(Oracle, st.integers(0, 10_000), st.sampled_from([0, 0, 5, 15, 40]))


PROJECTS = st.builds(
    lambda seed, size: Author(seed, size).project(), st.integers(0, 1 << 32), st.sampled_from([8, 5, 3, 2])
)


def outputs(records: dict[Any, Ended]) -> dict[Any, Any]:
    return {key: (ended.state, canonical(ended.output)) for key, ended in records.items()}


def expected(project: dict[str, Any], oracle: Oracle) -> tuple[Model, Ended]:
    model = Model(project["workflows"], oracle)
    return model, model.run(project["spec"])


def asks_people(project: dict[str, Any], node: dict[str, Any]) -> bool:
    inner = project["workflows"].get(node.get("workflow", {}).get("name"), {"nodes": ()})
    return "approval" in node or any(asks_people(project, one) for one in inner["nodes"])


@settings(deadline=None, max_examples=100)
@given(PROJECTS, ORACLES)
def test_schedule_agrees_with_the_model(kit: Any, project: dict[str, Any], oracle: Oracle) -> None:
    play = kit.play(**project, oracle=oracle, seconds=oracle.seconds).finish()
    model, result = expected(project, oracle)
    assert play.end.state is result.state
    found, records = kept(play.journal), model.records
    assert outputs(found).items() <= outputs(records).items()
    assert play.states().keys() >= {node["name"] for node in project["spec"]["nodes"]}
    assert {key for key in records if key[0] in HANDLERS} <= found.keys()
    if result.state is State.FAILED:
        return
    assert canonical(play.end.output) == canonical(result.output)
    assert {key for key in records if "/" not in key[0]} <= found.keys()
    if not model.failures:
        assert play.took == result.at
        assert {key: ended.at for key, ended in found.items()} == {key: ended.at for key, ended in records.items()}


@settings(deadline=None, max_examples=40)
@given(PROJECTS, ORACLES, st.integers(0, 1 << 16))
def test_every_prefix_of_a_journal_leads_to_the_same_end(
    kit: Any, project: dict[str, Any], oracle: Oracle, seed: int
) -> None:
    whole = kit.play(**project, oracle=oracle, seconds=oracle.seconds).finish().journal
    model, result = expected(project, oracle)
    for length in random.Random(seed).sample(range(len(whole)), min(6, len(whole))):  # noqa: S311 - a test's choice
        again = kit.play(**project, oracle=oracle, seconds=oracle.seconds).finish(whole[:length])
        assert again.journal[:length] == whole[:length]
        done = kept(whole[:length]).keys() if length else set()
        assert not done & {(work.node, work.item, work.iteration) for work in again.ran}, "something was run twice"
        assert again.end.state is result.state
        assert outputs(kept(again.journal)).items() <= outputs(model.records).items()
        if not model.failures:
            assert outputs(kept(again.journal)) == outputs(model.records)
            assert canonical(again.end.output) == canonical(result.output)


@settings(deadline=None, max_examples=40)
@given(PROJECTS, ORACLES)
def test_a_schedule_read_from_a_journal_is_the_one_that_lived_through_it(
    kit: Any, project: dict[str, Any], oracle: Oracle
) -> None:
    play = kit.play(**project, oracle=oracle, seconds=oracle.seconds)
    moments = count()

    def same(lived: Any) -> None:
        if next(moments) % 4:
            return
        read = play.schedule()
        assert read.advance(play.now) == []
        assert read.open.keys() == lived.open.keys()
        assert (read.wake_at, read.progress()) == (lived.wake_at, lived.progress())
        assert read.idle() == lived.idle()

    play.watch = same
    play.finish()


@settings(deadline=None, max_examples=40)
@given(PROJECTS, ORACLES, st.integers(0, 1 << 16))
def test_a_rerun_runs_only_what_is_forced_or_has_failed(
    kit: Any, project: dict[str, Any], oracle: Oracle, seed: int
) -> None:
    first = kit.play(**project, oracle=oracle, seconds=oracle.seconds).finish()
    again = first.again()
    if first.end.state is State.SUCCEEDED:
        assert canonical(again.end.output) == canonical(first.end.output)
        failed = {entry.node for entry in first.of(Kind.NODE_FINISHED) if entry.state is State.FAILED}
        asking = {node["name"] for node in project["spec"]["nodes"] if asks_people(project, node)}
        assert {root(work.node) for work in again.ran} <= failed | asking | HANDLERS.keys()
    start = random.Random(seed).choice(project["spec"]["nodes"])["name"]  # noqa: S311 - a test's choice
    forced = first.again(start)
    place = Interpreter(Model({}, oracle), project["spec"], "", {})
    below = {name for name in place.nodes if name == start or start in place.ancestors(name)}
    reused = {entry.node for entry in forced.of(Kind.NODE_FINISHED) if entry.reused}
    assert not below & reused
    assert not any(root(path) in below for path in reused)
