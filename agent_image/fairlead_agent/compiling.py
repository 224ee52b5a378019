"""CEL expressions, compiled once, and what the names in them refer to.

Does not belong here: values.
"""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

from fairlead_agent.functions import MACROS, NAMES, RENAMED
from fairlead_agent.lexing import Token, matching_brackets, tokens

if TYPE_CHECKING:
    import cel

MAX_LENGTH: Final = 4096
VARIABLES: Final = ("inputs", "outputs", "item", "index", "iteration", "run")
KEYWORDS: Final = frozenset(
    {"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop"}
    | {"namespace", "null", "package", "return", "true", "var", "void", "while"}
)
"""Words that cannot name a node: CEL reserves them."""
_LITERALS: Final = frozenset({"true", "false", "null", "in"})
_TYPES: Final = frozenset({"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type"})
_GIVE_LISTS: Final = frozenset({"map", "filter", "split"})
_PLAIN_TEXT: Final = re.compile(r"""(["'])([^"'\\]*)\1""")
TICK: Final = "tick__"
ORDERED: Final = "ordered__"


class ExpressionError(ValueError):
    """An expression that cannot be compiled, or that failed with the values it met."""

    reason = "ExpressionError"
    """What its node fails with."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression and what it refers to."""

    source: str
    program: cel.Program
    variables: frozenset[str]
    """Of `VARIABLES`."""
    outputs: frozenset[str]
    """Nodes whose outputs it uses."""
    inputs: frozenset[str]
    """Inputs that it uses by name."""
    functions: frozenset[str]
    all_inputs: bool = False
    """Whether it uses ``inputs`` as a whole, too."""


@cache
def library() -> ModuleType:
    """Import the CEL library without its command line, which would import half a terminal toolkit."""
    placeholder = ModuleType("cel.cli")
    hidden = sys.modules.setdefault("cel.cli", placeholder) is placeholder
    module = import_module("cel")  # waits while another thread imports it
    logging.getLogger("cel").setLevel(logging.CRITICAL)  # it also raises what it warns of
    if hidden:
        sys.modules.pop("cel.cli", None)
    return module


@lru_cache(maxsize=4096)
def compile_expression(source: str) -> Expression:
    """Compile *source* and check every name in it.

    Raises:
        ExpressionError: with the line and column where the mistake is.
    """
    if len(source) > MAX_LENGTH:
        raise ExpressionError(f"an expression may have {MAX_LENGTH} characters, this one has {len(source)}")
    if not source.strip():
        raise ExpressionError("the expression is empty")
    program = _compile(source)
    parts = list(tokens(source))
    names = _Names(source, parts)
    names.collect()
    if names.loops or names.renamed:
        program = _compile(_rewritten(source, names), shown=source)
    return Expression(
        source,
        program,
        frozenset(names.variables),
        frozenset(names.outputs),
        frozenset(names.inputs),
        frozenset(names.functions),
        names.all_inputs,
    )


def library_failed(error: BaseException) -> bool:
    """Return whether *error* comes from the CEL library: whatever it raises, and a panic, which is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _compile(source: str, *, shown: str = "") -> cel.Program:
    try:
        return library().compile(source)  # type: ignore[no-any-return]
    except BaseException as error:
        if not library_failed(error):
            raise
        raise ExpressionError(_syntax_error(shown or source, str(error))) from None


def _syntax_error(source: str, text: str) -> str:
    """Make one sentence of the parser's report."""
    first = text.partition("ERROR: <input>:")[2].partition("\n")[0]
    where, _, what = first.partition(": ")
    line, _, column = where.partition(":")
    what = what.removeprefix("Syntax error: ").partition(" expecting ")[0].replace("<EOF>", "the end of the expression")
    if "Recursion limit" in text:
        return f"{quoted(source)} is nested too deeply"
    if not what:
        return f"{quoted(source)} is no CEL expression"
    place = f"line {line}, column {column}" if "\n" in source.strip() else f"column {column}"
    return f"{quoted(source)} is no CEL expression: {what} at {place}"


def quoted(source: str) -> str:
    """Return an expression as a message shows it."""
    text = " ".join(source.split())
    return f'"{text if len(text) <= 200 else text[:197] + "..."}"'  # noqa: PLR2004 - fits a terminal


@dataclass(frozen=True, slots=True)
class _Loop:
    """A macro that goes over a list: its variable, and where its first body is in the source."""

    variable: str
    start: int
    end: int
    range_start: int
    """Where what it goes over begins in the source."""
    range_end: int
    is_list: bool
    """Whether what it goes over is a list for sure, and needs no ordering."""
    is_path: bool
    """Whether what it goes over is only names and dots: cheap to evaluate twice."""


class _Names:
    """Finds what the names in an expression refer to."""

    def __init__(self, source: str, parts: list[Token]) -> None:
        self.variables: set[str] = set()
        self.outputs: set[str] = set()
        self.inputs: set[str] = set()
        self.functions: set[str] = set()
        self.loops: list[_Loop] = []
        self.renamed: list[Token] = []
        """The names of functions that are called by another name (`RENAMED`)."""
        self.all_inputs = False
        self._source = source
        self._parts = parts
        self._pairs = matching_brackets(parts)
        self._bound: list[tuple[str, int, int]] = []

    def collect(self) -> None:
        """Look at every name.

        Raises:
            ExpressionError: a name that is not known here.
        """
        names = [i for i, part in enumerate(self._parts) if part.kind == "name" and part.text not in _LITERALS]
        for i in names:
            if self._text(i + 1) == "(":
                self._function(i)
        for i in names:
            if self._text(i + 1) != "(" and not self._is_field(i):
                self._variable(i)

    def _text(self, i: int) -> str:
        return self._parts[i].text if 0 <= i < len(self._parts) else ""

    def _is_field(self, i: int) -> bool:
        if self._text(i - 1) != ".":
            return False
        before = self._parts[i - 2] if i > 1 else None
        return before is not None and (before.kind != "op" or before.text in (")", "]", "}"))

    def _function(self, i: int) -> None:
        name = self._text(i)
        if name not in NAMES:
            raise self._unknown(i, "function", NAMES)
        self.functions.add(name)
        if name in RENAMED:
            self.renamed.append(self._parts[i])
        if name in MACROS and self._text(i - 1) == "." and self._text(i + 3) == ",":
            self._loop(i)

    def _loop(self, i: int) -> None:
        variable, end = self._text(i + 2), self._pairs[i + 1]
        if variable in VARIABLES or variable in _TYPES:
            raise self._error(i + 2, f'"{variable}" is taken; give the element another name')
        self._bound.append((variable, i + 2, end))
        last = next((comma for comma in self._commas(i + 4, end)), end)
        first, after = self._parts[i + 4], self._parts[last - 1]
        over = self._receiver(i - 2)
        dot, head = self._parts[i - 1], self._parts[over]
        is_path = all(part.kind == "name" or part.text == "." for part in self._parts[over : i - 1])
        is_list = (head.text == "[" and self._pairs.get(over) == i - 2) or self._called(i - 2) in _GIVE_LISTS
        self.loops.append(
            _Loop(variable, first.start, after.start + len(after.text), head.start, dot.start, is_list, is_path)
        )

    def _called(self, last: int) -> str:
        """Return the name of the function whose call ends at *last*, or nothing."""
        opening = next((start for start, end in self._pairs.items() if end == last), 0)
        return self._text(opening - 1) if self._text(opening) == "(" else ""

    def _receiver(self, last: int) -> int:
        """Return the index of the first token of the operand whose last token is *last*."""
        opening = next((start for start, end in self._pairs.items() if end == last), last)
        before = self._parts[opening - 1] if opening else None
        if before is None or before.text in _LITERALS:
            return opening
        if opening != last and (before.kind in ("name", "string") or before.text in (")", "]", "}")):
            return self._receiver(opening - 1)
        if before.text == "." and opening > 1:
            return self._receiver(opening - 2)
        return opening

    def _commas(self, start: int, end: int) -> list[int]:
        found, i = [], start
        while i < end:
            if self._text(i) == ",":
                found.append(i)
            i = self._pairs.get(i, i) + 1
        return found

    def _variable(self, i: int) -> None:
        name = self._text(i)
        if any(name == bound and start <= i < end for bound, start, end in self._bound):
            return
        if name in _TYPES:
            return
        if name == "memory":
            raise self._error(i, '"memory" is not supported yet')
        if name not in VARIABLES:
            raise self._unknown(i, "variable", VARIABLES)
        if self._text(i + 1) == "{":
            raise self._error(i + 1, "messages are not supported")
        self.variables.add(name)
        if name in ("inputs", "outputs"):
            self._member(i)

    def _member(self, i: int) -> None:
        field = self._field_after(i)
        if self._text(i) == "inputs":
            self.inputs.update({field} if field else ())
            self.all_inputs |= not field
        elif field:
            self.outputs.add(field)
        else:
            raise self._error(i, '"outputs" must be followed by the name of a node, as in outputs.draft')

    def _field_after(self, i: int) -> str:
        following = self._parts[i + 2] if i + 2 < len(self._parts) else None
        if following is None:
            return ""
        if self._text(i + 1) == "." and following.kind == "name" and self._text(i + 3) != "(":
            return following.text
        plain = _PLAIN_TEXT.fullmatch(following.text)
        return plain[2] if plain and self._text(i + 1) == "[" and self._text(i + 3) == "]" else ""

    def _unknown(self, i: int, kind: str, known: frozenset[str] | tuple[str, ...]) -> ExpressionError:
        name = self._text(i)
        near = get_close_matches(name, known, 1)
        there = ", ".join(sorted(known)) if kind == "variable" else "the published ones only"
        hint = f'did you mean "{near[0]}"?' if near else f"there are: {there}"
        return self._error(i, f'unknown {kind} "{name}"; {hint}')

    def _error(self, i: int, text: str) -> ExpressionError:
        return ExpressionError(f"{quoted(self._source)}: {text} (column {self._parts[i].start + 1})")


def _rewritten(source: str, names: _Names) -> str:
    """Put a call of `TICK` into the body of every macro, and one of `ORDERED` around what it goes over.

    So a loop can be ended from outside, and goes over a map by sorted key: the library's own order is random. And call
    functions by the names of `RENAMED`.
    """
    loops = names.loops
    changes = [(loop.start, 1, f"({TICK}({loop.variable}) ? (") for loop in loops]
    changes += [(loop.end, 0, ") : null)") for loop in loops]
    for loop in loops:
        over = source[loop.range_start : loop.range_end]
        if not loop.is_list:
            before, after = (f"(type({over}) == list ? {over} : ", ")") if loop.is_path else ("", "")
            changes += [(loop.range_start, 2, f"{before}{ORDERED}("), (loop.range_end, -1, f"){after}")]
    for called in names.renamed:
        changes.append((called.start + len(called.text), 0, RENAMED[called.text].removeprefix(called.text)))
    for position, _, text in sorted(changes, key=lambda change: change[:2], reverse=True):
        source = source[:position] + text + source[position:]
    return source
