"""Checks that modules stay under 500 lines and functions under 40 (without their docstrings). Prints what does not."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("operator/fairlead", "agent_image/fairlead_agent", "tools")
MAX_MODULE = 500
MAX_FUNCTION = 40


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's body, from its first statement after the docstring to its last."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def findings(path: Path) -> Iterator[str]:
    """Yield what is too long in one module."""
    text = path.read_text()
    lines = text.count("\n")
    if lines > MAX_MODULE:
        yield f"{path.relative_to(ROOT)}: {lines} lines, at most {MAX_MODULE}: is there a second module in it?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (size := function_lines(node)) > MAX_FUNCTION:
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {size} lines, at most {MAX_FUNCTION}"


def main() -> int:
    """Check every source file."""
    paths = sorted(path for source in SOURCES for path in (ROOT / source).rglob("*.py"))
    found = [finding for path in paths for finding in findings(path)]
    if (ROOT / "operator/__init__.py").exists():
        found.append("operator/__init__.py: shadows the standard library's operator; remove it")
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
