"""`preview`: what a builder's augmentation does."""

from __future__ import annotations

from pathlib import Path

import click

from modelwright.api import Project
from modelwright.cli.command import command
from modelwright.cli.hints import path_from
from modelwright.cli.terminal import say


@click.command("preview")
@click.argument("name")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Where to draw it.")
@click.option("--augment", metavar="MODULE:FUNCTION", help="Default: augment, beside the function that trains.")
@command
def preview_command(project: Project, name: str, output: Path | None, augment: str | None) -> None:
    """Draw augmented samples of a builder: the originals in the first column."""
    drawn = project.preview(name, output, augment=augment)
    say(f"Wrote {path_from(Path.cwd(), drawn.file)}")
