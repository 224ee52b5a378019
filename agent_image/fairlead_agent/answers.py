"""From a model's text to the value that a JSON Schema asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fairlead_agent.failures import failure
from fairlead_agent.graph import output_size
from fairlead_agent.protocol import Message
from fairlead_agent.schemas import mistakes

_FENCED: Final = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?```", re.DOTALL | re.IGNORECASE)
_SHOWN: Final = 120


def parse_answer(answer: Any, schema: Mapping[str, Any]) -> Any:
    """Return the JSON value in *answer* if it matches *schema*.

    Raises:
        NodeFailure: ``OutputInvalid``, with where and why: no JSON, nothing that can be kept, or no match.
    """
    value = _parse(answer) if isinstance(answer, str) else answer
    try:
        output_size(value)
    except ValueError as error:
        raise failure("OutputInvalid", f"the answer cannot be kept: {error}", retryable=True) from None
    found = mistakes(schema, value)
    if found:
        text = f"the answer does not match the schema of `output`: {'; '.join(found)}"
        raise failure("OutputInvalid", text, retryable=True)
    return value


def repair(answer: Any, why: str) -> tuple[Message, Message]:
    """Return how a model is told what is wrong with its answer, so that it answers once more."""
    said = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    ask = f"That does not fit: {why}. Answer again, with nothing but the JSON value that the schema asks for."
    return Message(role="assistant", content=said), Message(role="user", content=ask)


def _parse(text: str) -> Any:
    first: Exception | None = None
    for candidate in _candidates(text):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError) as error:
            first = first or error
    shown = " ".join(text.split())[:_SHOWN]
    problem = f'the answer is not the JSON that `output` asks for: {first}; it begins with "{shown}"'
    raise failure("OutputInvalid", problem, retryable=True)


def _candidates(text: str) -> Iterator[str]:
    """Yield the answer, what is fenced in it, and what lies between its outermost brackets."""
    yield text.strip()
    yield from _FENCED.findall(text)
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            yield text[start : end + 1]
