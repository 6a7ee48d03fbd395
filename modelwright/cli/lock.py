"""`lock` and `update`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from modelwright.api import Project
from modelwright.cli.command import as_json, command, json_option, names_argument, progress, quiet
from modelwright.cli.terminal import say
from modelwright.text import counted

if TYPE_CHECKING:
    from modelwright.build.locks import LockedModel
    from modelwright.build.source_locks import LockedSources


@click.command("lock")
@names_argument
@click.option("--upgrade", is_flag=True, help="Take the newest versions that fit, not those of the present lock.")
@json_option
@command
def lock_command(project: Project, names: tuple[str, ...], upgrade: bool, as_data: bool) -> None:
    """Resolve requirements of Python models into requirements.lock, and URIs of sources into source.lock."""
    results = project.lock(names, upgrade=upgrade, say=quiet if as_data else progress)
    _show(project, results, "no model has requirements or a URI", as_data=as_data)


@click.command("update")
@names_argument
@click.option("--dry-run", is_flag=True, help="Say what moved, and write nothing.")
@json_option
@command
def update_command(project: Project, names: tuple[str, ...], dry_run: bool, as_data: bool) -> None:
    """Resolve URIs of sources again, and write what is there now into source.lock."""
    results = project.update(names, dry_run=dry_run, say=quiet if as_data else progress)
    _show(project, results, "no model has a URI", as_data=as_data)


def _show(project: Project, results: Sequence[LockedModel | LockedSources], nothing: str, *, as_data: bool) -> None:
    if as_data:
        as_json([_as_data(project, result) for result in results])
        return
    for result in results:
        changes = ", ".join(result.changes) or ("written" if result.written else "up to date")
        say(f"{project.config.shown(result.file)}: {_count(result)}; {changes}")
    if not results:
        say(nothing)


def _as_data(project: Project, result: LockedModel | LockedSources) -> dict[str, Any]:
    from modelwright.build.locks import LockedModel

    data = {"model": result.model, "file": project.config.shown(result.file), "written": result.written}
    changes = {"changes": list(result.changes)}
    if isinstance(result, LockedModel):
        return {**data, "wheels": [wheel.file for wheel in result.lock.wheels], **changes}
    sources = [
        {"uri": lock.uri, "resolved": lock.resolved, **lock.details, "files": lock.digests} for lock in result.locks
    ]
    return {**data, "sources": sources, **changes}


def _count(result: LockedModel | LockedSources) -> str:
    from modelwright.build.locks import LockedModel

    if isinstance(result, LockedModel):
        return counted(len(result.lock.wheels), "package")
    return counted(sum(len(lock.files) for lock in result.locks), "file")
