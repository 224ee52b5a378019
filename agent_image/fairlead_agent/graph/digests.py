"""Digests of work: the definition of a node and every value that it is given. The same digest means the same work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_agent.compiling import Expression
from fairlead_agent.graph.frame import Frame
from fairlead_agent.graph.model import Node

_UNDIGESTED = frozenset({"approval"})
"""What people decide, they decide again."""


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What does not change from one execution of a node to the next."""

    definition: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] | None
    """None: all of them."""
    variables: tuple[str, ...]


class Digests:
    """Computes digests.

    Args:
        definitions: digests of what nodes use (``Task.definitions``).
        workflows: the specs of nested workflows, by name.
    """

    def __init__(self, definitions: Mapping[str, str], workflows: Mapping[str, Mapping[str, Any]]) -> None:
        self._definitions = definitions
        self._workflows = workflows
        self._of_workflows: dict[str, str] = {}
        self._fixed: dict[tuple[str, str, bool], _Fixed] = {}

    def of(self, frame: Frame, node: Node, item: str | None = None) -> str:
        """Return the digest of a node or item about to run; empty where results are never used again.

        Raises:
            ExpressionError: ``cache.key`` failed.
        """
        if node.action in _UNDIGESTED or node.name.startswith("@"):
            return ""
        whole = node.for_each is not None and item is None
        fixed = self._of_node(frame, node, whole=whole)
        if node.cache is not None and node.cache.key is not None and not whole:
            return token(["key", fixed.definition, frame.scope(node.name, item).evaluate(node.cache.key)])
        found = hashlib.sha256(fixed.definition.encode())
        for name, value in self._values(frame, node, item, fixed):
            found.update(f"\0{name}={value}".encode())
        return found.hexdigest()

    def _values(self, frame: Frame, node: Node, item: str | None, fixed: _Fixed) -> Iterator[tuple[str, str]]:
        for name in fixed.outputs:
            yield f"outputs.{name}", _output(frame, node.name, name)
        for name in sorted(frame.inputs) if fixed.inputs is None else fixed.inputs:
            yield f"inputs.{name}", _kept(frame, f"inputs.{name}", frame.inputs.get(name))
        for name in fixed.variables:
            match name:
                case "iteration":
                    yield name, str(frame.round(node.name))
                case "run":
                    yield name, _kept(frame, name, frame.run)
                case _ if item is not None:
                    yield name, token(frame.item_variables(node.name, item)[name])
                case _:
                    continue

    def _of_node(self, frame: Frame, node: Node, *, whole: bool) -> _Fixed:
        key = (frame.workflow, node.name, whole)
        if key not in self._fixed:
            expressions = node.expressions
            if whole and node.for_each is not None:
                expressions = (*expressions, node.for_each)
            given = {"action": node.action, "config": node.config, "used": self._used(node, frame.graph.model)}
            if whole and node.for_each is not None:
                given["forEach"] = node.for_each.source
            self._fixed[key] = _Fixed(
                token(given),
                tuple(sorted(set().union(*(one.outputs for one in expressions)))),
                _inputs(expressions),
                tuple(sorted(set().union(*(one.variables for one in expressions)) - {"inputs", "outputs"})),
            )
        return self._fixed[key]

    def _used(self, node: Node, default_model: str) -> dict[str, str]:
        """Return the digests of what a node uses, by what it is."""
        return self._used_by(node.action, node.config, default_model)

    def _used_by(self, action: str, config: Mapping[str, Any], default_model: str) -> dict[str, str]:
        if action == "workflow":
            return {f"workflow:{config['name']}": self._of_workflow(config["name"])}
        names = [f"{action}:{config['name']}"] if action in ("agent", "tool") else []
        if action == "llm":
            names = [f"model:{config.get('model') or default_model}"]
            names += [f"tool:{name}" for name in config.get("tools") or ()]
        return {name: self._definitions.get(name, "") for name in names}

    def _of_workflow(self, name: str) -> str:
        """Return the digest of a nested workflow and of all that its nodes use."""
        if name not in self._of_workflows:
            self._of_workflows[name] = ""  # ends a cycle, which is refused elsewhere
            spec = self._workflows.get(name, {})
            used = [
                self._used_by(action, wire[action], spec.get("model") or "")
                for wire in spec.get("nodes", ())
                for action in ("llm", "agent", "tool", "workflow")
                if wire.get(action) is not None
            ]
            part = {field: spec.get(field) for field in ("inputs", "model", "nodes", "output")}
            self._of_workflows[name] = token({"spec": part, "used": used})
        return self._of_workflows[name]


def token(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(frame: Frame, name: str, value: Any) -> str:
    """Return the digest of a value that many nodes share."""
    if name not in frame.tokens:
        frame.tokens[name] = token(value)
    return frame.tokens[name]


def _output(frame: Frame, name: str, other: str) -> str:
    before = frame.round_before(name, other)
    if before is not None:
        return token(before.get(other))
    return _kept(frame, f"outputs.{other}", frame.outputs.get(other))


def _inputs(expressions: tuple[Expression, ...]) -> tuple[str, ...] | None:
    if any(one.all_inputs for one in expressions):
        return None
    return tuple(sorted(set().union(*(one.inputs for one in expressions))))
