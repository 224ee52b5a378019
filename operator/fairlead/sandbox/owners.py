"""Whose sandboxes they are: an identity that tells a living process from any that had its number before."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def own_id() -> str:
    """Return this process's identity: boot, pid namespace, number, and when it started."""
    return f"{_boot()}.{_namespace()}.{os.getpid()}.{_started(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Whether the process that had this identity is gone. Of another container's processes nothing can be said."""
    boot, _, rest = owner.partition(".")
    namespace, _, rest = rest.partition(".")
    number, _, started = rest.partition(".")
    if not number.isdigit() or boot != _boot():
        return True
    return namespace == _namespace() and started != _started(int(number))


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "boot"


def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    return "0"


def _started(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
