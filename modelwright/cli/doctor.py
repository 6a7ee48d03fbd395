"""`doctor`: works without a project, and without most of what it looks for."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelwright.cli.command import as_json, json_option


@click.command("doctor")
@json_option
@click.pass_obj
def doctor_command(folder: Path, as_data: bool) -> None:
    """Say what works here, what does not, and the fix."""
    from modelwright.cli import tables
    from modelwright.operations import doctor

    rows = doctor.examine(doctor.Machine(folder))
    as_json(tables.doctor_as_data(rows)) if as_data else tables.print_doctor(rows)
    if doctor.failing(rows):
        sys.exit(1)
