"""Digests of work: the definition of a node and every value that it is given. The same digest means the same work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from fairlead_agent.graph.frame import Frame
from fairlead_agent.graph.model import Node, Uses
from fairlead_agent.graph.paths import HANDLERS
from fairlead_agent.graph.tokens import token


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
        self._of_nodes: dict[tuple[str, str], str] = {}
        self._asking: dict[str, bool] = {}
        """By the name of a nested workflow: whether it asks people."""

    def of(self, frame: Frame, node: Node, item: str | None = None) -> str:
        """Return the digest of a node or item about to run; empty where results are never used again.

        Raises:
            ExpressionError: ``cache.key`` failed.
        """
        if self._asks_people(node.action, node.config) or node.name in HANDLERS:
            return ""
        whole = node.for_each is not None and item is None
        definition = self._definition(frame, node)
        if node.cache is not None and node.cache.key is not None and not whole:
            return token(["key", definition, frame.scope(node.name, item).evaluate(node.cache.key)])
        found = hashlib.sha256(definition.encode())
        if whole and node.for_each is not None:
            found.update(node.for_each.source.encode())
        for name, value in _values(frame, node, item, node.uses_in_all if whole else node.uses):
            found.update(f"\0{name}={value}".encode())
        return found.hexdigest()

    def _asks_people(self, action: str, config: Mapping[str, Any]) -> bool:
        """Whether a node asks people, or runs a workflow that does: what they decide, they decide again."""
        if action != "workflow":
            return action == "approval"
        name = config["name"]
        if name not in self._asking:
            self._asking[name] = False  # ends a cycle, which is refused elsewhere
            self._asking[name] = any(
                self._asks_people(action, wire[action])
                for wire in _wires(self._workflows.get(name, {}))
                for action in ("approval", "workflow")
                if wire.get(action) is not None
            )
        return self._asking[name]

    def _definition(self, frame: Frame, node: Node) -> str:
        """Return what does not change from one execution of a node to the next."""
        key = (frame.workflow, node.name)
        if key not in self._of_nodes:
            used = self._used_by(node.action, node.config, frame.graph.model)
            self._of_nodes[key] = f"{node.token} {sorted(used.items())}"
        return self._of_nodes[key]

    def _used_by(self, action: str, config: Mapping[str, Any], default_model: str) -> dict[str, str]:
        """Return the digests of what a node uses, by what it is."""
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
                for wire in _wires(spec)
                for action in ("llm", "agent", "tool", "workflow")
                if wire.get(action) is not None
            ]
            part = {field: spec.get(field) for field in ("inputs", "model", "nodes", "output")}
            part |= {field: spec[field] for field in HANDLERS.values() if spec.get(field)}
            self._of_workflows[name] = token({"spec": part, "used": used})
        return self._of_workflows[name]


def _wires(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes and handlers of a workflow."""
    yield from spec.get("nodes", ())
    yield from (spec[field] for field in HANDLERS.values() if spec.get(field))


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


def _values(frame: Frame, node: Node, item: str | None, uses: Uses) -> Iterator[tuple[str, str]]:
    """Yield what a node is given: names, and tokens of the values."""
    for name in uses.outputs:
        yield f"outputs.{name}", _output(frame, node.name, name)
    for name in sorted(frame.inputs) if uses.inputs is None else uses.inputs:
        yield f"inputs.{name}", _kept(frame, f"inputs.{name}", frame.inputs.get(name))
    for name in uses.variables:
        match name:
            case "iteration":
                yield name, str(frame.round(node.name))
            case "run":
                yield name, _kept(frame, name, frame.run)
            case _ if item is not None:
                yield name, token(frame.item_variables(node.name, item)[name])
            case _:
                continue
