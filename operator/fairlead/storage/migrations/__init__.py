"""The history of the schema, as Alembic revisions that are part of the package. One set serves both databases.

A revision that was released is never changed. Data is migrated forwards only: going back means restoring a backup.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from fairlead.errors import TerminalError
from fairlead.storage.sql.tables import HEAD, VERSION_TABLE, metadata


def bring_up_to_date(connection: Connection) -> None:
    """Migrate, in the transaction of *connection*.

    Raises:
        TerminalError: a newer version wrote the database, or something else did.
    """
    present = _revision(connection)
    if present == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "fairlead.storage:migrations")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present and present not in known:
        raise TerminalError(
            "the database was written by a newer version of Fairlead "
            f"(its revision is {present}, this one knows {HEAD}): use that version, or restore a backup from before",
            reason="NewerDatabase",
        )
    command.upgrade(config, "head")


def _revision(connection: Connection) -> str:
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE in tables:
        return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")) or "")  # noqa: S608 - a constant
    foreign = tables & set(metadata.tables)
    if foreign or (tables and connection.dialect.name == "sqlite"):
        raise TerminalError(
            f"the database belongs to another program (it has the table {min(foreign or tables)!r}): "
            "give Fairlead a database of its own",
            reason="ForeignDatabase",
        )
    return ""
