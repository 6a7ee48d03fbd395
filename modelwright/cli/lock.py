"""`lock`."""

from __future__ import annotations

import click

from modelwright.api import Project
from modelwright.cli.command import as_json, command, json_option, names_argument, progress, quiet
from modelwright.text import counted


@click.command("lock")
@names_argument
@click.option("--upgrade", is_flag=True, help="Take the newest versions that fit, not those of the present lock.")
@json_option
@command
def lock_command(project: Project, names: tuple[str, ...], upgrade: bool, as_data: bool) -> None:
    """Resolve the requirements of Python models into requirements.lock, for the target's Python."""
    results = project.lock(names, upgrade=upgrade, say=quiet if as_data else progress)
    if as_data:
        as_json(
            [
                {
                    "model": result.model,
                    "file": project.config.shown(result.file),
                    "written": result.written,
                    "wheels": [wheel.file for wheel in result.lock.wheels],
                    "changes": list(result.changes),
                }
                for result in results
            ]
        )
        return
    for result in results:
        said = counted(len(result.lock.wheels), "package")
        changes = ", ".join(result.changes) or ("written" if result.written else "up to date")
        click.echo(f"{project.config.shown(result.file)}: {said}; {changes}")
    if not results:
        click.echo("no model has requirements")
