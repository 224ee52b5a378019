"""``python -m tests.bench [name …]``: measure everything, or the named sections, and write them to the page."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click
from tests.bench import apiserver, cli, engine, image, models, registry, runs, sandboxes, storage
from tests.bench.harness import Comparison, Figures, Outcome, compare
from tests.bench.report import PAGE, page, read_sections, section

from fairlead.clock import SystemClock

Bench = Callable[[Path], AbstractAsyncContextManager[Sequence[Comparison | Figures]]]

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
    "registry": (
        "Registry",
        (
            "A pod is in the registry when its Lease is there and its Agent counts it as ready; the goal is 2 s at "
            "p99, and any pod's own way to `Running` on the same runtime stands beside it. Then 200 pods of one Agent, "
            "over the real protocol: at their own pace (milliseconds of processor time in each second: 10 are 1 % of a "
            "core; the naive operator, `tests/bench/naive_registry.py`, watches all Leases with Kopf while Fairlead's "
            "lists them; the API server's share is for both), and as fast as eight connections go. A lost Lease fails "
            "the measurement. The last two are about 10,000 agents: the operator's own judge on what an API server "
            "sends, and in simulated time, where p50 and p99 are from an agent's death until its work is given to "
            "others (the goal is 17 s: the Lease and 2 s)."
        ),
        registry.comparisons,
    ),
    "image": (
        "Agent image",
        (
            "The image of an agent next to one that has LangGraph, LiteLLM and Kubernetes' client from `pip install` "
            "on the same base (`tests/bench/contestants/plain.Dockerfile`). The plain one is ready when it has "
            "imported them; Fairlead's agent when it is registered with a gateway and has its Lease. Its idle memory "
            "is without LangGraph, which it imports at its first turn, and without LiteLLM, which is the gateway's. "
            "Processor time is the Docker client's; the engine's and the containers' is not counted."
        ),
        image.comparisons,
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


async def measure(bench: Bench) -> list[Outcome | Figures]:
    """Run one section's comparisons, one after the other."""
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as folder:
        async with bench(Path(folder)) as comparisons:
            outcomes: list[Outcome | Figures] = []
            for comparison in comparisons:
                click.echo(f"  {comparison.title} …", err=True)
                outcomes.append(comparison if isinstance(comparison, Figures) else await compare(comparison))
            return outcomes


async def main(names: list[str]) -> None:
    """Measure the named sections, or all; each is on the page as soon as it is measured."""
    titles = [title for title, _, _ in SECTIONS.values()]
    for name in names or SECTIONS:
        title, text, bench = SECTIONS[name]
        click.echo(title, err=True)
        made = section(title, text, await measure(bench), day=SystemClock().now().date())
        click.echo(made)
        known = (read_sections(PAGE.read_text()) if PAGE.exists() else {}) | {title: made}
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(known[each] for each in titles if each in known))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
