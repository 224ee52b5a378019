"""A real PostgreSQL server for tests, in a folder of its own, behind a Unix socket."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_USER = "fairlead"
_START_SECONDS = 60.0


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None."""
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return debian[-1].parent if debian else None


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server that runs."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str) -> str:
        """Return the URL of a database, as Fairlead's settings take it."""
        return f"postgresql://{_USER}@/{database}?host={self.folder}"

    async def create_database(self, template: str = "template1") -> str:
        """Make a copy of a database that nobody uses, an empty one if none is given, and return its name."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        await self.execute("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    async def execute(self, database: str, statement: str) -> None:
        """Run a statement from outside of Fairlead."""
        import asyncpg  # type: ignore[import-untyped]

        connection = await asyncpg.connect(host=str(self.folder), user=_USER, database=database)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server and stop it at the end. It does not run as root: then it runs as the user ``postgres``."""
    programs = find_postgres()
    if programs is None:
        raise FileNotFoundError("PostgreSQL's initdb is not installed")
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="fairlead-pg-"))
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    try:
        with _running(programs, folder, account):
            yield PostgresServer(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(programs: Path, folder: Path, account: pwd.struct_passwd | None) -> Iterator[None]:
    who = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data, log = folder / "data", folder / "log"
    make = [programs / "initdb", "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)  # type: ignore[call-overload]  # noqa: S603 - found programs
    options = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", "shared_buffers": "32MB"}
    serve = [
        programs / "postgres",
        "-D",
        data,
        *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(serve, stdout=output, stderr=output, cwd=folder, **who)  # type: ignore[call-overload]  # noqa: S603 - found programs
    try:
        _wait(server, folder, log)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def _wait(server: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    """Wait as ``pg_ctl --wait`` does: until the server writes into its pid file that it is ready."""
    until = time.monotonic() + _START_SECONDS
    status = folder / "data" / "postmaster.pid"
    while not (status.exists() and "ready" in status.read_text()):
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.05)
