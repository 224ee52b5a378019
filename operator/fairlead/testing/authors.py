"""Random workflows that the reference model understands."""

from __future__ import annotations

import random
from typing import Any

from fairlead.testing.semantics import LISTS, Interpreter, Model, Oracle
from fairlead_agent.graph.paths import HANDLERS
from fairlead_agent.graph.structure import Structure

REASONS = ["ToolFailed", "RepeatExhausted", "FinallyFailed"]
"""Of every failure that there is: the model tries again whatever it was."""


class Author:
    """Writes random workflows: any graph, its nodes conditional, looped, repeated, retried, nested, with handlers."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a test's choice
        self.size = size

    def maybe(self, share: float) -> bool:
        """Return True in a share of all cases."""
        return self.random.random() < share

    def some(self, among: list[str], most: int) -> list[str]:
        """Choose at most *most* of them."""
        return self.random.sample(among, min(len(among), self.random.randint(0, most)))

    def project(self) -> dict[str, Any]:
        """Return a workflow and those that it runs."""
        inputs = {"inputs": [{"name": "x", "type": "boolean"}]}
        inner = self.workflow() | inputs
        middle = self.workflow("inner") | inputs
        self.add_handlers(inner)
        self.add_handlers(middle, "inner")
        for node in (*inner["nodes"], *middle["nodes"]):
            if "tool" in node:
                node["tool"]["arguments"]["given"] = "{{ inputs.x }}"
        spec = self.workflow("inner", "middle")
        self.add_handlers(spec, "inner", "middle")
        return {"spec": spec, "workflows": {"inner": inner, "middle": middle}}

    def add_handlers(self, spec: dict[str, Any], *nested: str) -> None:
        """Let a workflow do something at its end, or not."""
        for name in HANDLERS.values():
            if self.maybe(0.3):
                spec[name] = self.handler(spec, nested)

    def handler(self, spec: dict[str, Any], nested: tuple[str, ...]) -> dict[str, Any]:
        """Return a handler; of nodes it sees what a good run gives, for what a failing one has left depends on time."""
        found: dict[str, Any] = {"timeoutSeconds": 86_400}
        if self.maybe(0.4):
            found["retry"] = {"limit": 1, "backoffSeconds": 2, "on": REASONS}
        if nested and self.maybe(0.25):
            return found | {"workflow": {"name": self.random.choice(nested), "inputs": {}}}
        needed = {need for node in spec["nodes"] for need in node["needs"]}
        leaf = self.random.choice([node["name"] for node in spec["nodes"] if node["name"] not in needed])
        output = f"{{{{ run.state != 'Succeeded' ? null : outputs.{leaf} }}}}"
        arguments = {"state": "{{ run.state }}", "reason": "{{ run.reason }}", "output": output}
        return found | {"tool": {"name": "t", "arguments": arguments}}

    def workflow(self, *nested: str) -> dict[str, Any]:
        """Return a workflow that may run the *nested* ones."""
        nodes: list[dict[str, Any]] = []
        for i in range(self.random.randint(1, self.size)):
            nodes.append({"name": f"n{i}", "needs": self.needs(nodes), **self.action(nested), **self.modifiers()})
        spec = {"nodes": nodes}
        for _ in nodes:
            self.repeat(spec)
        for node in nodes:
            self.refer(spec, node)
        return spec

    def needs(self, nodes: list[dict[str, Any]]) -> list[str]:
        """Return what the next node needs: the last one, the same as the last one, the last two, or any."""
        near = [node["name"] for node in nodes[-3:]]
        beside = list(nodes[-1]["needs"]) if nodes else []
        return self.random.choice([near[-1:], beside, near[-2:], self.some(near, 2)])

    def action(self, nested: tuple[str, ...]) -> dict[str, Any]:
        """Return what a node does."""
        if self.maybe(0.1):
            return {"wait": {"seconds": self.random.randint(0, 5)}}
        if nested and self.maybe(0.25):
            return {"workflow": {"name": self.random.choice(nested), "inputs": {}}}
        if self.maybe(0.1):
            return {"approval": {"message": "?"}}
        tool = {"tool": {"name": "t", "arguments": {"round": "{{ iteration }}"}}}
        return tool | {"cache": {"ttlSeconds": 60}} if self.maybe(0.15) else tool

    def modifiers(self) -> dict[str, Any]:
        """Return the rest of a node."""
        found: dict[str, Any] = {}
        if self.maybe(0.15):
            found["when"] = self.random.choice(["false", "true", "iteration >= 2"])
        if self.maybe(0.2):
            found |= {"forEach": self.random.choice(list(LISTS)), "maxParallel": self.random.randint(1, 3)}
        if self.maybe(0.4):
            limit = self.random.randint(0, 2)
            found["retry"] = {"limit": limit, "backoffSeconds": 2, "on": REASONS}
        if self.maybe(0.3):
            found["onError"] = "Continue"
        return found

    def repeat(self, spec: dict[str, Any]) -> None:
        """Let some node go back, if the checks allow it."""
        node = self.random.choice(spec["nodes"])
        if {"forEach", "repeat"} & node.keys():
            return
        place = Interpreter(Model({}, Oracle(0, 0)), spec, "", {})
        first = self.random.choice([node["name"], *sorted(place.ancestors(node["name"])) * 3])
        until = self.random.choice(["true", "false", "iteration >= 2", "iteration >= 3", f"outputs.{first} == null"])
        exhausted = self.random.choice(["Fail", "Continue", "Continue"])
        limit = self.random.randint(1, 3)
        node["repeat"] = {"from": first, "until": until, "maxIterations": limit, "onExhausted": exhausted}
        if list(Structure.read(spec["nodes"]).problems()):
            del node["repeat"]

    def refer(self, spec: dict[str, Any], node: dict[str, Any]) -> None:
        """Let a node look at whatever it may."""
        place = Interpreter(Model({}, Oracle(0, 0)), spec, "", {})
        regions = [place.members(end) for end in place.nodes if "repeat" in place.nodes[end]]
        around = [members for members in regions if node["name"] in members]
        there = sorted(place.ancestors(node["name"]).union(*around))
        texts = [f"{{{{ outputs.{other} }}}}" for other in there] + ["{{ item }}"] * ("forEach" in node)
        seen = self.some(texts, 3)
        if "tool" in node:
            node["tool"]["arguments"] |= {f"a{i}": text for i, text in enumerate(seen)}
        elif "workflow" in node and seen:
            node["workflow"]["inputs"]["x"] = seen[0].replace(" }}", " > 1 }}" if "item" in seen[0] else " == null }}")
        if there and self.maybe(0.1):
            node["when"] = f"outputs.{self.random.choice(there)} == null"
