"""Who did what: one JSON line per request, in a file of bounded size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import orjson

from fairlead.localcluster.apiserver.errors import Json

MAX_BYTES = 32 * 1024 * 1024


class AuditLog:
    """Appends to a file; a full one is kept as ``<name>.1`` until the next is full."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = self._open()
        self._size = self._file.tell()

    def _open(self) -> BinaryIO:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def write(self, record: Json) -> None:
        """Append one record."""
        line = orjson.dumps(record) + b"\n"
        if self._size + len(line) > self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file, self._size = self._open(), 0
        self._file.write(line)
        self._size += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
