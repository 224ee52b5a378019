"""Random workflows, held against the reference model."""

from __future__ import annotations

import random
import re
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.testing.authors import Author
from fairlead.testing.semantics import Ended, Interpreter, Model, Oracle, canonical
from fairlead_agent.graph.paths import FINALLY, HANDLERS, inside, parent, scope, split
from fairlead_agent.protocol import Entry, Kind, State


def root(path: str) -> str:
    """Return the node of the workflow itself that a path begins with."""
    return re.split(r"[/\[#]", path, maxsplit=1)[0]


def endings(journal: list[Entry]) -> dict[str, Entry]:
    """Return how workflows were going to end, by the prefix of what is inside; empty for the run's own."""
    found = {}
    for entry in journal:
        if entry.kind in (Kind.WORKFLOW_ENDING, Kind.RUN_ENDING):
            prefix = inside(entry.node, entry.item, entry.iteration, entry.try_number) if entry.node else ""
            assert prefix not in found, "it was settled twice"
            found[prefix] = entry
    return found


def kept(journal: list[Entry]) -> dict[tuple[str, str | None, int], Ended]:
    """Return what a journal says of what ended by itself, or was done by a workflow that did."""
    ends = [entry for entry in journal if entry.kind in (Kind.NODE_FINISHED, Kind.ITEM_FINISHED)]
    taken = tuple(f"{prefix}@" for prefix, end in endings(journal).items() if end.state is State.CANCELLED)
    by_rule = [
        entry
        for entry in ends
        if (entry.state in (State.SUCCEEDED, State.FAILED) or entry.reason in RULES)
        and not entry.node.startswith(taken)
    ]
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
    parts = (*inner["nodes"], *(inner[field] for field in HANDLERS.values() if field in inner))
    return "approval" in node or any(asks_people(project, one) for one in parts)


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


def assert_handled(play: Any, project: dict[str, Any]) -> None:
    """Hold a journal to the place of handlers: every workflow that began runs those that it should, each once."""
    document = {"workflow": {"spec": project["spec"]}, "workflows": project["workflows"]}
    ends = {
        (entry.node, entry.item, entry.iteration): at
        for at, entry in enumerate(play.journal)
        if entry.kind in (Kind.NODE_FINISHED, Kind.ITEM_FINISHED)
    }
    started = {entry.node: at for at, entry in enumerate(play.journal) if entry.kind is Kind.NODE_STARTED}
    settled = endings(play.journal)
    begun = [entry for entry in play.journal if entry.kind in (Kind.NODE_STARTED, Kind.ITEM_STARTED)]
    assert len({(entry.node, entry.item, entry.iteration) for entry in begun}) == len(begun), "it began twice"
    places = {id(entry): at for at, entry in enumerate(play.journal)}
    for prefix, end in settled.items():
        late = [entry.node for entry in begun if places[id(entry)] > places[id(end)] and entry.node.startswith(prefix)]
        assert all("@" in path.removeprefix(prefix) for path in late), "it began after the end"
    for prefix in {split(entry.node)[0] for entry in play.journal if entry.node}:
        spec = scope(document, f"{prefix}x") or {}
        failed = prefix in settled and settled[prefix].state is State.FAILED
        wanted = [name for name in HANDLERS if HANDLERS[name] in spec and (failed or name == FINALLY)]
        assert [name for name in HANDLERS if prefix + name in started] == wanted
        own = [at for (node, *_), at in ends.items() if split(node)[0] == prefix and split(node)[1] not in HANDLERS]
        handling = [at for name in wanted for at in (started[prefix + name], ends[prefix + name, None, 1])]
        order = [max(own), *handling, ends.get(parent(f"{prefix}x"), len(play.journal))]
        assert order == sorted(order), "nodes, then handlers one by one, then what they are part of"


def bound(project: dict[str, Any], chance: random.Random) -> None:
    """Give some workflows, and nodes and handlers that run them, less time than they may take."""
    for spec in (project["spec"], *project["workflows"].values()):
        runners = [node for node in (*spec["nodes"], *map(spec.get, HANDLERS.values())) if node and "workflow" in node]
        for limited in (spec, *runners):
            if chance.random() < 0.3:
                limited["timeoutSeconds"] = chance.randint(1, 30)


@settings(deadline=None, max_examples=150)
@given(PROJECTS, ORACLES, st.sampled_from([None, 3, 9, 20]), st.sampled_from([0, 0.1, 0.5]), st.integers(0, 1 << 16))
def test_every_workflow_that_began_runs_its_handlers_once_and_in_its_place(
    kit: Any, project: dict[str, Any], oracle: Oracle, stop_after: float | None, unrest: float, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's choice
    bound(project, chance)

    def disturb(schedule: Any) -> None:
        if chance.random() < unrest:
            schedule.suspended = True  # until nothing more can be done

    play = kit.play(**project, oracle=oracle, seconds=oracle.seconds, stop_after=stop_after, watch=disturb).finish()
    assert_handled(play, project)
    whole = list(play.journal)
    for length in chance.sample(range(len(whole)), min(3, len(whole))):
        assert_handled(play.finish(whole[:length]), project)
