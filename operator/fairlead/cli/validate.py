"""``validate``: every mistake in files, with file, line, field and fix; nothing is sent anywhere."""

from __future__ import annotations

import click

from fairlead.cli.options import command


@command(
    examples="""
    fairlead validate configs/                 # a folder and those in it
    fairlead validate - < triage.yaml
    fairlead validate . -o github              # annotations for a pull request
    """
)
@click.argument("paths", nargs=-1, required=True)
@click.option("-o", "--output", "fmt", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Print problems only.")
def validate(paths: tuple[str, ...], *, fmt: str, quiet: bool) -> int:
    """Check files and folders (with the folders in them; - is standard input). Exit code 3: something is wrong.

    All of them are taken to be applied together. A reference to something that none of them holds is a warning.
    """
    from fairlead.cli import exits, printing
    from fairlead.cli.files import read_sources
    from fairlead.core.validation import load_documents, validate_documents

    loaded = [load_documents(source.text, source.name) for source in read_sources(paths, recursive=True)]
    documents = [document for one in loaded for document in one.documents]
    problems = [problem for one in loaded for problem in one.problems] + validate_documents(documents)
    errors = [problem for problem in problems if problem.severity == "error"]
    if fmt == "json":
        from dataclasses import asdict

        printing.print_json([asdict(problem) for problem in problems])
    elif fmt == "github":
        for problem in problems:
            place = f"file={problem.file},line={problem.line},col={problem.column}"
            click.echo(f"::{problem.severity} {place}::{problem.sentence()}".replace("\n", "%0A"))
    else:
        for problem in problems:
            click.echo(problem.text())
    if not errors and not quiet:
        are = "is" if len(documents) == 1 else "are"
        objects, files = printing.counted(len(documents), "object"), printing.counted(len(loaded), "file")
        printing.hint(f"{objects} in {files} {are} valid")
    return exits.INVALID if errors else exits.OK
