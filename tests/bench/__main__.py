"""``python -m tests.bench [name …]``: measure, and write the page (only when everything was measured)."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click
from tests.bench import apiserver, cli, engine, models, runs, sandboxes, storage
from tests.bench.harness import Comparison, Outcome, compare
from tests.bench.report import PAGE, page

from fairlead.clock import SystemClock

Bench = Callable[[Path], AbstractAsyncContextManager[list[Comparison]]]

SECTIONS: dict[str, tuple[str, str, Bench]] = {
    "apiserver": (
        "Embedded API server",
        (
            "Next to a dictionary behind bare ASGI on the same web server with the same TLS, which keeps nothing, "
            "checks nothing and asks nobody: what is over it is the price of durable, checked, authorised and audited "
            "writes. Eight connections at a time."
        ),
        apiserver.comparisons,
    ),
    "runs": (
        "Runs",
        (
            "Workflows of one node with a scripted model, from their creation to the end that `kubectl get` shows. The "
            "naive operator (`tests/bench/naive_operator.py`, some forty lines of Kopf) makes a pod for each run that "
            "only prints the answer; Fairlead's runs are checked, frozen, queued, journalled, called through the "
            "gateway, traced and priced. p50 and p99 are from the creation to the moment in which the first node began."
        ),
        runs.comparisons,
    ),
    "engine": (
        "Engine",
        (
            "A chain of 40 nodes that do nothing and answer 300 bytes; an operation is one node, the run around it "
            "included. LangGraph's checkpointer and Fairlead's journal are on SQLite with `synchronous=FULL`, each "
            "step committed before the next begins; Fairlead's journal keeps the nodes' records, spans and progress in "
            "the same transaction. Each alternative is installed from `requirements/bench-*.txt`. The goals are a "
            "third of LangGraph with SqliteSaver for a durable node, DBOS's cost from end to end (where Fairlead's "
            "node is a model call with a record of its own, and DBOS's an empty step), and the longest path within a "
            "tenth."
        ),
        engine.comparisons,
    ),
    "models": (
        "Model calls",
        (
            "A call to a stand-in of OpenAI, eight at a time, by way of LiteLLM's proxy (one worker, no database, "
            "installed from `requirements/bench-litellm.txt`) and of Fairlead's gateway, which also checks the fence, "
            "commits intent and answer to SQLite, prices the call and keeps its span. The stand-in is not counted."
        ),
        models.comparisons,
    ),
    "sandboxes": (
        "Sandboxes",
        (
            "From the job to its result, without a network. A sandbox that is kept ready is used once and replaced "
            'meanwhile: p50 and p99 are the job\'s own time (the goal is less than 100 ms), "per second" and the time '
            "ratio have its replacement in them, one at a time. Processor time is without the Docker engine's."
        ),
        sandboxes.comparisons,
    ),
    "cli": (
        "Command line",
        (
            "How long a command takes before it does anything: a shell's completion calls it at each TAB. Wall-clock "
            "time is what a person waits for; p50 is meant to stay under 150 ms."
        ),
        cli.comparisons,
    ),
    "storage": (
        "Storage",
        (
            "The journal on SQLite with `synchronous=FULL`, with fence, node, span, progress and announcement, next to "
            "one bare insert and commit in the same library at the same durability."
        ),
        storage.comparisons,
    ),
}


async def measure(bench: Bench) -> list[Outcome]:
    """Run one section's comparisons, one after the other."""
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as folder:
        async with bench(Path(folder)) as comparisons:
            outcomes = []
            for comparison in comparisons:
                click.echo(f"  {comparison.title} …", err=True)
                outcomes.append(await compare(comparison))
            return outcomes


async def main(names: list[str]) -> None:
    """Measure the named sections, or all."""
    sections = []
    for name in names or SECTIONS:
        title, text, bench = SECTIONS[name]
        click.echo(title, err=True)
        sections.append((title, text, await measure(bench)))
    text = page(sections, day=SystemClock().now().date())
    click.echo(text)
    if not names:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
