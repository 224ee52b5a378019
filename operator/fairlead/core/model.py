"""Decides what to say of a Model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.core import conditions
from fairlead.core.actions import Obj, Plan, meta, spec_of
from fairlead.core.problems import Refusal, refusal

SCRIPTED = "scripted"
_SILENT = "The provider did not answer the last request, or has an error of its own: look at spec.baseURL"
TROUBLES: Final[Mapping[str, str]] = {
    Reason.MODEL_UNAVAILABLE: _SILENT,
    Reason.UNREACHABLE: _SILENT,
    Reason.ADDRESS_REFUSED: "The gateway may not ask the address in spec.baseURL",
    Reason.AUTHENTICATION_FAILED: "The provider does not accept {key}",
    Reason.SECRET_NOT_FOUND: "There is no {key}, or the gateway may not read it",
    Reason.INVALID_SECRET: "There is no usable value in {key}",
}
"""Why a Model as such does not answer, whatever it is asked, and what to do. ``{key}`` is its place."""


def trouble_of(reason: str, model: Obj) -> Refusal | None:
    """Return what it means that requests fail for this reason, or None if that says nothing of the Model."""
    if reason not in TROUBLES:
        return None
    said = TROUBLES[Reason(reason)].format(key=_place_of_key(model))
    return Reason(reason), f"{said}; runs have more in `fairlead logs`."


def _place_of_key(model: Obj) -> str:
    ref = ((spec_of(model).get("apiKey") or {}).get("valueFrom") or {}).get("secretKeyRef")
    if not ref:
        return "requests without a key: name its Secret in spec.apiKey"
    return f'key {ref["key"]} of the Secret "{ref["name"]}", which spec.apiKey names'


def plan_model(model: Obj, *, lacking: Refusal | None = None) -> Plan:
    """Check a Model. Nothing is called: what is known of the provider, the gateway has told.

    *lacking* is why the Model, or one of its fallbacks, cannot be used.
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
