"""`init`: works without a project, and makes one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelwright.cli import tables
from modelwright.cli.command import errors_shown
from modelwright.cli.hints import executable, path_from, typed
from modelwright.cli.terminal import say

if TYPE_CHECKING:
    from modelwright.operations.init import Started


@click.command("init")
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--target", metavar="RELEASE", help="The Triton release to build for, such as 26.07.")
@click.option("--keep", is_flag=True, help="Keep files that are there as they are, and write the others.")
@click.pass_obj
def init_command(project: Path, folder: Path | None, target: str | None, keep: bool) -> None:
    """Start a project, here or in DIR, with one small builder; it works as it is."""
    from modelwright.operations.init import init_project

    with errors_shown():
        _print_started(init_project(folder or project, target=target, keep=keep))


def _print_started(started: Started) -> None:
    """The files that were written, and what to type next."""
    from modelwright.operations.init import EXAMPLE
    from modelwright.operations.scaffold import missing_requirement

    here = Path.cwd()
    place = path_from(here, started.root)
    say(f"Wrote {place}/" if place != "." else "Wrote")
    for name in started.written:
        say(f"  {name}")
    for name in started.kept:
        say(f"Kept {name} as it was")
    say()
    program = executable(started.root)
    steps = {} if started.root == here else {f"cd {shlex.quote(place)}": ""}
    if requirement := missing_requirement("onnx"):
        steps[typed(f"pip install '{requirement}'")] = "what a build needs; lint and adopt do without"
    steps |= {
        f"{program} build": "build the example, verify it, publish version 1",
        f"{program} infer {EXAMPLE}": "send it a sample, on a real server",
        f"{program} serve": "keep a server up (HTTP 8000, gRPC 8001, metrics 8002)",
        f"{program} new NAME --kind torch": "a builder of your own, of any kind",
    }
    tables.print_next(steps)
