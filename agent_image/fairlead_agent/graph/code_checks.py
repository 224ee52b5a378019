"""What is wrong with the program of a node: found before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from fairlead_agent.graph.places import Place
from fairlead_agent.problems import Problem

LANGUAGES: Final = ("python", "shell")
MAX_FILES: Final = 64
MAX_NAME: Final = 255
OUT: Final = "out"
"""The folder from which files are taken when a program has ended."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")
_FILLED_IN: Final = re.compile(r"\{\{\s*(?:inputs|outputs|item|index|iteration|run)\b[^{}]*\}\}")


def file_mistake(name: Any) -> str:
    """Return why a file cannot be called so, or nothing."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or len(name) > MAX_NAME or not name.isprintable() or "\\" in name:
        return f"a file's name is a relative path of at most {MAX_NAME} plain characters"
    if name != "/".join(parts) or parts[0] == "/" or ".." in parts:
        return "a file's name is a relative path that leads nowhere else: write it without /, . and .. around its parts"
    if parts[0] == OUT:
        return f"the folder {OUT} is for what the program writes: put the file somewhere else"
    return ""


def variable_mistake(name: Any) -> str:
    """Return why a shell has no variable of this name, or nothing."""
    if isinstance(name, str) and _VARIABLE.fullmatch(name):
        return ""
    return "an input of a shell program is a variable: name it with letters, digits and underscores"


def code_problems(place: Place, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with a ``code`` action."""
    language, source = config.get("language"), config.get("source")
    if isinstance(language, str) and language and language not in LANGUAGES:
        yield place.problem("code.language", f"code.language is one of {', '.join(LANGUAGES)}")
    found = _FILLED_IN.search(source) if isinstance(source, str) else None
    if found is not None:
        text = "code.source is never filled in, or what a model wrote would become a program"
        how = 'read inputs["x"]' if language == "python" else 'read "$x"'
        yield place.problem("code.source", f"{text}: give {found[0]} as a value of code.inputs, and {how}")
    inputs = config.get("inputs")
    for name in inputs if language == "shell" and isinstance(inputs, Mapping) else ():
        if mistake := variable_mistake(name):
            yield place.problem(f"code.inputs.{name}", mistake)
    yield from _file_problems(place, config.get("files"))


def _file_problems(place: Place, files: Any) -> Iterator[Problem]:
    if files is None:
        return
    if not isinstance(files, Mapping):
        yield place.problem("code.files", "code.files is a map from paths to contents")
        return
    if len(files) > MAX_FILES:
        yield place.problem("code.files", f"code.files has at most {MAX_FILES} files")
    for name in files:
        if mistake := file_mistake(name):
            yield place.problem("code.files", f"{mistake} (code.files has {str(name)[:MAX_NAME]!r})")
