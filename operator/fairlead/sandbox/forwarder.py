"""Passes bytes between connections to standard input, which listens, and a Unix socket: a sandbox's way to its proxy.

A single file of the standard library, for Python 3.9 and newer: the runner starts it where a program has a network.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import sys

PIECE = 1 << 16
PATIENCE_SECONDS = 30
_SET_DUMPABLE = 4


class Forwarder:
    """Connections, each with its other end."""

    def __init__(self, server: socket.socket, path: str) -> None:
        self._server = server
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}

    def serve(self) -> None:
        """Pass on, for ever."""
        self._selector.register(self._server, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                end = key.fileobj
                if end is self._server:
                    self._accept()
                elif isinstance(end, socket.socket) and end in self._peers and not _pass_on(end, self._peers[end]):
                    self._close(end)

    def _accept(self) -> None:
        near, far = self._server.accept()[0], socket.socket(socket.AF_UNIX)
        try:
            far.connect(self._path)
        except OSError:
            near.close()
            far.close()
            return
        for end, other in ((near, far), (far, near)):
            end.settimeout(PATIENCE_SECONDS)
            self._peers[end] = other
            self._selector.register(end, selectors.EVENT_READ)

    def _close(self, end: socket.socket) -> None:
        for each in (end, self._peers[end]):
            del self._peers[each]
            self._selector.unregister(each)
            each.close()


def _pass_on(source: socket.socket, target: socket.socket) -> bool:
    """Pass on what is there; return whether there may be more."""
    try:
        piece = source.recv(PIECE)
        target.sendall(piece)
    except OSError:
        return False
    return bool(piece)


def _hide() -> None:
    """Keep the program, which has the same user, from looking into this process and writing to it."""
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
    if call(_SET_DUMPABLE, 0, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({_SET_DUMPABLE}): {os.strerror(number)}")


if __name__ == "__main__":
    _hide()
    Forwarder(socket.socket(fileno=0), sys.argv[1]).serve()
