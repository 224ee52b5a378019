from __future__ import annotations

import errno
import struct

import pytest

from fairlead.sandbox.seccomp import MACHINES, build_filter

X86, ARM = "x86_64", "aarch64"
ALLOW, KILL = "allow", "kill"


def judge(machine: str, number: int, first: int = 0, second: int = 0, *, arch: int | None = None) -> str | int:
    """Do what the kernel does with a filter; return `ALLOW`, `KILL` or the error."""
    code = list(struct.iter_unpack("=HBBI", build_filter(machine)))
    arch = MACHINES[machine].arch if arch is None else arch
    data = struct.pack("<IIQQQQQQQ", number, arch, 0, first, second, 0, 0, 0, 0)
    at = value = 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        match operation:
            case 0x20:
                value = struct.unpack_from("<I", data, k)[0]
            case 0x15:
                at += yes if value == k else no
            case 0x35:
                at += yes if value >= k else no
            case 0x45:
                at += yes if value & k else no
            case 0x06:
                return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(k, k & 0xFFFF)
            case _:
                raise AssertionError(operation)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param((X86, 0), ALLOW, id="read"),
        pytest.param((X86, 59), ALLOW, id="execve"),
        pytest.param((X86, 101), errno.EPERM, id="ptrace"),
        pytest.param((X86, 165), errno.EPERM, id="mount"),
        pytest.param((X86, 272, 0x10000000), errno.EPERM, id="unshare"),
        pytest.param((X86, 425), errno.EPERM, id="io_uring"),
        pytest.param((X86, 435), errno.ENOSYS, id="clone3-falls-back"),
        pytest.param((X86, 56, 0x003D0F00), ALLOW, id="clone-of-a-thread"),
        pytest.param((X86, 56, 17), ALLOW, id="clone-of-a-process"),
        pytest.param((X86, 56, 0x10000011), errno.EPERM, id="clone-with-a-user-namespace"),
        pytest.param((X86, 56, 0x40000011), errno.EPERM, id="clone-with-a-network-namespace"),
        pytest.param((X86, 41, 2, 1), ALLOW, id="internet-socket"),
        pytest.param((X86, 41, 10, 1), ALLOW, id="internet-6-socket"),
        pytest.param((X86, 41, 1, 1), ALLOW, id="unix-socket"),
        pytest.param((X86, 41, 40, 1), errno.EAFNOSUPPORT, id="hypervisor-socket"),
        pytest.param((X86, 41, 16, 3), errno.EAFNOSUPPORT, id="netlink-socket"),
        pytest.param((X86, 16, 0, 0x5401), ALLOW, id="ioctl"),
        pytest.param((X86, 16, 0, 0x5412), errno.EPERM, id="typing-into-a-terminal"),
        pytest.param((X86, 0x40000000 + 101), errno.EPERM, id="x32"),
        pytest.param((ARM, 63), ALLOW, id="arm-read"),
        pytest.param((ARM, 117), errno.EPERM, id="arm-ptrace"),
        pytest.param((ARM, 220, 0x20000011), errno.EPERM, id="arm-clone-with-a-pid-namespace"),
        pytest.param((ARM, 198, 40, 1), errno.EAFNOSUPPORT, id="arm-hypervisor-socket"),
    ],
)
def test_build_filter_judges_a_call(call: tuple[str, int], expected: str | int) -> None:
    assert judge(*call) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_build_filter_ends_what_speaks_as_another_machine(machine: str) -> None:
    assert judge(machine, 0, arch=0x40000003) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_build_filter_refuses_every_call_on_its_list(machine: str) -> None:
    denied = MACHINES[machine].denied
    assert {judge(machine, number) for number in denied.values()} == {errno.EPERM}
    assert len(set(denied.values())) == len(denied)
