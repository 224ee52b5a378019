"""The process: settings, signals, exit codes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Final

from fairlead_agent import __version__
from fairlead_agent.agent import Agent
from fairlead_agent.client import Gateway, WrongProtocol, tls_context
from fairlead_agent.connections import Door
from fairlead_agent.logs import write
from fairlead_agent.settings import HELP, Settings, SettingsError, read_settings, settle_langgraph

_USAGE: Final = 2
_WRONG_PROTOCOL: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; return the process's exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["--version"], ["--help"], ["-h"]):
        sys.stdout.write(f"fairlead-agent {__version__}\n" if given == ["--version"] else HELP)
        return 0
    if given:
        sys.stderr.write(f"error: unknown argument {given[0]!r}; see --help\n")
        return _USAGE
    try:
        settings = read_settings()
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        return _USAGE
    settle_langgraph()
    try:
        asyncio.run(serve(settings))
    except WrongProtocol as error:
        write("not_registered", level="error", why=str(error))
        return _WRONG_PROTOCOL
    return 0


async def serve(settings: Settings) -> None:
    """Run one agent until it is done or told to stop."""
    door = Door(settings.gateway_url, tls_context(settings.gateway_ca), settings.gateway_socket)
    gateway = Gateway(door, token_file=settings.token_file)
    agent = Agent(settings, gateway=gateway, door=door)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    try:
        await agent.run()
    finally:
        await gateway.aclose()
    write("stopped")
