"""Decides what to say of a Model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fairlead.api.conditions import ConditionType, Reason
from fairlead.core import conditions
from fairlead.core.actions import Obj, Plan, meta, spec_of
from fairlead.core.problems import Refusal, refusal

SCRIPTED = "scripted"


def plan_model(model: Obj, *, lacking: Refusal | None = None) -> Plan:
    """Check a Model. Nothing is called: whether the provider answers shows in the runs.

    *lacking* is why one of its fallbacks cannot be used.
    """
    spec, generation = spec_of(model), meta(model)["generation"]
    named = {"model": spec.get("model") or SCRIPTED}
    refused = refusal("Model", spec)
    if refused is not None:
        return Plan((), conditions.stalled(ConditionType.READY, *refused, generation=generation), named)
    mistakes = [*_bad_patterns(model), *_asks_itself(model)]
    if mistakes:
        wrong = conditions.stalled(ConditionType.READY, Reason.INVALID_SPEC, mistakes[0], generation=generation)
        return Plan((), wrong, named)
    if lacking is not None:
        return Plan((), conditions.progressing(ConditionType.READY, *lacking, generation=generation), named)
    text = f"Requests go to {spec['model']}." if spec.get("model") else "The answers are written in spec.scripted."
    return Plan((), conditions.ready(Reason.ACCEPTED, text, generation=generation), named)


def _asks_itself(model: Obj) -> Iterator[str]:
    name = meta(model)["name"]
    if name in (spec_of(model).get("fallbacks") or ()):
        yield f'spec.fallbacks has "{name}", the Model itself: remove it'


def _bad_patterns(model: Obj) -> Iterator[str]:
    for index, response in enumerate((spec_of(model).get("scripted") or {}).get("responses") or ()):
        try:
            re.compile(response.get("match") or "")
        except re.error as error:
            yield f"spec.scripted.responses[{index}].match is no regular expression: {error}; correct it"
