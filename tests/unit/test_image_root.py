"""The scripts that make images; what comes out of them in whole is in tests/e2e/test_agent_image.py."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PLANT = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from image_root import Root, seal
root = Root(Path(sys.argv[3]), [])
root.plant(Path(sys.argv[2]), Path("/opt"), without=("tests",))
root.modules.sort(reverse=sys.argv[4] == "backwards")
root.compile()
seal(root, 1_700_000_000)
"""


def plant(source: Path, target: Path, order: str) -> dict[str, tuple[int, float, str]]:
    program = [sys.executable, "-c", PLANT, str(TOOLS), str(source), str(target), order]
    (target / "tmp").mkdir(parents=True)
    subprocess.run(program, check=True)
    return {
        str(path.relative_to(target)): (
            path.stat().st_mode & 0o7777,
            path.stat().st_mtime,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in target.rglob("*")
        if path.is_file()
    }


def test_plant_gives_the_same_bytes_whatever_came_before(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "package" / "tests").mkdir(parents=True)
    for name in ("a", "b", "c"):
        text = f"import json, os\n\ndef {name}(text):\n    return text in {{'{name}', 'shared', 'long text'}} or json\n"
        (source / "package" / f"{name}.py").write_text(text)
    (source / "package" / "tests" / "test_a.py").touch()
    (source / "package" / "broken.py").write_text("print 'Python 2'\n")
    (source / "package" / "data.json").write_text("{}")
    first, second = (plant(source, tmp_path / order, order) for order in ("forwards", "backwards"))
    assert first == second
    assert {Path(path).name for path in first} == {"a.pyc", "b.pyc", "c.pyc", "broken.py", "data.json"}
    assert {(mode, time) for mode, time, _ in first.values()} == {(0o644, 1_700_000_000)}


def test_bring_copies_the_links_on_the_way(tmp_path: Path) -> None:
    library = tmp_path / "system" / "usr" / "lib" / "libx.so.1.2"
    library.parent.mkdir(parents=True)
    library.write_text("code")
    (library.parent / "libx.so.1").symlink_to("libx.so.1.2")
    (tmp_path / "system" / "lib").symlink_to("usr/lib")
    asked = tmp_path / "system" / "lib" / "libx.so.1"
    program = f"""
import sys; sys.path.insert(0, {str(TOOLS)!r})
from pathlib import Path
from image_root import Root
print(Root(Path({str(tmp_path / "root")!r}), []).bring(Path({str(asked)!r})))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    copied = tmp_path / "root" / asked.relative_to("/")
    assert done.stdout.strip() == str(library)
    assert copied.read_text() == "code"
    assert copied.is_symlink()
    assert copied.parent.readlink() == Path("usr/lib")


def test_document_without_packages_names_the_interpreter_and_the_files(tmp_path: Path) -> None:
    (tmp_path / "libx.so").write_text("code")
    program = f"""
import sys; sys.path.insert(0, {str(TOOLS)!r})
from pathlib import Path
import sbom
files = [Path({str(tmp_path / "libx.so")!r})]
print(sbom.document("thing", epoch=0, files=files, packages=[], reports=[]))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["metadata"]["timestamp"] == "1970-01-01T00:00:00Z"
    assert [part["type"] for part in found["components"]] == ["file", "platform"]
    assert found["components"][0]["hashes"][0]["content"] == hashlib.sha256(b"code").hexdigest()
