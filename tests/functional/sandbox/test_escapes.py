"""What a program in a sandbox tries, to get out of it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fairlead.sandbox.base import Job, Sandbox
from fairlead.testing.sandboxes import LIMITS, PRELUDE, attempts, explained

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Neighbours:
    """Servers on this machine that nothing in a sandbox may reach, and what did."""

    tcp: int = 0
    tcp6: int = 0
    udp: int = 0
    unix: str = ""
    abstract: str = ""
    reached: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    found = Neighbours(unix=str(tmp_path_factory.mktemp("s") / "gateway.sock"), abstract=f"\0{secrets.token_hex(8)}")
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    servers = [
        ("tcp", socket.socket(socket.AF_INET, stream), ("0.0.0.0", 0)),  # noqa: S104 - the host, by any of its addresses
        ("tcp6", socket.socket(socket.AF_INET6, stream), ("::", 0)),
        ("udp", socket.socket(socket.AF_INET, datagram), ("0.0.0.0", 0)),  # noqa: S104
        ("unix", socket.socket(socket.AF_UNIX, stream), found.unix),
        ("abstract", socket.socket(socket.AF_UNIX, stream), found.abstract),
    ]
    for name, server, address in servers:
        server.bind(address)
        if isinstance(address, tuple):
            setattr(found, name, server.getsockname()[1])
        if server.type == stream:
            server.listen()
        threading.Thread(target=_note, args=(found, name, server), daemon=True).start()
    Path(found.unix).chmod(0o777)
    yield found
    for _, server, _ in servers:
        if server.type == stream:
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def _note(found: Neighbours, name: str, server: socket.socket) -> None:
    while True:
        try:
            if server.type == socket.SOCK_STREAM:
                server.accept()[0].close()
            else:
                server.settimeout(60)
                server.recv(100)
        except OSError:
            return
        found.reached.append(name)


def own_addresses() -> list[str]:
    """Return the addresses of this machine, the bridge of Docker's containers among them."""
    said = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=False).stdout
    return [line.split()[3].split("/")[0] for line in said.splitlines()] or ["127.0.0.1", "172.17.0.1"]


NETWORK = """
socket.setdefaulttimeout(0.5)
question = bytes.fromhex("1234 0100 0001 0000 0000 0000 07") + b"example" + bytes.fromhex("03") + b"com\\0\\0\\1\\0\\1"
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as one:
        one.connect(address)
        one.send(question)
        if kind == socket.SOCK_DGRAM:
            one.recv(1)  # what a policy drops on its way can be sent
        return address
for address in inputs["addresses"]:
    family, port = (socket.AF_INET6, inputs["tcp6"]) if ":" in address else (socket.AF_INET, inputs["tcp"])
    attempt("tcp " + address, lambda: connect(family, (address, port)))
    attempt("udp " + address, lambda: connect(family, (address, inputs["udp"]), socket.SOCK_DGRAM))
for address in ("169.254.169.254", "168.63.129.16", "100.100.100.200", "1.1.1.1", "10.0.0.1", "10.96.0.1"):
    attempt("tcp " + address, lambda: connect(socket.AF_INET, (address, 80)))
    attempt("dns " + address, lambda: connect(socket.AF_INET, (address, 53), socket.SOCK_DGRAM))
attempt("ipv6", lambda: connect(socket.AF_INET6, ("fd00:ec2::254", 80)))
attempt("multicast", lambda: connect(socket.AF_INET, ("224.0.0.251", 5353), socket.SOCK_DGRAM))
for name in ("example.com", "metadata.google.internal", "kubernetes.default.svc", "host.docker.internal"):
    attempt("name " + name, lambda: socket.getaddrinfo(name, 80))
attempt("unix", lambda: connect(socket.AF_UNIX, inputs["unix"]))
attempt("abstract", lambda: connect(socket.AF_UNIX, inputs["abstract"]))
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock",
             "/run/fairlead/gateway.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "/tmp/.X11-unix/X0"):
    attempt(path, lambda: connect(socket.AF_UNIX, path))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
for family in (16, 17, 38, 40, 44):  # netlink, packet, the kernel's ciphers, the hypervisor, XDP
    attempt(f"family {family}", lambda: socket.socket(family, socket.SOCK_RAW if family != 40 else socket.SOCK_STREAM))
"""


async def test_network_reaches_nothing(sandbox: Sandbox, neighbours: Neighbours) -> None:
    inputs = {name: getattr(neighbours, name) for name in ("tcp", "tcp6", "udp", "unix", "abstract")}

    reached = await attempts(sandbox, NETWORK, addresses=own_addresses(), **inputs)

    assert reached == {}
    assert neighbours.reached == []


FILES = """
import glob
for path in inputs["paths"]:
    attempt("read " + path, lambda: open(path, "rb").read(10))
    attempt("list " + path, lambda: os.listdir(path))
    os.symlink(path, "out/link")
    attempt("through a link " + path, lambda: open("out/link", "rb").read(10))
    os.unlink("out/link")
    attempt("through process 1 " + path, lambda: open("/proc/1/root" + path, "rb").read(10))
    attempt("upwards " + path, lambda: open("../" * 20 + path.lstrip("/"), "rb").read(10))
for path in ("/proc/1/environ", "/proc/1/mem", "/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/cwd/..", "/proc/1/exe",
             "/proc/kcore", "/proc/kmsg", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern",
             "/dev/mem", "/dev/kmem", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/vsock"):
    attempt("write " + path, lambda: os.open(path, os.O_RDWR))
for path in ("/proc/1/environ", "/proc/1/mem", "/proc/kcore", "/etc/shadow", "/proc/1/root/etc/shadow", "/proc/keys"):
    attempt("content of " + path, lambda: open(path, "rb").read(10) or 1 / 0)
for folder in ("/", "/etc", "/usr", "/usr/bin", "/usr/lib", "/bin", "/dev", "/proc", "/proc/sys/kernel", "/sys",
               "/sys/fs/cgroup", "/home", "/root", "/var", "/var/tmp", "/run", "/mnt", "/opt", "/job", "/run/proxy"):
    attempt("write in " + folder, lambda: open(folder + "/written", "w"))
for path in ("/runner.py", "/usr/bin/env", sys.executable, os.__file__, "/bin/sh"):
    attempt("write " + path, lambda: open(path, "r+b"))
    attempt("change " + path, lambda: os.chmod(path, 0o777))
    attempt("remove " + path, lambda: os.unlink(path))
numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
attempt("others", lambda: sorted(numbers)[2] if len(numbers) > 2 else 1 / 0)
texts = [open(path, "rb").read() for path in glob.glob("/proc/[0-9]*/cmdline")]
attempt("command lines", lambda: [text for text in texts if b"pytest" in text][0])
attempt("environment", lambda: [name for name in os.environ if name not in
    {"PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "MALLOC_ARENA_MAX"}][0])
attempt("canary", lambda: [value for value in os.environ.values() if inputs["half"] in value][0])
"""


async def test_files_of_the_host_are_not_there(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = secrets.token_hex(8)
    canary = tmp_path / "canary"
    canary.write_text(f"canary-{half}")
    canary.chmod(0o644)
    monkeypatch.setenv("FAIRLEAD_CANARY", f"canary-{half}")
    home = str(Path.home())
    paths = [
        str(canary),
        home,
        str(Path(__file__).parent),
        f"/proc/{os.getpid()}/environ",
        "/var/lib/docker",
        "/boot/x",
    ]

    reached = await attempts(sandbox, FILES, paths=paths, half=half)

    empty = {name for name, what in reached.items() if name.startswith(("list ", "upwards ")) and what == "REACHED: []"}
    assert not reached.keys() - empty, reached


WRITABLE = """
import os
mounts = [line.split() for line in open("/proc/mounts")]  # a kubelet's /etc/hosts is "rw", and root's
output = sorted(path for _, path, _, how, *_ in mounts if "rw" in how.split(",") and os.access(path, os.W_OK))
"""


async def test_only_the_work_directory_can_be_written_to(sandbox: Sandbox) -> None:
    result = await sandbox.run(Job("python", WRITABLE, limits=LIMITS))

    folders = {path for path in result.output if path == "/" or not path.startswith(("/dev", "/proc", "/sys"))}
    assert folders == {"/work"}, explained(result)


PRIVILEGES = """
import subprocess
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
attempt("privileges", lambda: status["NoNewPrivs"].strip() == "1" and 1 / 0)
attempt("filter", lambda: status["Seccomp"].strip() == "2" and 1 / 0)
sets = [int(status["Cap" + name], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
attempt("capabilities", lambda: sum(sets) == 0 and 1 / 0)
attempt("root", lambda: 0 not in os.getresuid() + os.getresgid() and 1 / 0)
attempt("setuid", lambda: os.setuid(0))
attempt("setresuid", lambda: os.setresuid(0, 0, 0))
attempt("setgroups", lambda: os.setgroups([0]))
for program in ("su", "mount", "newgrp", "passwd", "sudo"):
    attempt(program, lambda: subprocess.run([program, "-c", "id -u"], capture_output=True, timeout=5, text=True,
                                            stdin=subprocess.DEVNULL, check=True).stdout)
attempt("chown", lambda: (open("mine", "w").close(), os.chown("mine", 0, 0)))
os.chmod("mine", 0o6755)
attempt("setuid bit", lambda: os.stat("mine").st_uid == 0 or 1 / 0)
for name, kind in (("block", 0o060600), ("character", 0o020600)):
    attempt("mknod " + name, lambda: os.mknod(name, kind, os.makedev(8, 0)))
machine = os.uname().machine
numbers = {
    "x86_64": dict(ptrace=101, mount=165, umount2=166, unshare=272, setns=308, keyctl=250, add_key=248, bpf=321,
        perf_event_open=298, userfaultfd=323, io_uring_setup=425, chroot=161, process_vm_readv=310, pivot_root=155,
        memfd_create=319, open_tree=428, fsopen=430, init_module=175, kexec_load=246, swapon=167, reboot=169,
        sethostname=170, settimeofday=164, open_by_handle_at=304, fanotify_init=300, personality=135, shmget=29,
        mq_open=240, syslog=103, iopl=172, clone3=435, pidfd_getfd=438),
    "aarch64": dict(ptrace=117, mount=40, umount2=39, unshare=97, setns=268, keyctl=219, add_key=217, bpf=280,
        perf_event_open=241, userfaultfd=282, io_uring_setup=425, chroot=51, process_vm_readv=270, pivot_root=41,
        memfd_create=279, open_tree=428, fsopen=430, init_module=105, kexec_load=104, swapon=224, reboot=142,
        sethostname=161, settimeofday=170, open_by_handle_at=265, fanotify_init=262, personality=92, shmget=194,
        mq_open=180, syslog=116, clone3=435, pidfd_getfd=438),
}[machine]
def denied(name, *arguments):
    try:
        system_call(*arguments)
    except OSError as error:  # another error than these would come from behind the filter
        output[name] = ("refused: " if error.errno in (1, 38) else "PASSED ON: ") + str(error)
    else:
        output[name] = "REACHED"
for name, number in numbers.items():
    denied(name, number, 0, 0, 0, 0, 0)
denied("ptrace of another", numbers["ptrace"], 16, 1, 0, 0)
clone = 56 if machine == "x86_64" else 220
for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
    denied(f"unshare {flag:#x}", numbers["unshare"], flag)
    denied(f"clone {flag:#x}", clone, flag | 17, 0, 0, 0, 0)
import fcntl
attempt("terminal", lambda: fcntl.ioctl(0, 0x5412, b"x"))
attempt("higher limit", lambda: __import__("resource").setrlimit(7, (10**6, 10**6)))
"""


async def test_privileges_are_not_to_be_had(sandbox: Sandbox) -> None:
    assert await attempts(sandbox, PRIVILEGES) == {}


async def test_calls_of_another_architecture_end_the_program(sandbox: Sandbox) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("only this processor has them")
    # push 20; pop rax (getpid); int 0x80; ret: a call by the table of 32 bits, whose numbers mean other calls
    source = """
import mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes([0x6a, 0x14, 0x58, 0xcd, 0x80, 0xc3]))
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""
    result = await sandbox.run(Job("python", PRELUDE + source, limits=LIMITS))

    assert (result.ended, result.message) == ("Killed", "ended by SIGSYS"), explained(result)


SIGNALS = """
import signal
for number in inputs["processes"]:
    attempt(f"kill {number}", lambda: os.kill(number, 9))
os.kill(1, signal.SIGTERM)  # process 1 of a namespace hears nothing that it does not want to hear
os.kill(1, signal.SIGKILL)
os.kill(1, signal.SIGSTOP)
output["still there"] = "refused: by the kernel"
child = os.fork()
if child == 0:
    os.setsid()
    os.kill(-1, signal.SIGKILL)
    os._exit(0)
time.sleep(5)
"""


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as found:
        yield found
        found.kill()


async def test_signals_reach_no_process_outside(sandbox: Sandbox, victim: subprocess.Popen[bytes]) -> None:
    inputs = {"processes": [victim.pid, os.getpid()]}

    result = await sandbox.run(Job("python", PRELUDE + SIGNALS, inputs=inputs, limits=LIMITS))

    assert victim.poll() is None
    assert (result.ended, result.message) == ("Killed", "ended by SIGKILL"), explained(result)
