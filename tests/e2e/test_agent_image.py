"""The agent's image: how small it is, what is in it and what is not, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fairlead.testing.containers import docker, missing_images

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "fairlead-agent:0.1.0"
SBOM = "usr/share/fairlead-agent/sbom.cdx.json"
MAX_BYTES = 100_000_000
HARDENED = ("--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
pytestmark = [pytest.mark.docker, pytest.mark.agent_image]

INSIDE = """
import importlib.metadata, json, os, ssl, subprocess, sys

def outcome(attempt):
    try:
        return repr(attempt())
    except Exception as error:
        return type(error).__name__

import fairlead_agent.main, fairlead_agent.loop, langgraph.graph

print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "version": list(sys.version_info[:2]),
    "authorities": ssl.create_default_context().cert_store_stats()["x509_ca"],
    "encoding": [sys.getfilesystemencoding(), sys.stdout.encoding],
    "writes": {path: outcome(lambda: open(path + "/x", "w"))
               for path in ("", "/etc", "/opt/agent", "/usr/bin", "/run/fairlead", "/tmp")},
    "shell": outcome(lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {})),
    "pip": outcome(lambda: __import__("pip")),
    "installer": outcome(lambda: __import__("ensurepip")),
    "source": outcome(lambda: open(fairlead_agent.main.__file__.replace(".pyc", ".py"))),
}))
"""


@pytest.fixture(scope="module")
def details() -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("image", "inspect", IMAGE).stdout)
    return found[0]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's file system."""
    path = tmp_path_factory.mktemp("image") / "root.tar"
    container = docker("create", "--label", "fairlead.test", IMAGE).stdout.strip()
    try:
        docker("export", "--output", str(path), container)
    finally:
        docker("rm", container)
    return path


@pytest.fixture(scope="module")
def files(archive: Path) -> dict[str, tarfile.TarInfo]:
    """Everything in the image, by path."""
    with tarfile.open(archive) as root:
        return {member.name: member for member in root if not member.name.startswith(("dev/", "proc/", "sys/"))}


@pytest.fixture(scope="module")
def sbom(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as root:
        content = root.extractfile(SBOM)
        assert content is not None
        found: dict[str, Any] = json.loads(content.read())
    return found


@pytest.fixture(scope="module")
def inside() -> dict[str, Any]:
    done = docker("run", *HARDENED, "--entrypoint", "python", IMAGE, "-c", INSIDE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pinned() -> dict[str, set[str]]:
    """Return what requirements/agent.txt pins for this kind of machine: the hashes by name and version."""
    text = (ROOT / "requirements" / "agent.txt").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        requirement = Requirement(line.split("--hash")[0])
        if requirement.marker is None or requirement.marker.evaluate():
            name = f"{canonicalize_name(requirement.name)}{requirement.specifier}"
            found[name] = set(re.findall(r"sha256:(\w+)", line))
    return found


def test_image_is_small_and_starts_as_nobody(details: dict[str, Any]) -> None:
    assert details["Size"] < MAX_BYTES
    assert details["Config"]["User"] == "10001:10001"
    assert details["Config"]["Entrypoint"] == ["python", "-m", "fairlead_agent"]
    assert len(details["RootFS"]["Layers"]) <= 2  # BuildKit adds an empty one


def test_image_has_one_program(files: dict[str, tarfile.TarInfo]) -> None:
    ours = {path: file for path, file in files.items() if file.isreg() and file.size}
    programs = {path for path, file in ours.items() if file.mode & 0o111 and ".so" not in path}
    assert [re.sub(r"3\.\d+$", "3", path) for path in programs] in (["usr/bin/python3"], ["usr/local/bin/python3"])
    assert [path for path, file in files.items() if file.mode & 0o6000] == []
    assert {file.uid for file in files.values()} == {0}


def test_image_is_written_to_by_nobody_but_in_tmp(files: dict[str, tarfile.TarInfo]) -> None:
    assert [path for path, file in files.items() if file.mode & 0o022 and not file.issym()] == ["tmp"]


def test_image_has_no_sources_caches_or_tests(files: dict[str, tarfile.TarInfo]) -> None:
    unwanted = re.compile(r"\.(py|pyi|c|h)$|(^|/)(__pycache__|tests|ensurepip|pip|dpkg|apt|apk)(/|$)")
    assert [path for path in files if unwanted.search(path)] == []


def test_times_in_the_image_are_all_the_same(files: dict[str, tarfile.TarInfo]) -> None:
    ours = [file for path, file in files.items() if path.startswith(("opt/", "usr/", "lib"))]
    assert len({file.mtime for file in ours}) == 1


def test_distributions_are_those_that_are_pinned(files: dict[str, tarfile.TarInfo], sbom: dict[str, Any]) -> None:
    listed = {part["name"]: part for part in sbom["components"] if part["type"] == "library"}
    assert {f"{name}=={part['version']}" for name, part in listed.items()} == {*pinned(), "fairlead-agent==0.1.0"}
    folders = {found[1] for path in files if (found := re.search(r"site-packages/(.+)-.+\.dist-info$", path))}
    assert {canonicalize_name(name) for name in folders} == set(listed)


def test_bill_of_materials_has_the_hash_of_everything(files: dict[str, tarfile.TarInfo], sbom: dict[str, Any]) -> None:
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    known = pinned()
    for part in sbom["components"]:
        match part["type"], [each["content"] for each in part.get("hashes", ())]:
            case "library", [digest]:
                assert part["name"] == "fairlead-agent" or digest in known[f"{part['name']}=={part['version']}"]
                assert part["licenses"], part
            case "file", [digest]:
                assert part["name"].removeprefix("/") in files
                assert re.fullmatch("[0-9a-f]{64}", digest)
            case other, _:
                assert other == "platform"
    brought = {part["name"].removeprefix("/") for part in sbom["components"] if part["type"] == "file"}
    libraries = {
        path for path, file in files.items() if file.isreg() and re.match(r"(usr/)?lib(64)?/.*\.so(\.|$)", path)
    }
    assert {path for path in libraries if "/python3" not in path} <= brought


def test_container_is_not_root_and_writes_nowhere(inside: dict[str, Any]) -> None:
    assert inside["user"] == [10001, 10001]
    assert set(inside["writes"].values()) == {"OSError"}


def test_container_has_neither_shell_nor_installer(inside: dict[str, Any]) -> None:
    assert inside["shell"] == "FileNotFoundError"
    assert inside["pip"] == inside["installer"] == "ModuleNotFoundError"
    assert inside["source"] == "FileNotFoundError"


def test_container_knows_authorities_and_unicode(inside: dict[str, Any]) -> None:
    assert inside["authorities"] > 50
    assert inside["encoding"] == ["utf-8", "utf-8"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--user", "0"), "error: this image does not run as root", id="root"),
        pytest.param(("--user", "4711:4711"), "error: FAIRLEAD_GATEWAY_URL must be", id="another-user"),
        pytest.param(("--env", "FAIRLEAD_GATEWAY_URL=http://gateway"), "https:// address of the gateway", id="no-tls"),
    ],
)
def test_agent_that_cannot_start_says_why(options: tuple[str, ...], message: str) -> None:
    done = docker("run", *HARDENED, *options, IMAGE, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.soak  # it installs packages
def test_own_packages_are_added_as_the_guide_says(details: dict[str, Any], tmp_path: Path) -> None:
    base = details["Config"]["Labels"]["dev.fairlead.base"]
    if missing_images([base]):
        pytest.skip(f"{base}, which the image was built from, is not there")
    guide = (ROOT / "docs" / "howto" / "agents-and-tools.md").read_text()
    (recipe,) = re.findall(r"```dockerfile\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "Dockerfile").write_text(recipe)
    shutil.copy(ROOT / "configs" / "user-graph" / "two_opinions.py", tmp_path)
    with zipfile.ZipFile(tmp_path / "courtesy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("courtesy.py", "GREETING = 'Ahoy'\n")
        wheel.writestr("courtesy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: courtesy\nVersion: 1.0\n")
        wheel.writestr("courtesy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("courtesy-1.0.dist-info/RECORD", "")
    (tmp_path / "requirements.txt").write_text("./courtesy-1.0-py3-none-any.whl\n")
    image = f"fairlead-test-own:{tmp_path.parent.name}"
    try:
        docker("build", "--quiet", "--build-arg", f"BASE={base}", "--tag", image, str(tmp_path))
        program = "import courtesy, two_opinions; print(courtesy.GREETING, two_opinions.graph is not None)"
        done = docker("run", *HARDENED, "--entrypoint", "python", image, "-c", program)
        assert done.stdout == "Ahoy True\n"
    finally:
        docker("rmi", "--no-prune", image, check=False)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_builds_have_the_same_content(details: dict[str, Any]) -> None:
    made = []
    base = details["Config"]["Labels"]["dev.fairlead.base"]
    for number in (1, 2):
        image = f"fairlead-test-again:{number}"
        make = ["make", "image", f"BASE={base}", f"AGENT={image}", "DOCKER_ARGS=--network host --no-cache"]
        subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
        made.append(json.loads(docker("image", "inspect", image).stdout)[0]["RootFS"]["Layers"])
        docker("rmi", image)
    assert made[0] == made[1]
