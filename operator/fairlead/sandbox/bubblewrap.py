"""Sandboxes of Linux' own namespaces, made by bubblewrap: no engine, no daemon, no root.

Nothing of the host is in one but ``/usr/bin``, ``/usr/lib*`` and an interpreter's standard library, read-only. Memory
is counted from outside, process by process: there need not be a cgroup that belongs to us.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sysconfig
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fairlead.sandbox import forwarder, runner
from fairlead.sandbox.base import Ended, SandboxBroken
from fairlead.sandbox.jobs import MAX_HEADER, READY, Inside
from fairlead.sandbox.seccomp import MACHINES, build_filter
from fairlead.sandbox.usage import memory_below, runner_of
from fairlead.sandbox.warm import Box, BoxEnded, Shape

PROXY: Final = "/run/proxy"
CERTIFICATES: Final = "/etc/ssl/cert.pem"
_USER: Final = 64010
"""The user of a sandbox, on the host, where the gateway is root: the kernel limits no processes of root."""
_INSIDE_USER: Final = "10001"
_LOOK_SECONDS: Final = 0.05
_MAX_INODES: Final = 50_000
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@dataclass(frozen=True, slots=True)
class Host:
    """What of this machine a sandbox is made with."""

    bwrap: str
    options: frozenset[str]
    """What this version of bubblewrap understands."""
    python: Path
    """An interpreter that the sandbox's user can read."""
    paths: tuple[Path, ...]
    """What else of its installation it needs."""
    hidden: tuple[Path, ...]
    """Folders in those whose content is nothing to a sandbox: installed packages."""
    machine: str
    root: bool


class Bubblewrap:
    """Starts sandboxes with bubblewrap."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._host: Host | None = None
        self._runner = Path(runner.__file__).read_bytes()
        self._forwarder = Path(forwarder.__file__).read_bytes()

    async def unavailable(self) -> str | None:
        """Look for what it needs."""
        try:
            self._host = await asyncio.to_thread(find_host)
        except SandboxBroken as error:
            return str(error)
        return None

    async def start(self, shape: Shape, proxy: Path | None) -> Box:
        """Start one; it ends when this process does."""
        if self._host is None:
            raise SandboxBroken("bubblewrap was not looked for")
        with _Descriptors() as fds:
            seccomp = fds.of(build_filter(self._host.machine))
            program = fds.of(self._runner)
            passing = fds.of(self._forwarder) if proxy else None
            certificates = fds.of(_certificates()) if proxy else None
            options = (
                *_data("/runner.py", program),
                *_data(runner.FORWARDER, passing),
                *_data(CERTIFICATES, certificates),
                *_proxy(proxy),
            )
            command = build_command(self._host, shape, ("--seccomp", str(seccomp), *options))
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={}, cwd="/", pass_fds=fds.numbers
            )
        box = BubblewrapBox(process, shape, proxy=proxy is not None)
        try:
            await box.ready()
        except BaseException:
            await box.close()
            raise
        return box

    async def aclose(self) -> None:
        """Hold nothing."""


class BubblewrapBox:
    """One sandbox: the process of bubblewrap, and the watch over what is in it."""

    def __init__(self, process: Process, shape: Shape, *, proxy: bool) -> None:
        self.inside = Inside(
            own_user=True,
            address_space=2 * shape.memory_bytes + (64 << 20),
            proxy=f"{PROXY}/proxy.sock" if proxy else "",
            certificates=CERTIFICATES if proxy else "",
        )
        self._process = process
        self._shape = shape
        self._why: BoxEnded | None = None
        self._watch: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Wait until the runner is there."""
        stdout, stderr = self._process.stdout, self._process.stderr
        if stdout is None or stderr is None or await stdout.readline() != READY:
            said = await stderr.read(2000) if stderr else b""
            raise SandboxBroken(f"bubblewrap did not start a sandbox: {said.decode(errors='replace').strip()}")
        if runner_of(self._process.pid) is None:
            raise SandboxBroken(
                "this kernel does not tell which processes are in a sandbox (/proc/<pid>/task/<pid>/children): nobody "
                "could watch how much memory it uses"
            )

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def send(self, data: bytes) -> None:
        """Write to the runner, and begin to watch."""
        self._watch = asyncio.create_task(self._look())
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError):  # if it has ended, reading says so
                stdin.write(data)
                await stdin.drain()

    async def line(self) -> bytes:
        """Read the runner's header."""
        line = b""
        while len(line) <= MAX_HEADER and not line.endswith(b"\n"):
            line += await self.body(1)
        return line

    async def body(self, size: int) -> bytes:
        """Read from the runner."""
        stdout = self._process.stdout
        if stdout is None:
            raise BoxEnded(Ended.KILLED, "it has no output")
        try:
            return await stdout.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise self._why or BoxEnded(Ended.KILLED, "the whole sandbox ended before it had a result") from error

    async def _look(self) -> None:
        """End it when all in it together use more than they may."""
        pid = runner_of(self._process.pid)
        while pid is not None:
            if memory_below(pid, over=self._shape.memory_bytes) > self._shape.memory_bytes:
                limit = self._shape.memory_bytes >> 20
                self._end(BoxEnded(Ended.MEMORY, f"it used more than {limit} MiB of memory"))
                return
            if _inodes(pid) > _MAX_INODES:
                self._end(BoxEnded(Ended.KILLED, f"it made more than {_MAX_INODES} files"))
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _end(self, why: BoxEnded) -> None:
        self._why = why
        with suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """Kill bubblewrap, and with it process 1 of the sandbox, and with that all the others."""
        if self._watch is not None:
            self._watch.cancel()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class _Descriptors:
    """Bytes as open files for a child to inherit."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __enter__(self) -> Self:
        return self

    def of(self, content: bytes) -> int:
        number = os.memfd_create("fairlead-sandbox")
        self.numbers.append(number)
        with os.fdopen(os.dup(number), "wb") as file:
            file.write(content)
        os.lseek(number, 0, os.SEEK_SET)
        return number

    def __exit__(self, *_: object) -> None:
        for number in self.numbers:
            os.close(number)


def _data(path: str, number: int | None) -> tuple[str, ...]:
    return () if number is None else ("--perms", "0444", "--ro-bind-data", str(number), path)


def _proxy(folder: Path | None) -> tuple[str, ...]:
    return () if folder is None else ("--ro-bind", str(folder), PROXY)


def build_command(host: Host, shape: Shape, more: Sequence[str]) -> list[str]:
    """Return the command of one sandbox: pure."""
    drop = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--") if host.root else ()
    return [
        *drop, host.bwrap,
        "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        *(("--disable-userns",) if "--disable-userns" in host.options else ()),
        "--uid", _INSIDE_USER, "--gid", _INSIDE_USER, "--hostname", "sandbox", "--cap-drop", "ALL",
        "--die-with-parent", "--new-session", "--as-pid-1",
        *_system(), *_interpreter(host),
        "--proc", "/proc", "--size", "65536", "--tmpfs", "/dev",
        *(part for name in _DEVICES for part in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")),
        "--symlink", "/proc/self/fd", "/dev/fd",
        "--perms", "1777", "--size", "1048576", "--tmpfs", "/dev/shm", "--remount-ro", "/dev",  # noqa: S108
        "--perms", "0700", "--size", str(shape.disk_bytes), "--tmpfs", runner.WORK,
        "--symlink", f"{runner.WORK}/tmp", "/tmp",  # noqa: S108
        *more,
        "--remount-ro", "/", "--chdir", runner.WORK,
        "--", str(host.python), *runner_arguments(),
    ]  # fmt: skip


def runner_arguments() -> tuple[str, ...]:
    """Return how an interpreter is called: nothing of the environment, no packages, nothing written."""
    return ("-I", "-S", "-B", "-X", "utf8", "/runner.py")


def _system() -> list[str]:
    """Bind the system's programs and libraries."""
    found: list[str] = []
    for path in ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec"):
        if Path(path).is_dir():
            found += ["--ro-bind", path, path]
    for path in ("/bin", "/lib", "/lib32", "/lib64"):
        if Path(path).is_symlink():
            found += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).is_dir():
            found += ["--ro-bind", path, path]
    return found


def _interpreter(host: Host) -> list[str]:
    found: list[str] = []
    for path in host.paths:
        if not path.is_relative_to("/usr/bin") and not path.is_relative_to("/usr/lib"):
            found += ["--ro-bind", str(path), str(path)]
    for path in host.hidden:
        found += ["--size", "4096", "--tmpfs", str(path), "--remount-ro", str(path)]
    return found


def find_host() -> Host:
    """Return what sandboxes are made with on this machine.

    Raises:
        SandboxBroken: something is missing; the text says what.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxBroken("bubblewrap is not installed: install the package bubblewrap (the command bwrap)")
    machine = os.uname().machine
    if machine not in MACHINES:
        raise SandboxBroken(f"there is no system call filter for the machine {machine}")
    help_text = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    options = frozenset(word for word in help_text.split() if word.startswith("--"))
    if "--size" not in options:
        raise SandboxBroken("this bubblewrap is too old to limit the disk: 0.7 or newer is needed")
    root = os.geteuid() == 0
    if root and shutil.which("setpriv") is None:
        raise SandboxBroken(
            "as root, sandboxes need setpriv (package util-linux): run as an ordinary user or install it"
        )
    for python, paths, packages in (_own_interpreter(), _system_interpreter()):
        if all(_is_readable(path, root=root) for path in (python, *paths)):
            hidden = tuple(path for path in packages if path.is_dir())
            return Host(bwrap, options, python, (python, *paths), hidden, machine, root)
    raise SandboxBroken("there is no Python that a sandbox's user can read: install the package python3")


_Interpreter = tuple[Path, tuple[Path, ...], tuple[Path, ...]]


def _own_interpreter() -> _Interpreter:
    """Return the interpreter that this process's virtual environment is made of, its library, and its packages."""
    base = Path(sysconfig.get_config_var("installed_base"))
    version = f"python{sysconfig.get_python_version()}"
    library = Path(sysconfig.get_path("stdlib"))
    shared = tuple((base / "lib").glob("libpython*.so*"))
    packages = (library / "site-packages", base / "lib/python3/dist-packages")
    return (base / "bin" / version).resolve(), (library, *shared), packages


def _system_interpreter() -> _Interpreter:
    python = Path("/usr/bin/python3").resolve()
    library = Path("/usr/lib") / python.name
    packages = Path("/usr/lib/python3/dist-packages")
    return python, (library,), (packages, library / "site-packages")


def _is_readable(path: Path, *, root: bool) -> bool:
    """Whether the sandbox's user can read it: this process's own, or anybody's if that is root."""
    if not root:
        return os.access(path, os.R_OK)
    try:
        return path.stat().st_mode & 0o4 != 0 and all(parent.stat().st_mode & 0o1 for parent in path.parents)
    except OSError:
        return False


def _certificates() -> bytes:
    found = next((Path(path) for path in _BUNDLES if Path(path).is_file()), None)
    return found.read_bytes() if found else b""


def _inodes(pid: int) -> int:
    try:
        found = os.statvfs(f"/proc/{pid}/root{runner.WORK}")
    except OSError:
        return 0
    return found.f_files - found.f_ffree
