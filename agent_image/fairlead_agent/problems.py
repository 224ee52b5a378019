"""What is wrong with a workflow, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. *path* is relative to the spec: ``nodes[2].when``; *message* names the node, too."""

    path: str
    message: str
    node: str = ""
    reason: str = "InvalidGraph"


class GraphError(ValueError):
    """A workflow that cannot be run."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "x"?`` if something is named nearly so, or nothing."""
    near = get_close_matches(name, sorted(known), 1)
    return f'; did you mean "{near[0]}"?' if near else ""
