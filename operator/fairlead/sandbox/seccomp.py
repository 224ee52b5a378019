"""The system call filter of every sandbox, assembled here: no compiler, no libseccomp.

It refuses what ordinary programs do without and what a way out begins with: other processes' memory, mounts, new
namespaces, kernel keys, BPF, performance counters, page faults from user space, io_uring, memory that no limit counts,
and sockets of any kind but Unix and the internet's (a virtual machine's ``AF_VSOCK`` is in no network namespace).
A refused call fails with EPERM; a call in the manner of another architecture ends the program.

Source: Linux, include/uapi/linux/{filter,seccomp,audit}.h and the tables of system calls of both architectures.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_LOAD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24
"""Where they are in ``struct seccomp_data``; of the arguments the lower half, on little-endian machines."""
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERROR: Final = 0x00050000
_NEW_NAMESPACE: Final = 0x7E020000
"""Every ``CLONE_NEW*`` that clone() takes."""
_TERMINAL_INPUT: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX put characters into a terminal, as if somebody had typed them."""
_FAMILIES: Final = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6."""


@dataclass(frozen=True, slots=True)
class _Machine:
    arch: int
    clone: int
    ioctl: int
    socket: int
    denied: Mapping[str, int]
    x32: bool = False
    """Whether numbers from 2**30 on are a second table of calls."""


_BOTH: Final = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447, "process_mrelease": 448, "open_tree_attr": 467,
}  # fmt: skip
_CLONE3: Final = 435

MACHINES: Final[Mapping[str, _Machine]] = MappingProxyType({
    "x86_64": _Machine(
        arch=0xC000003E, clone=56, ioctl=16, socket=41, x32=True,
        denied=_BOTH | {
            "shmget": 29, "shmat": 30, "shmctl": 31, "msgget": 68, "ptrace": 101, "syslog": 103, "uselib": 134,
            "personality": 135, "ustat": 136, "sysfs": 139, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155,
            "_sysctl": 156, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165,
            "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171,
            "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180,
            "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237, "set_mempolicy": 238, "mq_open": 240,
            "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256,
            "unshare": 272, "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300,
            "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308,
            "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "memfd_create": 319,
            "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
        },
    ),
    "aarch64": _Machine(
        arch=0xC00000B7, clone=220, ioctl=29, socket=198,
        denied=_BOTH | {
            "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51,
            "vhangup": 58, "quotactl": 60, "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104,
            "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117,
            "reboot": 142, "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "adjtimex": 171,
            "mq_open": 180, "msgget": 186, "shmget": 194, "shmctl": 195, "shmat": 196, "add_key": 217,
            "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225, "mbind": 235, "set_mempolicy": 237,
            "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262,
            "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
            "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273,
            "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
        },
    ),
})  # fmt: skip


def build_filter(machine: str) -> bytes:
    """Return the filter for a machine, as the kernel takes it: an array of ``struct sock_filter``."""
    table = MACHINES[machine]
    refuse = _ret(_ERROR | errno.EPERM)
    code = [_op(_LOAD, _ARCH), _op(_JUMP_EQUAL, table.arch, yes=1), _ret(_KILL), _op(_LOAD, _NUMBER)]
    if table.x32:
        code += [_op(_JUMP_AT_LEAST, 0x40000000, no=1), refuse]
    for number in sorted(table.denied.values()):
        code += [_op(_JUMP_EQUAL, number, no=1), refuse]
    # Its flags are in memory, where a filter cannot look: without it the C library falls back to clone().
    code += [_op(_JUMP_EQUAL, _CLONE3, no=1), _ret(_ERROR | errno.ENOSYS)]
    code += _when(table.clone, [_op(_LOAD, _ARGUMENT_0), _op(_JUMP_ANY_BIT, _NEW_NAMESPACE, no=1), refuse])
    code += _when(table.ioctl, [_op(_LOAD, _ARGUMENT_1), *_any_of(_TERMINAL_INPUT, [refuse])])
    unknown = _ret(_ERROR | errno.EAFNOSUPPORT)
    code += _when(table.socket, [_op(_LOAD, _ARGUMENT_0), *_any_of(_FAMILIES, [_ret(_ALLOW)]), unknown])
    return b"".join([*code, _ret(_ALLOW)])


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """Do *body* for a call, then allow it."""
    return [_op(_JUMP_EQUAL, number, no=len(body) + 1), *body, _ret(_ALLOW)]


def _any_of(values: Iterable[int], body: list[bytes]) -> list[bytes]:
    return [part for value in values for part in (_op(_JUMP_EQUAL, value, no=len(body)), *body)]


def _op(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _ret(value: int) -> bytes:
    return _op(_RETURN, value)
