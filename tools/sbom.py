"""The bill of materials of an image, as CycloneDX. Standard library only."""

from __future__ import annotations

import hashlib
import json
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

_DPKG = Path("/var/lib/dpkg")
Component = dict[str, Any]


def document(name: str, *, epoch: int, files: Iterable[Path], packages: Sequence[Path], reports: Sequence[Path]) -> str:
    """Return the bill of materials.

    Args:
        name: the image.
        epoch: the time that it bears.
        files: what came from the base image.
        packages: the folders that pip installed into.
        reports: what ``pip install --report`` wrote: they have the hashes of what was downloaded.
    """
    found = [_interpreter(), *_distributions(packages, reports), *_files(files)]
    components = sorted(found, key=lambda each: (each["type"], each["name"], each.get("version", "")))
    text = json.dumps(components, sort_keys=True)
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "container", "name": name},
        },
        "components": components,
    }
    return json.dumps(body, indent=1, sort_keys=True) + "\n"


def _interpreter() -> Component:
    version = platform.python_version()
    return {"type": "platform", "name": "python", "version": version, "purl": f"pkg:generic/python@{version}"}


def _distributions(packages: Sequence[Path], reports: Sequence[Path]) -> Iterator[Component]:
    hashes = {key: value for report in reports for key, value in _downloaded(report)}
    for each in distributions(path=[str(folder) for folder in packages]):
        name, version = _normal(each.metadata["Name"]), each.version
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": hashes[name, version]}],
            **_licence(each),
        }


def _downloaded(report: Path) -> Iterator[tuple[tuple[str, str], str]]:
    for each in json.loads(report.read_text())["install"]:
        archive = each["download_info"]["archive_info"]
        digest = archive.get("hashes", {}).get("sha256") or archive["hash"].removeprefix("sha256=")
        yield (_normal(each["metadata"]["name"]), each["metadata"]["version"]), digest


def _licence(distribution: Distribution) -> dict[str, Any]:
    fields = distribution.metadata
    if "License-Expression" in fields:
        return {"licenses": [{"expression": fields["License-Expression"]}]}
    classifiers = [each for each in fields.get_all("Classifier", []) if each.startswith("License ::")]
    names = [each.rpartition(" :: ")[2] for each in classifiers]
    names = names or [text.partition("\n")[0] for text in fields.get_all("License", [])]
    return {"licenses": [{"license": {"name": name}} for name in names if name]}


def _files(files: Iterable[Path]) -> Iterator[Component]:
    owners = dict(_owners())
    for path in sorted(files):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        yield {
            "type": "file",
            "name": str(path),
            "hashes": [{"alg": "SHA-256", "content": digest}],
            **owners.get(str(path), owners.get(str(path).removeprefix("/usr"), {})),
        }


def _owners() -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield which of Debian's packages a file is from, where the base has Debian's lists."""
    status = _DPKG / "status"
    for paragraph in status.read_text().split("\n\n") if status.is_file() else ():
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if line[:1].strip() and ": " in line)
        name, version = fields.get("Package", ""), fields.get("Version", "")
        purl = {"version": version, "purl": f"pkg:deb/debian/{name}@{version}?arch={fields.get('Architecture', '')}"}
        for listed in (_DPKG / "info" / f"{name}.list", _DPKG / "info" / f"{name}:{fields.get('Architecture')}.list"):
            for line in listed.read_text().splitlines() if listed.is_file() else ():
                yield line, purl


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
