"""Questions that the scheduler asks about a workflow: each is answered from values, by one rule of the semantics."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from fairlead_agent.compiling import Expression
from fairlead_agent.expressions import ExpressionError, Scope, kind, render
from fairlead_agent.graph.entries import expression_error, output_error
from fairlead_agent.graph.frame import Frame, Work
from fairlead_agent.graph.model import Node
from fairlead_agent.graph.paths import ON_FAILURE
from fairlead_agent.protocol import ErrorInfo, State


def holds(condition: Expression | None, scope: Scope, field: str) -> bool:
    """Return whether a condition is true; one that is not there is.

    Raises:
        ExpressionError: it failed, or gave something else.
    """
    if condition is None:
        return True
    value = scope.evaluate(condition)
    if not isinstance(value, bool):
        raise ExpressionError(f'{field} "{condition.source}" gives {kind(value)}, not true or false')
    return value


def wanted(frame: Frame, state: State | None) -> list[str]:
    """Return the handlers that run when a workflow ends so, in their order."""
    return [path for path in frame.graph.handlers if path != ON_FAILURE or state is State.FAILED]


def goes_back(frame: Frame, node: Node) -> bool:
    """Return whether the ``repeat`` that *node* ends goes round once more.

    Raises:
        ExpressionError: ``until`` failed.
    """
    if node.repeat is None or frame.round_of(node.name) >= node.repeat.max_iterations:
        return False
    return not holds(node.repeat.until, frame.scope_at_end(node.name, frame.outputs[node.name]), "repeat.until")


def repeat_error(frame: Frame, node: Node, work: Work, output: Any) -> ErrorInfo | None:
    """Return why a node at the end of a ``repeat`` fails although its try was good."""
    if node.repeat is None or work.item is not None:
        return None
    try:
        good = holds(node.repeat.until, frame.scope_at_end(node.name, output), "repeat.until")
    except ExpressionError as error:
        return expression_error(error)
    limit = node.repeat.max_iterations
    if good or frame.round_of(node.name) < limit or not node.repeat.fail_when_exhausted:
        return None
    text = f'"{node.repeat.until.source}" is still false after {limit} iterations: repeat.maxIterations is reached'
    return ErrorInfo(reason="RepeatExhausted", message=text, retryable=False)


def result(frame: Frame) -> tuple[Any, ErrorInfo | None]:
    """Return what a workflow gives whose nodes have all run, or why it fails."""
    if frame.graph.output is None:
        output = {name: frame.outputs[name] for name in frame.graph.leaves}
    else:
        try:
            output = render(frame.graph.output, frame.scope_of_all())
        except ExpressionError as error:
            return None, expression_error(error, "output: ")
    too_large = output_error(output)
    return (None, too_large) if too_large else (output, None)


def downstream_of_failures(frame: Frame) -> set[str]:
    """Return the nodes that need one that failed, directly or not."""
    nodes = frame.graph.nodes
    failed = [n for n, state in frame.states.items() if state is State.FAILED and not nodes[n].continue_on_error]
    reached: set[str] = set()
    while failed:
        new = set(frame.graph.dependents[failed.pop()]) - reached
        reached |= new
        failed.extend(new)
    return reached


def wait_until(node: Node, scope: Scope, at: datetime) -> datetime:
    """Return when a ``wait`` node that begins at *at* is over.

    Raises:
        ExpressionError: ``until`` failed, or gave no time.
    """
    if node.until is None:
        return at + timedelta(seconds=node.config.get("seconds") or 0)
    value = scope.evaluate(node.until)
    when = _time(value)
    if when is None:
        raise ExpressionError(f'wait.until "{node.until.source}" gives {kind(value)}, not a timestamp')
    return when


def _time(value: Any) -> datetime | None:
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return None if when.tzinfo is None else when


def deadline(at: datetime, *limits: float | None) -> datetime | None:
    """Return when the shortest of some time-outs in seconds is over."""
    shortest = min((limit for limit in limits if limit is not None), default=None)
    return None if shortest is None else at + timedelta(seconds=shortest)
