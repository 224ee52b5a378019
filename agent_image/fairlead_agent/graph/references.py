"""The expressions of a spec, and what they may refer to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead_agent.compiling import Expression, ExpressionError, compile_expression
from fairlead_agent.expressions import expressions_in, kind
from fairlead_agent.graph.model import ACTIONS, TEMPLATES
from fairlead_agent.graph.places import Place
from fairlead_agent.graph.structure import Structure
from fairlead_agent.problems import Problem, did_you_mean

_OF_ITEMS: Final = frozenset({"item", "index"})
_SOURCES: Final = (
    ("", "when", False),
    ("", "forEach", False),
    ("repeat", "until", False),
    ("wait", "until", True),
    ("cache", "key", True),
)
"""Fields that hold CEL: where, which, and whether it is evaluated for each item."""


@dataclass(frozen=True, slots=True)
class References:
    """What is there to refer to."""

    structure: Structure
    inputs: frozenset[str]

    def problems(self, place: Place) -> Iterator[Problem]:
        """Yield what is wrong with the expressions and texts of a node or handler."""
        per_item = _OF_ITEMS if place.wire.get("forEach") is not None else frozenset[str]()
        for at, source, of_item in _sources(place):
            yield from self._found(place, at, _compiled(at, source), allowed=per_item if of_item else frozenset())
        for action in ACTIONS:
            config = place.wire.get(action)
            texts = {name: config.get(name) for name in TEMPLATES[action]} if isinstance(config, Mapping) else {}
            for at, found in expressions_in(texts, action):
                yield from self._found(place, at, found, allowed=per_item)

    def _found(
        self, place: Place, at: str, found: Expression | ExpressionError, *, allowed: frozenset[str]
    ) -> Iterator[Problem]:
        if isinstance(found, ExpressionError):
            yield place.problem(at, f"{at}: {found}")
            return
        for name in sorted(found.variables & (_OF_ITEMS - allowed)):
            why = "is there only in the action of a node with forEach"
            yield place.problem(at, f'{at} uses "{name}", which {why}')
        if place.is_handler and "iteration" in found.variables:
            yield place.problem(at, f'{at} uses "iteration", which is there only in nodes')
        for text in self._unknown_inputs(at, found):
            yield place.problem(at, text)
        yield from self._unreachable(place, at, found)

    def _unreachable(self, place: Place, at: str, found: Expression) -> Iterator[Problem]:
        needs = self.structure.needs
        reachable = frozenset(needs) if place.is_handler else self._reachable(place.name)
        for name in sorted(found.outputs - reachable):
            if name not in needs:
                yield place.problem(at, f'{at} refers to unknown node "{name}"{did_you_mean(name, needs)}')
            elif name == place.name:
                yield place.problem(at, f"{at} refers to the node's own output, which is not there yet")
            else:
                yield place.problem(at, f'{at} refers to outputs.{name}, but "{name}" is no ancestor: add it to needs')

    def _reachable(self, name: str) -> frozenset[str]:
        return self.structure.ancestors.get(name, frozenset()) | self.structure.around(name)

    def _unknown_inputs(self, at: str, found: Expression) -> Iterator[str]:
        for name in sorted(found.inputs - self.inputs):
            hint = did_you_mean(name, self.inputs) or "; declare it in spec.inputs"
            yield f'{at} refers to unknown input "{name}"{hint}'

    def output_problems(self, output: Any) -> Iterator[Problem]:
        """Yield what is wrong with ``spec.output``."""
        for at, found in expressions_in(output, "output"):
            if isinstance(found, ExpressionError):
                yield Problem(at, f"{at}: {found}")
                continue
            for name in sorted(found.variables & {*_OF_ITEMS, "iteration"}):
                yield Problem(at, f'{at} uses "{name}", which is there only in nodes')
            for text in self._unknown_inputs(at, found):
                yield Problem(at, text)
            for name in sorted(found.outputs - self.structure.needs.keys()):
                hint = did_you_mean(name, self.structure.needs)
                yield Problem(at, f'{at} refers to unknown node "{name}"{hint}')


def _sources(place: Place) -> Iterator[tuple[str, Any, bool]]:
    for within, field, of_item in _SOURCES:
        holder = place.wire.get(within) if within else place.wire
        if isinstance(holder, Mapping) and holder.get(field) is not None:
            yield f"{within}.{field}".lstrip("."), holder[field], of_item


def _compiled(at: str, source: Any) -> Expression | ExpressionError:
    if not isinstance(source, str):
        return ExpressionError(f"it is a CEL expression in a text, not {kind(source)}: put it in quotes")
    try:
        return compile_expression(source)
    except ExpressionError as error:
        hint = f"; {at} is CEL already: leave out the {{{{ }}}}" if source.lstrip().startswith("{{") else ""
        return ExpressionError(f"{error}{hint}")
