"""``python -m fairlead.localcluster.apiserver``: run a server in the foreground."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import click
import uvloop

from fairlead import logs
from fairlead.errors import FairleadError
from fairlead.localcluster.apiserver.server import ServerOptions, serve


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where the state is.")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, help="Port to listen on; 0 takes a free one.")
@click.option("--pod-log-dir", type=click.Path(path_type=Path, file_okay=False), help="Where pod runtimes write logs.")
@click.option("--host", "hosts", multiple=True, help="Further name or address that the certificate is for.")
def main(data_dir: Path, bind: str, port: int, pod_log_dir: Path | None, hosts: tuple[str, ...]) -> None:
    """Serve the Kubernetes API over HTTPS, kept in one SQLite file."""
    logs.setup(level="INFO", fmt="json")
    options = ServerOptions(data_dir=data_dir, bind=bind, port=port, pod_log_dir=pod_log_dir, hosts=hosts)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options))
    except (FairleadError, OSError, sqlite3.Error) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
