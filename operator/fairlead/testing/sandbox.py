"""A sandbox that runs nothing: it gives the results that a test wrote down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fairlead.sandbox.base import Ended, Job, Result

Answer = Result | Exception | Callable[[Job], Result]


def says_what_it_was_given(job: Job) -> Result:
    """Return the inputs as output and the files as files."""
    return Result(Ended.EXITED, 0, stdout=f"{job.language}\n", output=dict(job.inputs), files=dict(job.files))


@dataclass
class FakeSandbox:
    """Answers jobs.

    Attributes:
        answer: what comes of every job, or makes it of the job; an exception is raised.
        go: a job ends only when it is set.
        cancelled: how many jobs were given up.
    """

    answer: Answer = says_what_it_was_given
    name: str = "fake"
    why_not: str | None = None
    jobs: list[Job] = field(default_factory=list)
    cancelled: int = 0
    closed: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go.set()

    async def unavailable(self) -> str | None:
        """Return why it cannot run."""
        return self.why_not

    async def run(self, job: Job) -> Result:
        """Return the answer."""
        self.jobs.append(job)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, Result) else self.answer(job)

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True
