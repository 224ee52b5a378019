"""``python -m fairlead.testing.standins [pieces]``: a provider on a free port, until its standard input ends."""

from __future__ import annotations

import sys

from fairlead.testing.standins import Answer, running_standin

_TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune must want a wife. "


def main(pieces: int) -> None:
    """Serve; print the address."""
    with running_standin() as standin:
        standin.respond = lambda _seen: Answer(4 * _TEXT, pieces=pieces)
        print(standin.url, flush=True)  # noqa: T201 - what it is asked for
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
