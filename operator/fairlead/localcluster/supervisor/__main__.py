"""``python -m fairlead.localcluster.supervisor``: what ``fairlead up --detach`` leaves running."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import orjson

from fairlead.clock import SystemClock
from fairlead.errors import FairleadError
from fairlead.localcluster.podruntime.dockerengine.choosing import RUNTIMES
from fairlead.localcluster.supervisor.home import Home
from fairlead.localcluster.supervisor.supervisor import Options, Supervisor
from fairlead.logs import setup
from fairlead.settings import child_environment


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m fairlead.localcluster.supervisor", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", action="append", default=[], metavar="NAME=N", help="use this port")
    parser.add_argument("--agent-image", default="fairlead-agent:0.1.0")
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", help="what runs pods")
    parser.add_argument("--report-fd", type=int, help="where progress is written, as JSON lines, until it is ready")
    return parser.parse_args(arguments)


class Reports:
    """Writes progress to whoever started this process, as long as that is there."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __call__(self, kind: str, text: str) -> None:
        """Write one report."""
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, orjson.dumps({"kind": kind, "text": text}) + b"\n")
        except BrokenPipeError:
            self.close()

    def close(self) -> None:
        """Say that there is nothing more to come."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def main() -> int:
    """Run the process."""
    given = parse()
    setup(level="INFO", fmt="json")
    reports = Reports(given.report_fd)
    ports = {name: int(port) for name, _, port in (entry.partition("=") for entry in given.port)}
    options = Options(Home(given.home.resolve()), child_environment, ports, given.agent_image, given.runtime)

    def ready() -> None:
        reports("ready", "")
        reports.close()

    try:
        asyncio.run(Supervisor(options, SystemClock(), reports).run(ready))
    except FairleadError as error:
        reports("error", str(error))
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
