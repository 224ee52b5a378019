"""Plans a run without running it: its graph, what it needs, what is wrong, and what it may cost. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.core.estimates import (
    ASSUMPTIONS,
    ITEMS,
    NONE,
    ONCE,
    TOOL_CALLS,
    TURNS,
    Asking,
    Estimate,
    ModelPrice,
    Range,
    Values,
    estimate_asking,
    known_items,
    known_value,
    price_of,
    price_of_call,
)
from fairlead.core.problems import listed
from fairlead.core.profile import MAX_DEPTH, NodeProfile, WorkflowProfile
from fairlead.core.runplan import Json, Needed, PlannedNode, PlanProblem, RunPlan, There
from fairlead.core.supported import unsupported
from fairlead.core.tool import BUILT_IN_TOOLS, CODE_TOOLS
from fairlead_agent.graph import check, check_nested
from fairlead_agent.inputs import check_inputs, declared_inputs

ACTIONS: Final = ("llm", "agent", "tool", "code", "workflow", "approval", "wait")
HANDLERS: Final = {"@onFailure": ("onFailure", Range(0, 1)), "@finally": ("finally", ONCE)}
_NAMED: Final = ("agent", "tool", "workflow")

__all__ = ["There", "plan_run", "secrets_needed"]


def plan_run(
    spec: Json,
    inputs: Json | None,
    *,
    there: There,
    name: str = "",
    prices: Mapping[str, ModelPrice] | None = None,
    history: WorkflowProfile | None = None,
) -> RunPlan:
    """Return what a run of a workflow would do.

    Args:
        spec: ``Workflow.spec``, as on the wire.
        inputs: what the run is given; required inputs that are missing are assumed.
        there: what the workflow may refer to.
        name: the workflow's.
        prices: of LiteLLM models, by their strings.
        history: what earlier runs took.
    """
    filled, wrong = check_inputs(_optional(spec.get("inputs")), inputs)
    given = {name for name, value in (inputs or {}).items() if value is not None}
    missing = [each["name"] for each in declared_inputs(spec.get("inputs")) if each.get("required")]
    missing = [each for each in missing if each not in given]
    known = {key: value for key, value in filled.items() if key not in missing}
    planner = _Planner(there, prices or {}, history)
    nodes = tuple(planner.scope(spec, _Place(name=name), known))
    mistakes = (PlanProblem(problem.path, problem.message, problem.reason) for problem in wrong)
    problems = [*_problems(spec, name, there), *mistakes, *planner.missing()]
    assumed = [text for key, text in ASSUMPTIONS.items() if any(key in node.estimate.assumed for node in nodes)]
    assumed += [f'input "{each}" is not given' for each in missing]
    leaves = [node.estimate for node in nodes]
    return RunPlan(
        name=name,
        waves=_waves(spec),
        nodes=nodes,
        needed=planner.needed(),
        problems=tuple(problems),
        model_calls=_sum(one.model_calls for one in leaves),
        tool_calls=_sum(one.tool_calls for one in leaves),
        input_tokens=_sum(one.input_tokens for one in leaves),
        output_tokens=_sum(one.output_tokens for one in leaves),
        cost=_total_cost(nodes),
        unpriced=tuple(sorted(planner.unpriced)),
        assumptions=tuple(assumed),
        budget=spec.get("budget"),
        history=history if history is not None and history.runs else None,
    )


def _optional(declared: Any) -> list[Json]:
    return [{**each, "required": False} for each in declared_inputs(declared)]


def _problems(spec: Json, name: str, there: There) -> Iterator[PlanProblem]:
    gaps = unsupported("Workflow", spec)
    if gaps:
        yield PlanProblem("", listed(gaps), Reason.NOT_SUPPORTED)
    found = check(spec)
    for problem in found or check_nested(spec, there.workflows or {}, name=name):
        yield PlanProblem(problem.path, problem.message, problem.reason)


def _sum(ranges: Iterator[Range]) -> Range:
    total = NONE
    for one in ranges:
        total += one
    return total


def _total_cost(nodes: Sequence[PlannedNode]) -> Range | None:
    total = NONE
    for node in nodes:
        if node.cost is None:
            return None
        total += node.cost
    return total


def _nodes(spec: Json) -> list[Json]:
    """Return the nodes that have a name, whatever else is wrong with them."""
    nodes = spec.get("nodes")
    found = [node for node in (nodes if isinstance(nodes, list | tuple) else ()) if isinstance(node, Mapping)]
    return [node for node in found if isinstance(node.get("name"), str)]


def _waves(spec: Json) -> tuple[tuple[str, ...], ...]:
    """Return the nodes by the earliest moment at which they can start; nothing for a cycle."""
    nodes = _nodes(spec)
    names = {node["name"] for node in nodes}
    sorter = TopologicalSorter({node["name"]: [n for n in node.get("needs") or () if n in names] for node in nodes})
    try:
        sorter.prepare()
    except CycleError:
        return ()
    order = {node["name"]: index for index, node in enumerate(nodes)}
    waves: list[tuple[str, ...]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        waves.append(tuple(sorted(ready, key=order.__getitem__)))
        sorter.done(*ready)
    return tuple(waves)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a workflow stands in the run."""

    name: str
    prefix: str = ""
    times: Range = ONCE
    outer: frozenset[str] = frozenset()
    """The workflows around it."""


@dataclass(slots=True)
class _Use:
    """A name that is used."""

    used_by: list[str] = field(default_factory=list)
    detail: str = ""


class _Planner:
    """Walks through a workflow and the workflows in it."""

    def __init__(self, there: There, prices: Mapping[str, ModelPrice], history: WorkflowProfile | None) -> None:
        self._there = there
        self._prices = prices
        self._history = {node.node: node for node in history.nodes} if history is not None else {}
        self._uses: dict[tuple[str, str], _Use] = {}
        self.unpriced: set[str] = set()

    def scope(self, spec: Json, place: _Place, inputs: Json) -> Iterator[PlannedNode]:
        """Yield the nodes of a workflow and of those in it, in the order in which they can start."""
        waves = _waves(spec)
        wave = {name: number for number, names in enumerate(waves, 1) for name in names}
        by_name = {node["name"]: node for node in _nodes(spec)}
        outputs: dict[str, Range] = {}
        certain: dict[str, bool] = {}
        if not place.prefix:
            self._use("Agent", (spec.get("runsOn") or {}).get("agent"), "runsOn")
        for name in [name for names in waves for name in names] or by_name:
            node = by_name[name]
            needs = [certain[need] for need in node.get("needs") or () if need in certain]
            certain[name] = not node.get("when") and (not needs or any(needs))
            rounds = _rounds(spec, name)
            times = place.times * Range(1 if certain[name] else 0, rounds)
            values = Values(inputs, outputs)
            first, *inner = self._node(spec, node, place, values, times)
            outputs[name] = first.estimate.output
            notes = (*([f"in a repeat: up to {rounds} rounds"] if rounds > 1 else []), *first.notes)
            yield replace(first, wave=wave.get(name, 0), notes=notes)
            yield from inner
        for path, (handler, times) in HANDLERS.items():
            last = spec.get(handler)
            if isinstance(last, Mapping):
                values = Values(inputs, outputs)
                yield from self._node(spec, {**last, "name": path}, place, values, place.times * times)

    def _node(self, spec: Json, node: Json, place: _Place, values: Values, times: Range) -> list[PlannedNode]:
        path = place.prefix + node["name"]
        action = next((name for name in ACTIONS if node.get(name) is not None), "")
        given = node.get(action)
        config: Json = given if isinstance(given, Mapping) else {}
        earlier = self._history.get(path)
        items, times, notes, assumed = _items(node, values, times, earlier)
        values = replace(values, items=known_items(node["forEach"], values) if node.get("forEach") else None)
        done = times * Range(0 if node.get("cache") is not None else 1, 1 + _tries(node))
        asking, target = self._asking(spec, action, config, path)
        one = self._try(action, asking, values)
        estimate = one.times(done)
        estimate.assumed |= assumed
        if items.most > 1:
            estimate.output = one.output * items
        shown = PlannedNode(
            path=path,
            wave=0,
            action=action,
            target=target or str(config.get("name") or config.get("language") or ""),
            needs=tuple(node.get("needs") or ()),
            when=str(node.get("when") or ""),
            notes=(*notes, *_notes(node, config)),
            executions=times,
            estimate=estimate,
            cost=self._cost(asking, estimate, self._external(action, config), done),
            history=earlier,
        )
        if action == "code":
            self._sandbox(config.get("network"), path)
        if action in _NAMED:
            self._use(action.capitalize(), config.get("name"), path)
        if action == "tool":
            self._programs(config.get("name"), path)
        inner = self._inner(config, place, path, values=values, times=done) if action == "workflow" else []
        return [shown, *inner]

    def _try(self, action: str, asking: Asking | None, values: Values) -> Estimate:
        if asking is not None:
            return estimate_asking(asking, values)
        if action in ("tool", "code"):
            return Estimate(tool_calls=ONCE, output=Range(0, 1000), assumed=frozenset())
        return Estimate(output=Range(0, 1000) if action in ("workflow", "agent") else NONE)

    def _asking(self, spec: Json, action: str, config: Json, path: str) -> tuple[Asking | None, str]:
        """Return how a model is asked, if it is, and the name to show."""
        if action == "llm":
            name = config.get("model") or spec.get("model") or ""
            texts = (config.get("system") or "", config.get("prompt") or "")
            tools, turns, more = config.get("tools") or (), config.get("maxTurns") or TURNS, dict(config)
        elif action == "agent" and not self._external(action, config):
            agent = (self._there.agents or {}).get(str(config.get("name"))) or {}
            name = agent.get("model") or ""
            texts = (agent.get("instructions") or "", config.get("prompt") or "")
            tools, turns, more = agent.get("tools") or (), agent.get("maxTurns") or TURNS, dict(agent)
        else:
            return None, ""
        model = self._model(str(name), path)
        for tool in tools:
            self._use("Tool", tool, path)
            self._programs(tool, path)
        asking = Asking(
            texts=texts,
            model=model,
            parameters=more.get("parameters") or {},
            price=price_of(model, self._prices) if model else None,
            output=config.get("output"),
            tools=len(tools),
            turns=turns,
            tool_calls=TOOL_CALLS if more.get("maxToolCalls") is None else more["maxToolCalls"],
            tokens=more.get("maxTokens"),
        )
        if asking.price is None and name:
            self.unpriced.add(str(name))
        return asking, str(name) if action == "llm" else str(config.get("name") or "")

    def _model(self, name: str, path: str) -> Json:
        self._use("Model", name, path)
        spec = (self._there.models or {}).get(name) or {}
        for fallback in spec.get("fallbacks") or ():
            self._use("Model", fallback, path)
        return spec

    def _external(self, action: str, config: Json) -> Json:
        """Return how an agent is reached that someone else runs; nothing for all others."""
        agent = (self._there.agents or {}).get(str(config.get("name"))) if action == "agent" else None
        return (agent or {}).get("external") or {}

    def _cost(self, asking: Asking | None, estimate: Estimate, external: Json, calls: Range) -> Range | None:
        if asking is None:
            price = price_of_call(external) or 0
            return Range(price, price) * calls
        if asking.price is None:
            return None
        sent, got = estimate.input_tokens, estimate.output_tokens
        return Range(asking.price.cost(sent.least, got.least), asking.price.cost(sent.most, got.most))

    def _inner(
        self, config: Json, place: _Place, path: str, *, values: Values, times: Range
    ) -> Iterator[PlannedNode] | list[PlannedNode]:
        """Plan the workflow that a node runs, unless it is unknown or runs itself."""
        name = str(config.get("name") or "")
        spec = (self._there.workflows or {}).get(name)
        outer = place.outer | {place.name}
        if spec is None or name in outer or len(outer) >= MAX_DEPTH:
            return []
        given = {key: known_value(value, values) for key, value in (config.get("inputs") or {}).items()}
        filled, _ = check_inputs(_optional(spec.get("inputs")), {key: value for key, (_, value) in given.items()})
        unknown = {key for key, (known, _) in given.items() if not known}
        inputs = {key: value for key, value in filled.items() if key not in unknown}
        return self.scope(spec, _Place(name, f"{path}/", times, outer), inputs)

    def _programs(self, tool: Any, path: str) -> None:
        """Note that a tool runs programs, if it does."""
        spec = (self._there.tools or {}).get(str(tool))
        under: Json = {"name": tool} if spec is None else spec.get("builtin") or {}
        if under.get("name") in CODE_TOOLS:
            self._sandbox((under.get("config") or {}).get("network"), path)

    def _sandbox(self, network: Any, path: str) -> None:
        """Note that a program runs here."""
        self._use("Sandbox", _reach(network), path)

    def _use(self, kind: str, name: Any, path: str) -> None:
        if name:
            used = self._uses.setdefault((kind, str(name)), _Use()).used_by
            used += [] if path in used else [path]

    def needed(self) -> tuple[Needed, ...]:
        """Return everything that is used, with the Secrets that Models and Tools name."""
        found = [self._look(kind, name, use) for (kind, name), use in self._uses.items()]
        secrets: dict[tuple[str, str], list[str]] = {}
        for one in found:
            for secret in _secrets(one.kind, self._spec(one.kind, one.name)):
                secrets.setdefault(secret, []).append(f"{one.kind} {one.name}")
        looked_up = self._there.secrets
        for secret, users in secrets.items():
            there = None if looked_up is None else looked_up.get(secret)
            found.append(Needed("Secret", secret[0], tuple(users), there, f"key {secret[1]}"))
        return tuple(found)

    def _look(self, kind: str, name: str, use: _Use) -> Needed:
        if kind == "Sandbox":
            return self._look_at_sandbox(name, use)
        known = self._known(kind)
        built_in = kind == "Tool" and name in BUILT_IN_TOOLS and name not in (known or {})
        spec = self._spec(kind, name)
        detail = "built in" if built_in else _detail(kind, spec)
        there = None if known is None or (kind in self._there.partly and name not in known) else name in known
        there = True if built_in else there
        return Needed(kind, name, tuple(use.used_by), there, detail)

    def _look_at_sandbox(self, reach: str, use: _Use) -> Needed:
        """Say whether programs that reach this far can be run; sandboxes that are pods reach nothing."""
        found = self._there.sandbox
        if found is None:
            return Needed("Sandbox", reach, tuple(use.used_by), None)
        closed = found["name"] == "pod" and reach != _reach(None)
        detail = "sandboxes that are pods have no network" if closed else found["description"].removeprefix("none: ")
        return Needed("Sandbox", reach, tuple(use.used_by), found["name"] != "none" and not closed, detail)

    def _known(self, kind: str) -> Mapping[str, Json] | None:
        known: Mapping[str, Json] | None = getattr(self._there, f"{kind.lower()}s", None)
        return known

    def _spec(self, kind: str, name: str) -> Json:
        return (self._known(kind) or {}).get(name) or {}

    def missing(self) -> Iterator[PlanProblem]:
        """Yield what was looked up and is not there."""
        for one in self.needed():
            if one.there is False and one.kind == "Sandbox":
                text = f"the programs of {', '.join(one.used_by)} cannot be run: {one.detail}"
                yield PlanProblem("", text, "SandboxUnavailable")
            elif one.there is False:
                key = f", {one.detail}," if one.kind == "Secret" else ""
                text = f'{one.kind} "{one.name}"{key} does not exist; {", ".join(one.used_by)} needs it: create it'
                yield PlanProblem("", text, f"{one.kind}NotFound")


def secrets_needed(there: There, plan: RunPlan) -> set[tuple[str, str]]:
    """Return name and key of every Secret that the Models, Tools and external Agents of a plan name."""
    specs = {"Model": there.models or {}, "Tool": there.tools or {}, "Agent": there.agents or {}}
    used = [one for one in plan.needed if one.kind in specs]
    return {secret for one in used for secret in _secrets(one.kind, specs[one.kind].get(one.name) or {})}


def _secrets(kind: str, spec: Json) -> Iterator[tuple[str, str]]:
    sources: list[Any] = []
    if kind == "Model":
        sources = [spec.get("apiKey")]
    elif kind == "Tool":
        sources = list((spec.get("http") or {}).get("headers") or ())
    elif kind == "Agent":
        sources = [(spec.get("external") or {}).get("token")]
    for source in sources:
        ref = ((source or {}).get("valueFrom") or {}).get("secretKeyRef")
        if ref:
            yield str(ref.get("name")), str(ref.get("key"))


def _detail(kind: str, spec: Json) -> str:
    if kind == "Model" and spec:
        return "scripted" if spec.get("scripted") is not None else str(spec.get("model") or "")
    if kind == "Agent" and spec.get("external"):
        return f"external: {spec['external'].get('url')}"
    if kind == "Tool":
        return next((name for name in ("builtin", "http", "mcp") if spec.get(name)), "")
    return ""


def _rounds(spec: Json, name: str) -> int:
    """Return how often a node may be started because a `repeat` goes back to it or to something before it."""
    nodes = {node["name"]: node for node in _nodes(spec)}
    rounds = 1
    for end, node in nodes.items():
        repeat = node.get("repeat")
        if isinstance(repeat, Mapping) and name in _region(nodes, str(repeat.get("from")), end):
            rounds *= int(repeat.get("maxIterations") or 5)
    return rounds


def _region(nodes: Mapping[str, Json], first: str, last: str) -> set[str]:
    """Return every node on a path from *first* to *last*."""
    before = _reached(last, {name: node.get("needs") or () for name, node in nodes.items()})
    after: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for need in node.get("needs") or ():
            after.setdefault(need, []).append(name)
    return before & _reached(first, after)


def _reached(start: str, edges: Mapping[str, Sequence[str]]) -> set[str]:
    found, left = {start}, [start]
    while left:
        new = set(edges.get(left.pop(), ())) - found
        found |= new
        left += new
    return found


def _tries(node: Json) -> int:
    retry = node.get("retry")
    return int(retry.get("limit", 3)) if isinstance(retry, Mapping) else 0


def _items(
    node: Json, values: Values, times: Range, history: NodeProfile | None
) -> tuple[Range, Range, tuple[str, ...], frozenset[str]]:
    """Return how many items a node has, how often it is done in all, what to say about that, and what is assumed.

    *times* is how often it has its turn. What *history* counted is all of a run: every round, and every item around.
    """
    source = node.get("forEach")
    if not isinstance(source, str):
        return ONCE, times, (), frozenset()
    found = known_items(source, values)
    if found is not None:
        items = Range(len(found), len(found))
        return items, times * items, (f"for each of {source}: {len(found)}",), frozenset()
    if history is not None and history.runs:
        earlier = Range(int(history.executions.p50), int(history.executions.p95)) * Range(min(times.least, 1), 1)
        return earlier, earlier, (f"for each of {source}: as in earlier runs",), frozenset()
    items = Range(0, ITEMS)
    return items, times * items, (f"for each of {source}",), frozenset({"items"})


def _reach(network: Any) -> str:
    """Return in words what a sandbox may reach."""
    hosts = network.get("allow") if isinstance(network, Mapping) else None
    return f"that may reach {', '.join(map(str, hosts))}" if hosts else "without a network"


def _notes(node: Json, config: Json) -> Iterator[str]:
    repeat = node.get("repeat")
    if isinstance(repeat, Mapping):
        yield f"back to {repeat.get('from')} until {repeat.get('until')}"
    if _tries(node):
        yield f"retried up to {_tries(node)} times"
    if node.get("onError") == "Continue":
        yield "the run goes on when it fails"
    if node.get("cache") is not None:
        yield "may be taken from the cache"
    if node.get("code") is not None:
        yield f"in a sandbox {_reach(config.get('network'))}"
    if node.get("approval") is not None:
        who = ", ".join(config.get("approvers") or ())
        yield f"waits for a decision{f' of {who}' if who else ''}"
