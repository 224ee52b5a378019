"""Graph checks: once for each spec, and right when many ask at once in a fresh process."""

from __future__ import annotations

import subprocess
import sys

from fairlead.services.graphchecks import GraphChecks

SPEC = {
    "model": "m",
    "inputs": [{"name": "i"}],
    "nodes": [{"name": "a", "when": "inputs.i != ''", "llm": {"prompt": "x"}}],
}


async def test_problems_are_remembered() -> None:
    checks = GraphChecks()
    assert await checks.problems(SPEC) is await checks.problems(dict(SPEC))
    assert len(await checks.problems({"nodes": []})) == 1


def test_problems_many_at_once_in_a_fresh_process() -> None:
    program = f"""
import asyncio
from fairlead.services.graphchecks import GraphChecks
async def main():
    checks = GraphChecks()
    specs = [{SPEC!r} | {{"description": str(number)}} for number in range(8)]
    assert not any(await asyncio.gather(*(checks.problems(spec) for spec in specs)))
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
