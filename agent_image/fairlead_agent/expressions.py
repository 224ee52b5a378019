"""CEL expressions, and text with ``{{ }}`` around them.

Bounds: an expression has at most `MAX_LENGTH` characters, its macros (``map``, ``filter`` …) end after
`MAX_CPU_SECONDS`, and no element they go over is larger than `MAX_ELEMENT` characters or values; no result is
larger than `MAX_RESULT`. What comes out is the same each time: maps are sorted by key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from fairlead_agent.compiling import (
    KEYWORDS,
    MAX_LENGTH,
    ORDERED,
    TICK,
    VARIABLES,
    Expression,
    ExpressionError,
    compile_expression,
    library,
    library_failed,
    quoted,
)
from fairlead_agent.functions import FUNCTIONS, IMPLEMENTED, RENAMED, to_json, to_text
from fairlead_agent.lexing import OPEN, closing_braces

if TYPE_CHECKING:
    import cel

__all__ = [
    "FUNCTIONS",
    "KEYWORDS",
    "MAX_LENGTH",
    "VARIABLES",
    "Expression",
    "ExpressionError",
    "Scope",
    "compile_expression",
    "evaluate",
    "expressions_in",
    "kind",
    "render",
    "template",
]

MAX_CPU_SECONDS: Final = 2.0
MAX_ELEMENT: Final = 1 << 20
MAX_RESULT: Final = 4 << 20


class Scope:
    """Values for expressions. Each expression is given only what it uses: the library copies all that it is given.

    Args:
        variables: by name; ``outputs`` maps a node to its output.
        cpu_seconds: how long the macros of one expression may take.
    """

    def __init__(self, variables: Mapping[str, Any], *, cpu_seconds: float = MAX_CPU_SECONDS) -> None:
        self._shared = variables
        self._local: dict[str, Any] = {}
        self._state = _State(cpu_seconds)

    def bind(self, **local: Any) -> Scope:
        """Return a scope with *local* variables in addition; the others stay shared."""
        bound = Scope.__new__(Scope)
        bound._shared, bound._state = self._shared, self._state  # noqa: SLF001 - the same class
        bound._local = {**self._local, **local}  # noqa: SLF001
        return bound

    def evaluate(self, expression: Expression) -> Any:
        """Return the value of *expression*, as JSON.

        Raises:
            ExpressionError: it failed; the text names the expression and the types of its values.
        """
        try:
            context = self._loaded(expression)
            self._state.deadline = time.thread_time() + self._state.cpu_seconds
            return _bounded(to_json(expression.program.execute(context)))
        except BaseException as error:
            if not library_failed(error):
                raise
            raise ExpressionError(self._failure(expression, error)) from None

    def _loaded(self, expression: Expression) -> cel.Context:
        """Return what the library knows when it evaluates *expression*."""
        local = expression.variables.intersection(self._local)
        uses = (expression.variables, expression.outputs, expression.inputs, expression.functions)
        key = (*uses, local, expression.all_inputs)
        context = self._state.contexts.get(key)
        if context is None:
            context = self._state.contexts[key] = self._state.build_context(expression.functions)
            for name in (expression.variables - local) & self._shared.keys():
                context.add_variable(name, self._part(name, expression))
        for name in local:
            context.add_variable(name, self._local[name])
        return context

    def _part(self, name: str, expression: Expression) -> Any:
        """Return what *expression* uses of a variable."""
        value = self._shared[name]
        if name == "outputs":
            return {node: value[node] for node in expression.outputs if node in value}
        if name == "inputs" and not expression.all_inputs:
            return {field: value[field] for field in expression.inputs if field in value}
        return value

    def _failure(self, expression: Expression, error: BaseException) -> str:
        types = [f"outputs.{name} is {kind(self._shared.get('outputs', {}).get(name))}" for name in expression.outputs]
        inputs = self._shared.get("inputs", {})
        types += [f"inputs.{name} is {kind(inputs.get(name))}" for name in expression.inputs]
        values = {**self._shared, **self._local}
        types += [
            f"{name} is {kind(values[name])}" for name in expression.variables - {"inputs", "outputs"} if name in values
        ]
        where = f" ({', '.join(sorted(types))})" if types else ""
        return f"{quoted(expression.source)} failed: {_reason(error)}{where}"


class _State:
    """What the scopes of one node share: the library's contexts, by what is in them."""

    def __init__(self, cpu_seconds: float) -> None:
        self.contexts: dict[tuple[frozenset[str] | bool, ...], cel.Context] = {}
        self.cpu_seconds = cpu_seconds
        self.deadline = 0.0

    def build_context(self, functions: frozenset[str]) -> cel.Context:
        """Return a context that knows *functions*, and no values yet."""
        context: cel.Context = library().Context()
        context.add_function(TICK, self._tick)
        context.add_function(ORDERED, _ordered)
        for name in functions & IMPLEMENTED.keys():
            context.add_function(RENAMED.get(name, name), IMPLEMENTED[name])
        return context

    def _tick(self, element: Any) -> bool:
        if time.thread_time() > self.deadline:
            raise TimeoutError(f"it took more than {self.cpu_seconds:g} seconds; go over fewer elements")
        if isinstance(element, str | bytes | list | dict) and size(element, MAX_ELEMENT) > MAX_ELEMENT:
            raise ValueError(f"an element is larger than {MAX_ELEMENT} characters or values")
        return True


def _ordered(value: Any) -> list[Any]:
    """Return what a macro goes over as a list: the library's order of a map's keys is another one each time."""
    if isinstance(value, dict):
        return sorted(value, key=to_text)
    if not isinstance(value, list):
        raise TypeError(f"only lists and maps have elements, not {kind(value)}")
    return value


def _reason(error: BaseException) -> str:
    """Make one sentence of what the library raised."""
    if isinstance(error, KeyError):
        return f"no such field: {error.args[0] if error.args else error}"
    text = str(error).removesuffix(" Check function arguments and their types.").rstrip(".")
    text = text.partition(" CEL does not coerce")[0].rstrip(".")
    if "Python function call failed: " in text:
        text = text.partition("Python function call failed: ")[2].partition(": ")[2]
    return " ".join(text.split())


_KINDS: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (NoneType, "null"),
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    ((list, tuple), "array"),
)


def kind(value: Any) -> str:
    """Return the name of a value's type, as people who write YAML know it."""
    return next((name for types, name in _KINDS if isinstance(value, types)), "object")


def size(value: Any, limit: int) -> int:
    """Return how many characters and values there are in *value*, not counting much further than *limit*."""
    total, waiting = 0, [value]
    while waiting and total <= limit:
        one = waiting.pop()
        match one:
            case str() | bytes():
                total += len(one)
            case list() | tuple():
                total += len(one)
                waiting.extend(one)
            case dict():
                total += len(one)
                waiting.extend(one.values())
            case _:
                total += 1
    return total


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | dict) and size(value, MAX_RESULT) > MAX_RESULT:
        raise ValueError(f"the result is larger than {MAX_RESULT} characters or values")
    return value


def evaluate(expression: Expression | str, variables: Mapping[str, Any]) -> Any:
    """Return the value of one expression with *variables*, as JSON."""
    compiled = compile_expression(expression) if isinstance(expression, str) else expression
    return Scope(variables).evaluate(compiled)


@lru_cache(maxsize=4096)
def template(text: str) -> tuple[str | Expression, ...]:
    """Cut *text* into plain text and the expressions in ``{{ }}``.

    Raises:
        ExpressionError: a ``{{`` without its ``}}``, or an expression that cannot be compiled.
    """
    parts: list[str | Expression] = []
    position = 0
    while (start := text.find(OPEN, position)) >= 0:
        end = closing_braces(text, start + 2)
        if end < 0:
            line = text.count("\n", 0, start) + 1
            fix = 'for the text itself write {{ "{{" }}'
            raise ExpressionError(f'"{OPEN}" in line {line} has no "}}}}" that ends it; {fix}')
        parts += [text[position:start]] if start > position else []
        parts.append(compile_expression(text[start + 2 : end].strip()))
        position = end + 2
    return (*parts, text[position:]) if position < len(text) or not parts else tuple(parts)


def render(value: Any, variables: Mapping[str, Any] | Scope) -> Any:
    """Fill in every ``{{ }}`` in *value*: a text, or JSON with texts in it.

    A text that is exactly one ``{{ }}`` keeps the type of its value. What was filled in is not looked at again.
    """
    scope = variables if isinstance(variables, Scope) else Scope(variables)
    match value:
        case str():
            return _render_text(value, scope)
        case list() | tuple():
            return [render(one, scope) for one in value]
        case Mapping():
            return {key: render(one, scope) for key, one in value.items()}
        case _:
            return value


def _render_text(text: str, scope: Scope) -> Any:
    parts = template(text)
    values = [part if isinstance(part, str) else scope.evaluate(part) for part in parts]
    if len(values) == 1:
        return values[0]
    texts = [to_text(value) for value in values]
    if sum(map(len, texts)) > MAX_RESULT:
        raise ExpressionError(f"the text would have more than {MAX_RESULT} characters")
    return "".join(texts)


def expressions_in(value: Any, path: str = "") -> Iterator[tuple[str, Expression | ExpressionError]]:
    """Yield every expression in the texts of *value*, with its path below *path*."""
    match value:
        case str():
            try:
                yield from ((path, part) for part in template(value) if isinstance(part, Expression))
            except ExpressionError as error:
                yield path, error
        case list() | tuple():
            for index, one in enumerate(value):
                yield from expressions_in(one, f"{path}[{index}]")
        case Mapping():
            for key, one in value.items():
                yield from expressions_in(one, f"{path}.{key}" if path else str(key))
        case _:
            return
