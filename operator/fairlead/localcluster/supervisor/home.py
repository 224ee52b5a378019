"""The one folder of laptop mode: where everything is, who has it, which version wrote it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from fairlead import __version__
from fairlead.errors import TerminalError
from fairlead.localcluster.supervisor.processes import Identity

FORMAT: Final = 1
"""Raised when an older Fairlead could no longer read a home."""
_MAGIC: Final = b"SQLite format 3\x00"
_FREE_BYTES: Final = 50 * 1024 * 1024


class AlreadyRunning(TerminalError):
    """Another supervisor has the home."""

    reason = "AlreadyRunning"


@dataclass(frozen=True, slots=True)
class Home:
    """The paths below the folder."""

    root: Path

    @property
    def id(self) -> str:
        """What marks everything of this home elsewhere: in a container engine."""
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:12]

    @property
    def gateway_dir(self) -> Path:
        """The folder of the gateway's socket. Containers have it, so that nothing else may be in it."""
        return self.root / "run" / "gateway"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for people."""
        return self.root / "kubeconfig"

    @property
    def apiserver(self) -> Path:
        """The API server's data folder."""
        return self.root / "apiserver"

    @property
    def database(self) -> Path:
        """History: runs, journals, costs."""
        return self.root / "fairlead.db"

    @property
    def gateway_file(self) -> Path:
        """Where the gateway is: ``{url, ca}``."""
        return self.root / "gateway.json"

    @property
    def gateway_ca(self) -> Path:
        """The certificate that the gateway's clients trust."""
        return self.root / "gateway-ca.crt"

    @property
    def state_file(self) -> Path:
        """What the supervisor writes about itself."""
        return self.root / "supervisor.json"

    @property
    def logs(self) -> Path:
        """One file for each process; pods' logs below ``pods/``."""
        return self.root / "logs"

    @property
    def pods(self) -> Path:
        """The working folders of pods: their files, and tokens."""
        return self.root / "pods"

    def credentials(self, process: str) -> Path:
        """The kubeconfig of one of the processes."""
        return self.root / "credentials" / f"{process}.kubeconfig"

    def create(self) -> None:
        """Make the folders.

        Raises:
            TerminalError: the place cannot be written to, or has no room.
        """
        try:
            for folder in (self.root, self.logs, self.root / "credentials", self.pods, self.apiserver):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root.chmod(0o700)
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            raise TerminalError(f"cannot write to {self.root}: {error.strerror}; use another FAIRLEAD_HOME") from error
        if free < _FREE_BYTES:
            raise TerminalError(
                f"only {free // 2**20} MB are free where {self.root} is, and {_FREE_BYTES // 2**20} MB are needed; "
                "make room or use another FAIRLEAD_HOME"
            )

    def open_gateway_dir(self) -> None:
        """Make the folder of the gateway's socket, for the users of containers: nobody else gets to it."""
        self.gateway_dir.mkdir(parents=True, exist_ok=True)
        self.gateway_dir.chmod(0o755)

    def check_databases(self) -> None:
        """Look whether the files that hold the state can be what they should be.

        Raises:
            TerminalError: one is no database.
        """
        for path in (self.apiserver / "cluster.db", self.database):
            if not path.exists():
                continue
            with path.open("rb") as file:
                start = file.read(len(_MAGIC))
            if start not in (b"", _MAGIC):
                raise TerminalError(
                    f"{path} is not a database any more; restore it from a backup, or move it away to start without it"
                )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Have the home for this process alone.

        Raises:
            AlreadyRunning: another process has it.
        """
        with open(self.root / "lock", "w") as file:  # noqa: PTH123 - held open
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise AlreadyRunning(f"Fairlead is already running in {self.root}") from error
            yield

    def locked(self) -> bool:
        """Whether a supervisor has the home now."""
        if not (self.root / "lock").exists():
            return False
        try:
            with self.lock():
                return False
        except AlreadyRunning:
            return True


@dataclass(frozen=True, slots=True)
class State:
    """What a home remembers: its ports for ever, its processes while they run."""

    ports: Mapping[str, int] = field(default_factory=dict)
    supervisor: Identity | None = None
    children: Mapping[str, Identity] = field(default_factory=dict)
    ready: bool = False
    engine: str = ""
    """What runs pods, or ran them last: ``docker`` or ``process``."""
    version: str = __version__
    format: int = FORMAT

    @classmethod
    def read(cls, home: Home) -> State:
        """Read a home's state; an empty one if there is none.

        Raises:
            TerminalError: a newer version wrote it, or it cannot be read.
        """
        try:
            document = orjson.loads(home.state_file.read_bytes())
            written = int(document["format"])
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"{home.state_file} cannot be read ({error}); remove it: the ports are then chosen anew"
            raise TerminalError(text) from error
        if written > FORMAT:
            raise TerminalError(
                f"{home.root} was written by Fairlead {document.get('version', '')}, which is newer than this one "
                f"({__version__}); upgrade Fairlead, or use another folder: FAIRLEAD_HOME=~/.fairlead-{__version__}"
            )
        return cls(
            ports=document.get("ports") or {},
            supervisor=_identity(document.get("supervisor")),
            children={name: Identity(**child) for name, child in (document.get("children") or {}).items()},
            ready=bool(document.get("ready")),
            engine=str(document.get("engine") or ""),
        )

    def write(self, home: Home) -> None:
        """Replace the home's state, as a whole."""
        write_file(home.state_file, orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))


def _identity(value: Any) -> Identity | None:
    return Identity(**value) if value else None


def write_file(path: Path, data: bytes) -> None:
    """Replace a file that only the owner may read; a reader sees the old one or the new one."""
    if path.exists() and path.read_bytes() == data:
        return
    temporary = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    temporary.replace(path)
