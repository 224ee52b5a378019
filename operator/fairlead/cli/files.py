"""Reads YAML from files, folders and standard input, for commands that send it to a server."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fairlead.core.documents import load_documents
from fairlead.errors import InvalidObject

STDIN: Final = "-"
_ENDINGS: Final = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Source:
    """A text and what it is called."""

    name: str
    text: str


def read_sources(paths: Iterable[str], *, recursive: bool = False) -> Iterator[Source]:
    """Yield the text of every file; of a folder, of every YAML or JSON file in it, in order.

    Raises:
        InvalidObject: a path is not there or is no text.
    """
    for path in paths:
        if path == STDIN:
            yield Source("<stdin>", sys.stdin.read())
            continue
        for file in _files(Path(path), recursive=recursive):
            yield Source(str(file), _text(file))


def _files(path: Path, *, recursive: bool) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in (path.rglob("*") if recursive else path.iterdir()) if file.suffix in _ENDINGS)
    if not found:
        raise InvalidObject(f"no YAML file in {path}{'' if recursive else '; -R looks into its folders, too'}")
    return [file for file in found if file.name not in ("kustomization.yaml", "kustomization.yml")]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidObject(f"there is no file {file}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidObject(f"{file} cannot be read: {error}") from error


def read_objects(paths: Iterable[str], *, recursive: bool = False) -> list[dict[str, Any]]:
    """Return every object; lists are taken apart.

    Raises:
        InvalidObject: a file is not valid YAML, or holds something that is no object; with file and line.
    """
    return [obj for source in read_sources(paths, recursive=recursive) for obj in objects_of(source)]


def objects_of(source: Source) -> list[dict[str, Any]]:
    """Return every object of a text; lists are taken apart.

    Raises:
        InvalidObject: it is not valid YAML, or holds something that is no object; with file and line.
    """
    loaded = load_documents(source.text, source.name)
    if loaded.problems:
        raise InvalidObject("\n".join(problem.text() for problem in loaded.problems).removeprefix("error: "))
    return [obj for document in loaded.documents for obj in _objects(document.value, source.name)]


def _objects(value: Any, file: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, dict) or not value.get("apiVersion") or not value.get("kind"):
        raise InvalidObject(f"{file}: an object needs apiVersion and kind")
    if value["kind"] == "List":
        return [obj for item in value.get("items") or () for obj in _objects(item, file)]
    if not isinstance(value.get("metadata"), dict):
        raise InvalidObject(f"{file}: {value['kind']} needs metadata with a name")
    return [value]
