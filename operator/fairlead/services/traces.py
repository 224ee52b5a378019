"""Puts whole traces together: what was timed while a run ran, joined with what storage keeps of its nodes and calls.

Inputs, outputs, tokens and costs are in the records of the run, its nodes and its calls already. They are joined in
when a trace is read, so that tracing writes nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from fairlead.core.profile import causes_of, definition_path
from fairlead.services.nodespans import node_span
from fairlead.services.outcomes import dollars
from fairlead.storage.base import CallRecord, NodeRecord, Run, RunState, Span, Storage
from fairlead.tracing.attributes import (
    attributes,
    content,
    failure,
    input_messages,
    model_name,
    output_messages,
    provider_name,
)
from fairlead.tracing.ids import span_id

_DEPTH: Final = {"run": 0, "node": 1, "item": 2, "turn": 3, "call": 4}
_SAMPLING: Final = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
_Key = tuple[str, str, int]


async def load_trace(storage: Storage, run: Run) -> list[Span]:
    """Return a run's spans by their starts, what is outside before what is inside."""
    spans = await storage.spans_of_run(run.uid)
    nodes = {(one.node, one.item, one.iteration): one for one in await storage.nodes_of_run(run.uid)}
    calls = {one.intent.key: one for one in await storage.calls_of_run(run.uid)}
    revision = await storage.get_revision(run.revision)
    document = revision.document if revision is not None else {}
    return await asyncio.to_thread(_joined, run, spans, _Join(run, nodes, calls, document))


def _joined(run: Run, stored: Sequence[Span], join: _Join) -> list[Span]:
    by_id = {span.span_id: span for span in stored}  # those of nodes were stored once, too
    by_id |= {span.span_id: span for span in join.node_spans()}
    spans = _with_root(list(by_id.values()), run)
    return sorted((join.span(one) for one in spans), key=lambda one: (one.started_at, _DEPTH.get(one.kind, 9)))


def _with_root(spans: Sequence[Span], run: Run) -> list[Span]:
    """Return the spans with that of the run as it ended, also where no pod has begun or ended it."""
    known = next((span for span in spans if span.kind == "run"), None)
    root = known or Span(run.uid, span_id(run.uid), "", run.name, "run", run.started_at or run.created_at)
    good = run.state is RunState.SUCCEEDED
    if run.state.final and (root.finished_at is None or not good):
        failed = run.state is RunState.FAILED
        why = {} if good else failure(run.reason, run.message)
        root = replace(
            root,
            finished_at=run.finished_at,
            status="error" if failed else "ok" if good else "unset",
            attributes={**root.attributes, **why},
        )
    return [root, *(span for span in spans if span is not known)]


class _Join:
    """Adds to spans what is known of them."""

    def __init__(
        self, run: Run, nodes: Mapping[_Key, NodeRecord], calls: Mapping[str, CallRecord], document: Mapping[str, Any]
    ) -> None:
        self._run = run
        self._nodes = nodes
        self._calls = calls
        self._models: Mapping[str, Any] = document.get("models") or {}
        self._causes: Mapping[str, Sequence[str]] = causes_of(document) if document.get("workflow") else {}
        self._ends: dict[str, list[datetime]] = {}
        for one in nodes.values():
            if one.finished_at is not None and not one.item:
                self._ends.setdefault(one.node, []).append(one.finished_at)

    def node_spans(self) -> Iterator[Span]:
        """Yield the spans of nodes and items."""
        return filter(None, map(node_span, self._nodes.values()))

    def span(self, span: Span) -> Span:
        """Return a span with everything that is known of it."""
        match span.kind:
            case "run":
                more = self._of_run()
            case "node" | "item":
                more = self._of_node(span)
            case "turn":
                more = {"gen_ai.operation.name": "invoke_agent"}
            case _:
                more = self._of_call(span)
        return replace(span, attributes={**span.attributes, **more})

    def _of_run(self) -> dict[str, Any]:
        run = self._run
        waited = None if run.started_at is None else (run.started_at - run.created_at).total_seconds()
        return attributes(
            gen_ai__operation__name="invoke_workflow",
            gen_ai__workflow__name=run.workflow,
            fairlead__run__uid=run.uid,
            fairlead__run__name=run.name,
            fairlead__run__revision=run.revision,
            fairlead__run__attempts=run.attempt or None,
            fairlead__run__rerun_of=run.rerun_of,
            fairlead__run__reused_nodes=run.reused or None,
            fairlead__state=run.state.value,
            fairlead__queue_seconds=waited,
            fairlead__usage__input_tokens=run.input_tokens,
            fairlead__usage__output_tokens=run.output_tokens,
            fairlead__cost__usd="n/a" if run.unpriced_calls else dollars(run.cost),
            fairlead__scripted_calls=run.scripted_calls or None,
        ) | _contents(run.inputs or None, run.output)

    def _of_node(self, span: Span) -> dict[str, Any]:
        label = "" if span.kind == "node" else str(span.attributes.get("fairlead.item") or '""')
        name = str(span.attributes.get("fairlead.node") or "")
        node = self._nodes.get((name, label, int(span.attributes.get("fairlead.iteration") or 1)))
        if node is None:
            return {}
        tokens = node.input_tokens + node.output_tokens
        return attributes(
            fairlead__reused=node.reused,
            fairlead__queue_seconds=self._queued(node, span.started_at),
            fairlead__usage__input_tokens=node.input_tokens if tokens else None,
            fairlead__usage__output_tokens=node.output_tokens if tokens else None,
            fairlead__cost__usd="n/a" if node.unpriced_calls else dollars(node.cost) if node.cost else None,
        ) | _contents(None, node.output)

    def _queued(self, node: NodeRecord, started: datetime) -> float | None:
        """Return how long a node had been ready when it was started; an item is ready as soon as its node is."""
        if node.item:
            whole = self._nodes.get((node.node, "", node.iteration))
            ready = [whole.started_at] if whole is not None and whole.started_at is not None else []
        else:
            scope, slash, _ = node.node.rpartition("/")
            causes = self._causes.get(definition_path(node.node), ())
            ends = [end for name in causes for end in self._ends.get(f"{scope}{slash}{name}", ())]
            ready = [end for end in ends if end <= started]
            if not causes and not slash and self._run.started_at is not None:
                ready = [self._run.started_at]
        return max(0.0, (started - max(ready)).total_seconds()) if ready else None

    def _of_call(self, span: Span) -> dict[str, Any]:
        call = self._calls.get(str(span.attributes.get("fairlead.call.key") or ""))
        if call is None:
            return {}
        intent, answer = call.intent, call.answer
        reply: Mapping[str, Any] = answer.reply if answer is not None else {}
        tries = int(intent.key.split("/")[-2])
        known = {"fairlead.try": tries} if tries > 1 else {}
        if intent.action == "llm":
            return known | self._of_question(span, call, reply)
        asked = intent.request if intent.action == "code" else intent.request.get("arguments")
        result = reply.get("result")
        return attributes(gen_ai__operation__name="execute_tool", gen_ai__tool__name=intent.target) | {
            **known,
            **({} if asked is None else {"gen_ai.tool.call.arguments": content(asked)}),
            **({} if result is None else {"gen_ai.tool.call.result": content(result)}),
        }

    def _of_question(self, span: Span, call: CallRecord, reply: Mapping[str, Any]) -> dict[str, Any]:
        intent, answer = call.intent, call.answer
        spec: Mapping[str, Any] = self._models.get(str(span.attributes.get("fairlead.model") or intent.target)) or {}
        model = str(spec.get("model") or span.attributes.get("gen_ai.request.model") or "")
        given = {**(spec.get("parameters") or {}), **(intent.request.get("parameters") or {})}
        sampling = {name: given[key] for key, name in _SAMPLING.items() if isinstance(given.get(key), int | float)}
        finish = span.attributes.get("gen_ai.response.finish_reasons") or reply.get("finishReason")
        known = attributes(
            gen_ai__operation__name="chat",
            gen_ai__provider__name=provider_name(model) or ("scripted" if "scripted" in spec else None),
            gen_ai__request__model=model_name(model),
            gen_ai__output__type="json" if intent.request.get("output") else "text",
            gen_ai__usage__input_tokens=answer.input_tokens if answer is not None else None,
            gen_ai__usage__output_tokens=answer.output_tokens if answer is not None else None,
            gen_ai__agent__name=intent.agent,
            fairlead__model=str(span.attributes.get("fairlead.model") or intent.target),
            fairlead__granted_output_tokens=call.granted_output_tokens,
        )
        reasons = {"gen_ai.response.finish_reasons": [finish] if isinstance(finish, str) else finish} if finish else {}
        asked = intent.request.get("messages")
        messages = input_messages(asked) if isinstance(asked, list | tuple) else {}
        return {**known, **sampling, **reasons, **messages, **output_messages(reply)}


def _contents(given: Any, result: Any) -> dict[str, str]:
    found = {"fairlead.input": given, "fairlead.output": result}
    return {name: content(value) for name, value in found.items() if value is not None}


def exported_names(spans: Iterable[Span]) -> list[Span]:
    """Return spans under names of which there are few, as collectors want them: what it is, not which one."""
    return [replace(span, name=_plain_name(span)) for span in spans]


def _plain_name(span: Span) -> str:
    known = span.attributes
    match span.kind:
        case "run":
            return f"invoke_workflow {known.get('gen_ai.workflow.name') or ''}".rstrip()
        case "node" | "item":
            return definition_path(str(known.get("fairlead.node") or span.name))
        case "turn":
            return f"invoke_agent {known.get('gen_ai.agent.name') or ''}".rstrip()
        case _:
            target = known.get("gen_ai.request.model") or known.get("gen_ai.tool.name")
            return f"{known.get('gen_ai.operation.name') or ''} {target or ''}".strip() or span.name
