"""Ask a model, and check the shape of its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fairlead_agent.functions import to_text
from fairlead_agent.nodes.base import NodeFailure, Try
from fairlead_agent.protocol import ErrorInfo, LlmRequest, Message
from fairlead_agent.schemas import mistakes

_FENCED: Final = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?```", re.DOTALL | re.IGNORECASE)
_SHOWN: Final = 120


async def run(attempt: Try) -> Any:
    """Return the text of the answer, or with ``output`` the object that it holds."""
    config = attempt.node.config
    messages = [
        Message(role="system" if field == "system" else "user", content=to_text(attempt.render(config[field])))
        for field in ("system", "prompt")
        if config.get(field)
    ]
    schema = config.get("output")
    answer = await attempt.call(
        LlmRequest(
            model=config.get("model") or attempt.default_model,
            messages=tuple(messages),
            output=schema,
            parameters=config.get("parameters") or {},
        )
    )
    return answer if schema is None else parse_answer(answer, schema)


def parse_answer(answer: Any, schema: Mapping[str, Any]) -> Any:
    """Return the JSON value in *answer* if it matches *schema*.

    Raises:
        NodeFailure: ``OutputInvalid``, with where and why.
    """
    value = _parse(answer) if isinstance(answer, str) else answer
    found = mistakes(schema, value)
    if found:
        raise _invalid(f"the answer does not match llm.output: {'; '.join(found)}")
    return value


def _parse(text: str) -> Any:
    first: ValueError | None = None
    for candidate in _candidates(text):
        try:
            return json.loads(candidate)
        except ValueError as error:
            first = first or error
    shown = " ".join(text.split())[:_SHOWN]
    raise _invalid(f'the answer is not the JSON that llm.output asks for: {first}; it begins with "{shown}"')


def _candidates(text: str) -> Iterator[str]:
    """Yield the answer, what is fenced in it, and what lies between its outermost brackets."""
    yield text.strip()
    yield from _FENCED.findall(text)
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            yield text[start : end + 1]


def _invalid(message: str) -> NodeFailure:
    return NodeFailure(ErrorInfo(reason="OutputInvalid", message=message))
