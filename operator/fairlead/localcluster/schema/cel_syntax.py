"""CEL's syntax as a tree, which the CEL library does not show: needed to check types and to estimate cost.

Source: the language definition of CEL, with the macros and optional syntax that Kubernetes enables.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+\.\d+(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+[uU]?)
    |(?P<string>[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*|`[^`\n]+`)
    |(?P<op>\|\||&&|==|!=|<=|>=|\.\?|\[\?|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_LEVELS: Final = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))
_RESERVED: Final = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package"}
    | {"namespace", "return", "var", "void", "while"}
)
_MACROS: Final = {
    "all": (2, 3),
    "exists": (2, 3),
    "exists_one": (2, 3),
    "existsOne": (3,),
    "map": (2, 3),
    "filter": (2,),
    "transformList": (3, 4),
    "transformMap": (3, 4),
    "optMap": (2,),
    "optFlatMap": (2,),
}
_PRECEDENCE: Final = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators}
_MAX_DEPTH: Final = 80


class CelSyntaxError(ValueError):
    """The text is no CEL."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; *kind* is its CEL type."""

    kind: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Name:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """A field; *test* is ``has()``, *optional* is ``.?``."""

    operand: Node
    field: str
    test: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator (``_+_`` …), of *target* when it is a method."""

    function: str
    target: Node | None
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list, or a map as keys and values in turn."""

    kind: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Macro:
    """A comprehension over *target*: its variables and its expressions."""

    name: str
    target: Node
    variables: tuple[str, ...]
    args: tuple[Node, ...]


Node = Literal | Name | Select | Call | Items | Macro


def parse(source: str) -> Node:
    """Return the tree of *source*.

    Raises:
        CelSyntaxError: says where.
    """
    parser = _Parser(source)
    node = parser.ternary()
    parser.expect("")
    return node


def renamed(source: str, old: str, new: str) -> str:
    """Return *source* with calls of one function renamed."""
    tokens = _tokens(source)
    parts, end = [], 0
    for (_, text, start), (_, following, _) in pairwise(tokens):
        called = text == old and following == "("
        parts += [source[end:start], new if called else text]
        end = start + len(text)
    return "".join(parts) + source[end:]


def walk(node: Node) -> Iterator[Node]:
    """Yield *node* and everything in it."""
    yield node
    for part in _parts(node):
        yield from walk(part)


def fields_of(node: Node, names: tuple[str, ...]) -> frozenset[str] | None:
    """Return the fields of the variables *names* that are used; None when a variable is used as a whole."""
    found: set[str] = set()
    return frozenset(found) if _collect(node, names, found) else None


def _collect(node: Node, names: tuple[str, ...], found: set[str]) -> bool:
    if isinstance(node, Select) and isinstance(node.operand, Name) and node.operand.name in names:
        found.add(node.field)
        return not node.optional
    if isinstance(node, Name):
        return node.name not in names
    return all(_collect(part, names, found) for part in _parts(node))


def _parts(node: Node) -> tuple[Node, ...]:
    match node:
        case Select():
            return (node.operand,)
        case Call():
            return node.args if node.target is None else (node.target, *node.args)
        case Items():
            return node.items
        case Macro():
            return (node.target, *node.args)
        case _:
            return ()


def _tokens(source: str) -> list[tuple[str, str, int]]:
    found, position = [], 0
    while position < len(source):
        hit = _TOKEN.match(source, position)
        if hit is None:
            raise _error(source, position, f"token recognition error at: '{source[position]}'")
        if hit.lastgroup != "space":
            found.append((str(hit.lastgroup), hit[0], position))
        position = hit.end()
    found.append(("end", "", len(source)))
    return found


def _error(source: str, position: int, message: str) -> CelSyntaxError:
    before = source[:position]
    line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1)
    text = source.split("\n")[line - 1]
    return CelSyntaxError(f"ERROR: <input>:{line}:{column + 1}: {message}\n | {text}\n | {'.' * column}^")


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = _tokens(source)
        self._at = 0
        self._depth = 0

    def _peek(self) -> str:
        kind, text, _ = self._tokens[self._at]
        return text if kind in {"op", "end"} or text == "in" else ""

    def _take(self) -> tuple[str, str, int]:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _has(self, text: str) -> bool:
        kind, found, _ = self._tokens[self._at]
        if found == text and kind != "string":
            self._at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        """Take the token, or fail."""
        kind, found, position = self._tokens[self._at]
        if found != text or kind == "string":
            wanted = f"expecting '{text}'" if text else "expecting <EOF>"
            raise _error(self._source, position, f"Syntax error: mismatched input '{found or '<EOF>'}' {wanted}")
        self._at += 1

    def ternary(self) -> Node:
        """Read an expression."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _error(self._source, self._tokens[self._at][2], f"expression recursion limit exceeded: {_MAX_DEPTH}")
        condition = self._binary(0)
        if self._has("?"):
            then = self._binary(0)
            self.expect(":")
            condition = Call("_?_:_", None, (condition, then, self.ternary()))
        self._depth -= 1
        return condition

    def _binary(self, level: int) -> Node:
        """Climb the precedences from *level* up."""
        left = self._unary()
        while (found := _PRECEDENCE.get(self._peek(), -1)) >= level:
            operator = self._take()[1]
            if operator in {"&&", "||"}:
                left = self._chain(operator, left, found + 1)
                continue
            right = self._binary(found + 1)
            left = Call("@in" if operator == "in" else f"_{operator}_", None, (left, right))
        return left

    def _chain(self, operator: str, first: Node, level: int) -> Node:
        """Read all operands of one logical operator into a balanced tree: chains get long."""
        operands = [first, self._binary(level)]
        while self._has(operator):
            operands.append(self._binary(level))
        while len(operands) > 1:
            pairs = [tuple(operands[index : index + 2]) for index in range(0, len(operands), 2)]
            operands = [Call(f"_{operator}_", None, pair) if len(pair) > 1 else pair[0] for pair in pairs]
        return operands[0]

    def _unary(self) -> Node:
        for operator in ("!", "-"):
            count = 0
            while self._has(operator):
                count += 1
            if count:
                inner = self._member()
                if operator == "-" and isinstance(inner, Literal) and inner.kind in {"int", "double"}:
                    return inner
                return Call(f"{operator}_", None, (inner,)) if count % 2 else inner
        return self._member()

    def _member(self) -> Node:
        node = self._primary()
        while True:
            if self._has("."):
                node = self._selected(node)
            elif self._has(".?"):
                node = Select(node, self._name(), optional=True)
            elif self._has("[?"):
                node = self._indexed(node, "_[?_]")
            elif self._has("["):
                node = self._indexed(node, "_[_]")
            else:
                return node

    def _indexed(self, node: Node, function: str) -> Node:
        index = self.ternary()
        self.expect("]")
        return Call(function, None, (node, index))

    def _selected(self, node: Node) -> Node:
        name = self._name()
        return self._called(name, node) if self._has("(") else Select(node, name.strip("`"))

    def _name(self) -> str:
        kind, text, position = self._take()
        if kind != "name" or text in {"in", "true", "false", "null"}:
            raise _error(self._source, position, f"Syntax error: no viable alternative at input '.{text}'")
        return text

    def _list(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._has(end):
            self._has("?")
            items.append(self.ternary())
            if not self._has(","):
                self.expect(end)
                break
        return tuple(items)

    def _called(self, name: str, target: Node | None) -> Node:
        position = self._tokens[self._at][2]
        args = self._list(")")
        if name == "has" and target is None and len(args) == 1:
            if isinstance(args[0], Select):
                return Select(args[0].operand, args[0].field, test=True)
            raise _error(self._source, position, "invalid argument to has() macro")
        if name == "bind" and target == Name("cel") and len(args) == 3:  # noqa: PLR2004  (name, value, result)
            return Macro("bind", args[1], (_variable(args[0]),), args[2:])
        if target is not None and len(args) in _MACROS.get(name, ()):
            return self._macro(name, target, args, position)
        return Call(name, target, args)

    def _macro(self, name: str, target: Node, args: tuple[Node, ...], position: int) -> Node:
        two = isinstance(args[1], Name) and len(args) == max(_MACROS[name]) and name not in {"map", "filter"}
        count = 2 if (two or name.startswith("transform")) and not name.startswith("opt") else 1
        variables = tuple(_variable(arg) for arg in args[:count])
        if not all(variables):
            raise _error(self._source, position, "argument must be a simple name")
        return Macro(name, target, variables, args[count:])

    def _primary(self) -> Node:
        kind, text, position = self._take()
        if kind == "op" and text in {"(", "[", "{", "."}:
            return self._bracketed(text)
        if kind == "number":
            return _number(text)
        if kind == "string":
            return _string(text)
        if kind != "name" or text == "in":
            found = text or "<EOF>"
            raise _error(self._source, position, f"Syntax error: mismatched input '{found}' expecting an expression")
        if text in {"true", "false"}:
            return Literal("bool", text == "true")
        if text == "null":
            return Literal("null")
        if text in _RESERVED:
            raise _error(self._source, position, f"reserved identifier: {text}")
        return self._called(text, None) if self._has("(") else Name(text)

    def _bracketed(self, text: str) -> Node:
        if text == ".":
            return self._primary()
        if text == "(":
            node = self.ternary()
            self.expect(")")
            return node
        return Items("list", self._list("]")) if text == "[" else Items("map", self._entries())

    def _entries(self) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._has("}"):
            self._has("?")
            items.append(self.ternary())
            self.expect(":")
            items.append(self.ternary())
            if not self._has(","):
                self.expect("}")
                break
        return tuple(items)


def _variable(node: Node) -> str:
    return node.name if isinstance(node, Name) else ""


def _number(text: str) -> Literal:
    if text[-1] in "uU":
        return Literal("uint", int(text[:-1], 0))
    if text[:2].lower() == "0x":
        return Literal("int", int(text, 16))
    if any(mark in text for mark in ".eE"):
        return Literal("double", float(text))
    return Literal("int", int(text))


def _string(text: str) -> Literal:
    start = next(index for index, char in enumerate(text) if char in "\"'")
    prefix, quoted = text[:start].lower(), text[start:]
    marks = 3 if quoted[:3] in {'"""', "'''"} else 1
    body = quoted[marks:-marks]
    if "r" not in prefix and "\\" in body:
        body = _unescaped(body)
    return Literal("bytes" if "b" in prefix else "string", body)


def _unescaped(body: str) -> str:
    """Return the text: CEL's escapes are Python's, but for those of a question mark and a backtick."""
    plain = re.sub(r"\\([?`])", r"\1", body).replace('"""', '\\"\\"\\"')
    try:
        return str(ast.literal_eval(f'"""{plain} """'))[:-1]
    except (SyntaxError, ValueError):
        raise CelSyntaxError(f"ERROR: <input>:1:1: Syntax error: invalid escape in {body!r}") from None
