"""`retire`, `restore`, `rollback`, `promote` and `gc`: what changes published versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelwright import text
from modelwright.api import Project
from modelwright.cli.command import (
    as_json,
    command,
    dry_run_option,
    json_option,
    names_argument,
    progress,
    wait_option,
    why_option,
)
from modelwright.cli.hints import typed
from modelwright.cli.servers import following, server_options
from modelwright.cli.terminal import say

if TYPE_CHECKING:
    from modelwright.operations.change import Changed
    from modelwright.operations.gc import Collected, Old

F = TypeVar("F", bound=Callable[..., Any])
LATEST = "latest"
_SHOWN_CHARS = 200

name_argument = click.argument("name")
version_argument = click.argument("version", type=click.IntRange(0), metavar="N")
signature_option = click.option(
    "--allow-signature-change",
    is_flag=True,
    help="Also where the version that is served then has other inputs or outputs than the one that is served now.",
)


def change_options(function: F) -> F:
    """The options of every command that changes published versions."""
    for option in (json_option, wait_option, why_option, dry_run_option):
        function = option(function)
    return function


@click.command("retire")
@name_argument
@version_argument
@signature_option
@server_options
@change_options
@command
def retire_command(project: Project, name: str, version: int, as_data: bool, **options: Any) -> None:
    """Take a version out of the repository. It is kept in the history, and `restore` brings it back.

    A version that a pipeline needs, that is promoted or that is a model's last one stays.
    """
    with following(options, as_data=as_data) as servers:
        changed = project.retire(name, version, servers=servers, **_how(options))
    _print(changed, as_data)


@click.command("restore")
@name_argument
@version_argument
@signature_option
@server_options
@change_options
@command
def restore_command(project: Project, name: str, version: int, as_data: bool, **options: Any) -> None:
    """Bring a retired version back under its number. Its files are checked first."""
    with following(options, as_data=as_data) as servers:
        changed = project.restore(name, version, servers=servers, **_how(options))
    _print(changed, as_data)


@click.command("rollback")
@name_argument
@click.option("--to", type=click.IntRange(0), metavar="N", help="Default: the version below the one that is served.")
@signature_option
@server_options
@change_options
@command
def rollback_command(project: Project, name: str, to: int | None, as_data: bool, **options: Any) -> None:
    """Serve an older version again. Newer ones leave the repository, and none in between goes live.

    A pipeline runs the versions again that it was verified with; requests to one of its models alone still get the
    newest. A build that comes to a version again that was rolled back does not publish it.
    """
    with following(options, as_data=as_data) as servers:
        changed = project.rollback(name, to, servers=servers, **_how(options))
    _print(changed, as_data)


@click.command("promote")
@name_argument
@click.argument("version", metavar="N|latest")
@signature_option
@server_options
@change_options
@command
def promote_command(project: Project, name: str, version: str, as_data: bool, **options: Any) -> None:
    """Serve version N, whatever is newer: builds publish new versions, and they are not served. `latest` ends that."""
    if version != LATEST and not version.isdecimal():
        raise click.BadParameter(f"'{version}' is neither a version's number nor '{LATEST}'", param_hint="N|latest")
    with following(options, as_data=as_data) as servers:
        changed = project.promote(name, None if version == LATEST else int(version), servers=servers, **_how(options))
    _print(changed, as_data)


@click.command("gc")
@names_argument
@click.option(
    "--keep",
    type=click.IntRange(0),
    required=True,
    metavar="K",
    help="How many versions stay: of each model and place.",
)
@change_options
@command
def gc_command(project: Project, names: tuple[str, ...], keep: int, as_data: bool, **options: Any) -> None:
    """Retire old versions, and delete versions that were retired before.

    Of each model the newest K versions in the repository stay, and the newest K retired ones; also what is served,
    promoted, needed by a pipeline, or on a remote. What this retires, a later gc deletes.
    """
    found = project.gc(keep, names, **_how(options))
    if as_data:
        as_json(asdict(found) | {"freed_bytes": found.freed_bytes})
        return
    _print_collected(found)


def _how(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"say": lambda holder: progress(f"waiting for {holder}")}


def _print(changed: Changed, as_data: bool) -> None:
    if as_data:
        as_json(asdict(changed))
        return
    for line in changed.says:
        say(line)
    if not changed.changes:
        say(f"Nothing to do: {changed.model} is served like that already.")
    elif not changed.done:
        say("Nothing was changed: this was a dry run.")
    for server in changed.servers:
        say(f"{server.url} follows, after {text.seconds(server.seconds)}")
    if changed.undo and changed.done:
        say(f"Undo: {typed(changed.undo)}")


def _print_collected(found: Collected) -> None:
    for line in found.tidied:
        say(line)
    for item in found.retired:
        say(f"{_named(item)} leaves the repository and is kept as retired")
    for item in found.deleted:
        say(f"{_named(item)} was retired, and is deleted: {text.size(item.size_bytes)}")
    for item in found.stays:
        say(f"{_named(item)} stays: {item.why}")
    if not (found.tidied or found.retired or found.deleted):
        say("Nothing to do.")
    elif not found.done:
        say("Nothing was changed: this was a dry run.")


def _named(item: Old) -> str:
    return f"{item.model}: version {item.version}"
