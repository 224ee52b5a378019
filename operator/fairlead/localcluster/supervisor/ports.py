"""Chooses ports on loopback that nobody has, and says who cannot have theirs."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Mapping
from typing import Final

from fairlead.errors import TerminalError

OPTIONS: Final = {"apiserver": "--port", "gateway": "--gateway-port", "operator": "--operator-port"}
"""What needs a port, and the option of ``fairlead up`` that gives it."""
_FIRST, _LAST = 20_000, 29_999
"""Below the range from which systems take ports of outgoing connections: a home's ports stay free while it is down."""
_TRIES: Final = 200


def choose_ports(remembered: Mapping[str, int], given: Mapping[str, int]) -> dict[str, int]:
    """Return a port for every name: the given one, the remembered one, or a free one.

    Raises:
        TerminalError: a given or remembered one is taken.
    """
    ports: dict[str, int] = {}
    for name in OPTIONS:
        port = given.get(name) or remembered.get(name) or free_port(ports.values())
        if not is_free(port):
            text = f"port {port} ({name}) is in use by another program; end that program, or give another port"
            raise TerminalError(f"{text}: fairlead up {OPTIONS[name]} N")
        ports[name] = port
    return ports


def free_port(taken: Iterable[int] = ()) -> int:
    """Return a free port.

    Raises:
        TerminalError: there is none.
    """
    taken = set(taken)
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)  # noqa: S311 - no secret
        if port not in taken and is_free(port):
            return port
    raise TerminalError(f"no free port between {_FIRST} and {_LAST} on this machine")


def is_free(port: int) -> bool:
    """Whether a server could listen on *port* of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
