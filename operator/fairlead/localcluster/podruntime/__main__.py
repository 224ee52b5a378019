"""``python -m fairlead.localcluster.podruntime``: runs pods as local processes."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from fairlead.clock import SystemClock
from fairlead.errors import FairleadError
from fairlead.kube import KubeClient
from fairlead.localcluster.podruntime.plan import Rules
from fairlead.localcluster.podruntime.runtime import Runtime
from fairlead.logs import setup


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m fairlead.localcluster.podruntime", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="credentials of the node")
    parser.add_argument("--node-name", default="local")
    parser.add_argument("--pods-dir", type=Path, required=True, help="where pods' working directories are made")
    parser.add_argument("--log-dir", type=Path, required=True, help="where pods' logs are written")
    parser.add_argument("--agent-image", default="fairlead-agent:0.1.0", help="the image that can run here")
    parser.add_argument("--log-level", default="INFO")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs is a task
    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, task.cancel)
    client = await KubeClient.connect(kubeconfig=options.kubeconfig, user_agent="fairlead-podruntime")
    rules = Rules(options.node_name, options.agent_image)
    try:
        runtime = Runtime(
            client, SystemClock(), rules=rules, pods_dir=options.pods_dir.resolve(), log_dir=options.log_dir.resolve()
        )
        await runtime.run()
    except asyncio.CancelledError:
        pass
    finally:
        await client.aclose()


def main() -> int:
    """Run the process."""
    options = parse()
    os.umask(0o077)  # pods' files, tokens among them, are for this user only
    setup(level=options.log_level, fmt="json")
    try:
        asyncio.run(serve(options))
    except FairleadError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
