"""``python -m fairlead.localcluster.podruntime``: runs pods, as local processes or as containers of Docker."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from fairlead.clock import SystemClock
from fairlead.errors import FairleadError, TerminalError
from fairlead.kube import KubeClient
from fairlead.localcluster.podruntime.engine import Engine
from fairlead.localcluster.podruntime.plan import Rules
from fairlead.localcluster.podruntime.process import ProcessEngine
from fairlead.localcluster.podruntime.recorder import Recorder
from fairlead.localcluster.podruntime.runtime import Runtime
from fairlead.localcluster.podruntime.worker import Node
from fairlead.logs import setup


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m fairlead.localcluster.podruntime", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="credentials of the node")
    parser.add_argument("--node-name", default="local")
    parser.add_argument("--pods-dir", type=Path, required=True, help="where pods' working directories are made")
    parser.add_argument("--log-dir", type=Path, required=True, help="where pods' logs are written")
    parser.add_argument("--agent-image", default="fairlead-agent:0.1.0", help="the image that can run here")
    parser.add_argument("--engine", choices=("process", "docker"), default="process", help="what runs containers")
    parser.add_argument("--home-id", default="", help="docker: the label of everything that is made in the engine")
    parser.add_argument("--gateway-dir", type=Path, help="docker: the folder that holds the gateway's socket")
    parser.add_argument("--log-level", default="INFO")
    return parser.parse_args(arguments)


def build_engine(options: argparse.Namespace) -> Engine:
    """Return what runs containers.

    Raises:
        TerminalError: it cannot be had.
    """
    if options.engine == "process":
        return ProcessEngine(options.pods_dir.resolve())
    from docker.errors import DockerException

    from fairlead.localcluster.podruntime.dockerengine.engine import DockerEngine, Place

    if not options.home_id or options.gateway_dir is None:
        raise TerminalError("--engine docker needs --home-id and --gateway-dir")
    try:
        return DockerEngine(Place(options.home_id, options.gateway_dir.resolve(), options.agent_image))
    except DockerException as error:
        raise TerminalError(f"Docker does not answer: {error}") from error


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs is a task
    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, task.cancel)
    client = await KubeClient.connect(kubeconfig=options.kubeconfig, user_agent="fairlead-podruntime")
    rules = Rules(options.node_name, options.agent_image, options.engine)
    clock = SystemClock()
    recorder = Recorder(client, clock, node=rules.node)
    pods_dir, log_dir = options.pods_dir.resolve(), options.log_dir.resolve()
    try:
        await Runtime(Node(client, clock, recorder, rules, build_engine(options), pods_dir, log_dir)).run()
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
