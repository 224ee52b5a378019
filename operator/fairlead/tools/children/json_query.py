"""The child process of the tool `json_query`."""

from __future__ import annotations

from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from fairlead.tools.children.limits import Problem, forbid_files, main


def compute(payload: dict[str, Any]) -> Any:
    """Return what the expression finds."""
    forbid_files()
    expression = payload["expression"]
    try:
        return jmespath.search(expression, payload["data"])
    except JMESPathError as error:
        raise Problem(f"the JMESPath expression {expression[:200]!r}: {error}") from error


if __name__ == "__main__":
    main(compute)
