"""`python -m fairlead_agent`."""

from __future__ import annotations

import sys

from fairlead_agent.main import main

if __name__ == "__main__":
    sys.exit(main())
