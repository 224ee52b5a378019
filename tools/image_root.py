"""Makes the root file system of a small image out of the system that it runs in. Standard library only.

    python3 tools/image_root.py ROOT --packages FOLDER --venv /opt/agent --report pip.json --sbom fairlead-agent
    python3 tools/image_root.py ROOT --programs "/bin/sh ls" --file runner.py=/runner.py --folder /work

ROOT gets this interpreter with its standard library, the shared libraries that ``ldd`` names (of glibc and musl alike),
the certificate authorities, and what the arguments say. Modules are compiled and go without their source; every mode is
readable for all and writable for the owner, and every time is SOURCE_DATE_EPOCH: the same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import sbom

USER = 10001
UNUSED_MODULES = (
    *("__phello__*", "__pycache__", "config-*", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3"),
    *("pydoc_data", "site-packages", "sitecustomize.py", "test", "tests", "tkinter", "turtle.py", "turtledemo", "venv"),
    *("EXTERNALLY-MANAGED", "LICENSE.txt", "_ctypes_test*.so", "_curses*.so", "_dbm*.so", "_gdbm*.so", "_test*.so"),
    *("_tkinter*.so", "_xx*.so", "nis*.so", "readline*.so", "xx*.so"),
)
"""Of the standard library: what needs a terminal, a display or a compiler, and its own tests."""
UNUSED_FILES = (
    *("__pycache__", "_tests", "bin", "tests", "*.c", "*.cpp", "*.h", "*.pxd", "*.pyi", "*.pyx"),
    *("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "_yaml*.so"),
)
"""Of installed packages: what only a compiler, a type checker or an installer reads, and a second parser of YAML."""
TEMPORARY = Path("/tmp")  # noqa: S108 - of the image
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_SETTINGS = {
    "passwd": f"root:x:0:0::/:/sbin/nologin\nnonroot:x:{USER}:{USER}::/tmp:/sbin/nologin\n",
    "group": f"root:x:0:\nnonroot:x:{USER}:\n",
    "nsswitch.conf": "hosts: files dns\n",
}


@dataclass
class Root:
    """The file system that is made. Paths without ROOT before them are those of the image, and of this system."""

    folder: Path
    packages: list[Path]
    """Where pip installed to. The libraries that packages bring are with them, and not of this system."""
    modules: list[tuple[Path, Path]] = field(default_factory=list)
    """Sources that are still to be compiled, and where they belong."""
    binaries: list[Path] = field(default_factory=list)
    """Programs and libraries, where they are in this system."""
    brought: set[Path] = field(default_factory=set)
    """What was taken from this system as it is."""

    def at(self, path: Path) -> Path:
        """Return where a path of the image is, and make its folder."""
        found = self.folder / path.relative_to("/")
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def bring(self, path: Path) -> Path:
        """Copy a file of this system to the same place, with every link on the way; return what the links lead to."""
        here, parts = Path("/"), list(path.parts[1:])
        while parts:
            here /= parts.pop(0)
            if here.is_symlink():
                target = Path(os.path.normpath(here.parent / here.readlink()))
                if not os.path.lexists(self.at(here)):
                    self.at(here).symlink_to(here.readlink())
                here, parts = Path("/"), [*target.parts[1:], *parts]
        if here not in self.brought:
            shutil.copyfile(here, self.at(here))
            self.at(here).chmod(here.stat().st_mode)
            self.brought.add(here)
        return here

    def plant(self, source: Path, target: Path, *, without: Iterable[str]) -> None:
        """Copy a tree: modules are noted for `compile`, and their sources stay behind."""
        for path in _walk(source, tuple(without)):
            place = target / path.relative_to(source)
            if path.suffix == ".py":
                self.modules.append((path, place))
                continue
            shutil.copyfile(path, self.at(place))
            if ".so" in path.suffixes:
                self.binaries.append(path)
                self.at(place).chmod(0o755)

    def compile(self) -> None:
        """Compile the modules. Each in a process of its own, or the bytes would depend on what came before them."""
        jobs = [(source, place, self.at(place)) for source, place in sorted(self.modules)]
        with multiprocessing.get_context("fork").Pool(maxtasksperchild=1) as pool:
            pool.starmap(_compile, jobs, chunksize=1)

    def bring_libraries(self) -> None:
        """Copy the shared libraries of all binaries that came from outside the packages."""
        found = {library for binary in self.binaries for library in _libraries(binary)}
        for path in sorted(found):
            if not any(path.resolve().is_relative_to(folder) for folder in self.packages):
                self.bring(path)
        for cache in filter(Path.is_file, (Path("/etc/ld.so.cache"), *Path("/etc").glob("ld-musl-*.path"))):
            self.bring(cache)


def _walk(folder: Path, without: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in without):
            continue
        if path.is_dir():
            yield from _walk(path, without)
        elif path.is_file():
            yield path


def _compile(source: Path, place: Path, target: Path) -> None:
    checks = py_compile.PycInvalidationMode.UNCHECKED_HASH
    try:
        py_compile.compile(
            str(source), str(target.with_suffix(".pyc")), str(place), doraise=True, optimize=0, invalidation_mode=checks
        )
    except py_compile.PyCompileError:  # a template, or of another Python: whoever reads it wants the text
        shutil.copyfile(source, target)


def _libraries(binary: Path) -> Iterator[Path]:
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if missing := re.search(r".*(?:=> not found|Error loading shared library).*", done.stdout + done.stderr):
        sys.exit(f"error: {binary}: {missing.group().strip()}")
    for name in re.findall(r"(/\S+) \(0x", done.stdout):
        yield Path(name)


def bring_interpreter(root: Root) -> Path:
    """Copy this interpreter and its standard library to their own places; return the program."""
    program = root.bring(Path(os.path.realpath(sys.executable)))
    root.binaries.append(program)
    for folder in sorted({Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}):
        root.plant(folder, folder, without=UNUSED_MODULES)
    return program


def make_environment(root: Root, folder: Path, program: Path) -> None:
    """Lay out a virtual environment: it is found alike whatever the base calls its own folder of packages."""
    major, minor = sys.version_info[:2]
    for packages in root.packages:
        root.plant(packages, folder / "lib" / f"python{major}.{minor}" / "site-packages", without=UNUSED_FILES)
    root.at(folder / "pyvenv.cfg").write_text(f"home = {program.parent}\nversion = {major}.{minor}\n")
    for name in ("python", "python3"):
        root.at(folder / "bin" / name).symlink_to(program)


def bring_programs(root: Root, names: Iterable[str]) -> None:
    """Copy programs that are on the PATH, and say which are not there."""
    for name in names:
        found = shutil.which(name)
        if found is None:
            sys.exit(f"error: {name} is not there")
        root.binaries.append(root.bring(Path(found)))


def settle(root: Root, program: Path) -> None:
    """Add what every image has: authorities, users, how names are resolved, a place for temporary files."""
    known = (AUTHORITIES, Path(ssl.get_default_verify_paths().cafile or AUTHORITIES))
    if (bundle := next(filter(Path.is_file, known), None)) is None:
        sys.exit("error: there are no certificate authorities here; install ca-certificates")
    shutil.copyfile(bundle, root.at(AUTHORITIES))
    for name, text in _SETTINGS.items():
        root.at(Path("/etc") / name).write_text(text)
    if not os.path.lexists(root.at(Path("/usr/bin/python3"))):
        root.at(Path("/usr/bin/python3")).symlink_to(program)


def make_temporary(root: Root, target: Path | None) -> None:
    """Make /tmp: a folder for everybody, or a link."""
    if target:
        root.at(TEMPORARY).symlink_to(target)
    else:
        root.at(TEMPORARY).mkdir()
        root.at(TEMPORARY).chmod(0o1777)


def seal(root: Root, epoch: int) -> None:
    """Give every file the same mode and time; /tmp keeps its own mode."""
    shared = root.at(TEMPORARY)
    for folder, _, files in os.walk(root.folder, topdown=False):
        for path in (*(Path(folder) / name for name in files), Path(folder)):
            if not path.is_symlink() and path != shared:
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (epoch, epoch), follow_symlinks=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("root", type=Path)
    parser.add_argument("--packages", type=Path, action="append", default=[], help="what pip install --target made")
    parser.add_argument("--venv", type=Path, help="where the packages go")
    parser.add_argument("--report", type=Path, action="append", default=[], help="what pip install --report wrote")
    parser.add_argument("--sbom", metavar="NAME", help="write the bill of materials below /usr/share/NAME")
    parser.add_argument("--programs", default="", metavar="NAMES", help="of the PATH")
    parser.add_argument("--file", action="append", default=[], metavar="SOURCE=PLACE")
    parser.add_argument("--temporary", type=Path, help="where /tmp leads to; absent: /tmp is a folder for everybody")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="an empty one")
    return parser.parse_args()


def main() -> None:
    """Make the root that the arguments describe."""
    given, epoch = _arguments(), int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    root = Root(given.root, given.packages)
    program = bring_interpreter(root)
    if given.venv:
        make_environment(root, given.venv, program)
    bring_programs(root, given.programs.split())
    root.compile()
    root.bring_libraries()
    settle(root, program)
    for source, _, place in (entry.partition("=") for entry in given.file):
        shutil.copyfile(source, root.at(Path(place)))
    for folder in given.folder:
        root.at(folder / "x")
    make_temporary(root, given.temporary)
    if given.sbom:
        bill = sbom.document(given.sbom, epoch=epoch, files=root.brought, packages=given.packages, reports=given.report)
        root.at(Path("/usr/share") / given.sbom / "sbom.cdx.json").write_text(bill)
    seal(root, epoch)


if __name__ == "__main__":
    main()
