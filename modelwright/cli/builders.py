"""`new`, `adopt` and `export-schema`: where builders come from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelwright.api import Project
from modelwright.cli.command import as_json, command, errors_shown, json_option, names_argument
from modelwright.cli.kinds import CommandWithKinds, KindName
from modelwright.errors import ModelwrightError


@click.command("new", cls=CommandWithKinds)
@click.argument("name")
@click.option("--kind", type=KindName(), default="torch", show_default=True, help="Where its model comes from.")
@command
def new_command(project: Project, name: str, kind: str) -> None:
    """Write a builder to start from; it builds as it is."""
    from modelwright.cli import tables

    tables.print_new(project.config, project.new(name, kind))


@click.command("adopt")
@click.argument("path", type=click.Path(path_type=Path))
@names_argument
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="Default: the project's builders.")
@json_option
@command
def adopt_command(project: Project, path: Path, names: tuple[str, ...], into: Path | None, as_data: bool) -> None:
    """Turn an existing Triton repository into builders; nothing in it is touched."""
    from modelwright.cli import tables

    adopted = project.adopt(path, names, into=into)
    as_json(tables.adopted_as_data(adopted)) if as_data else tables.print_adopted(project.config, adopted)
    if not adopted.any_adopted:
        sys.exit(1)


@click.command("export-schema")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; default: standard output.")
def export_schema_command(output: Path | None) -> None:
    """Write the JSON schema of model.yaml, for editors."""
    from modelwright.operations import schema

    if output is None:
        click.echo(schema.schema_text(), nl=False)
        return
    with errors_shown():
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(schema.schema_text(), encoding="utf-8")
        except OSError as error:
            raise ModelwrightError(f"{output}: cannot be written: {error.strerror}") from None
