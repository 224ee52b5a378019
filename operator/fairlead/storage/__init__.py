"""History: runs, tasks and their journals, calls, sessions, spans, logs. SQLAlchemy and redis are imported only here.

Does not belong here: decisions. What a journal entry means for a run is computed by whoever writes it; a store only
commits it.
"""

from __future__ import annotations

from fairlead.storage.base import Storage

__all__ = ["Storage", "open_storage"]


def open_storage(url: str) -> Storage:
    """Return the storage behind *url*; nothing is connected before the first use.

    Args:
        url: ``sqlite:///path`` (four slashes: absolute) or ``postgresql://user:password@host/database``.

    Raises:
        TerminalError: the URL is not one of these.
    """
    from fairlead.storage.sql.opening import open_sql_storage

    return open_sql_storage(url)
