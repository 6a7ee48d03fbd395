"""`doctor`: works without a project, and without most of what it looks for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.cli.command import as_json, json_option
from modelwright.cli.hints import typed
from modelwright.cli.terminal import say

if TYPE_CHECKING:
    from modelwright.operations.doctor import Row


@click.command("doctor")
@json_option
@click.pass_obj
def doctor_command(folder: Path, as_data: bool) -> None:
    """Check what works on this machine, and say how to fix the rest."""
    from modelwright.operations import doctor

    rows = doctor.examine(doctor.Machine(folder))
    as_json(doctor_as_data(rows)) if as_data else print_doctor(rows)
    if doctor.failing(rows):
        sys.exit(1)


def print_doctor(rows: Sequence[Row]) -> None:
    """A line for each row, its fix below it, and the verdict."""
    width = max(len(row.what) for row in rows)
    for row in rows:
        say(f"{row.state:<8}  {row.what:<{width}}  {row.detail}".rstrip())
        if row.fix:
            say(f"{'':<8}  {'':<{width}}  → {typed(row.fix)}")
    bad = [row.what for row in rows if row.needed and row.state in ("missing", "broken")]
    say()
    say(f"Does not work yet: {', '.join(bad)}." if bad else "Building on the CPU and serving here work.")


def doctor_as_data(rows: Sequence[Row]) -> dict[str, Any]:
    from modelwright.operations.doctor import failing

    return {"ok": not failing(rows), "rows": [asdict(row) for row in rows]}
