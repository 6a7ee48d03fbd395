"""`fsck`, `sign` and `sbom`: whether versions are what was published, who made them, and of what."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from modelwright import text
from modelwright.api import Project
from modelwright.cli.command import as_json, command, json_option, names_argument, progress, wait_option, why_option
from modelwright.cli.hints import typed
from modelwright.cli.terminal import say, say_data

if TYPE_CHECKING:
    from modelwright.operations.fsck import Checkup
    from modelwright.repair.damage import Damage


@click.command("fsck")
@names_argument
@click.option("--repair", is_flag=True, help="Restore what can be; the rest is kept as it is, and named.")
@click.option(
    "--remote",
    "remotes",
    multiple=True,
    metavar="URL",
    help="Where versions can be fetched from, beside the remotes that this project pushed to. Repeatable.",
)
@why_option
@wait_option
@json_option
@command
def fsck_command(
    project: Project, names: tuple[str, ...], repair: bool, remotes: tuple[str, ...], as_data: bool, **options: Any
) -> None:
    """Read every file of the repository and its history, and say what is not as it was published.

    Exit code 0: nothing is wrong; 1: something is.
    """
    found = project.fsck(names, repair=repair, remotes=remotes, say=progress, **options)
    if as_data:
        as_json(_data(project, found))
    else:
        _print(project, found, repair)
    if found.damages:
        sys.exit(1)


def _data(project: Project, found: Checkup) -> dict[str, Any]:
    def entry(damage: Damage) -> dict[str, Any]:
        return {
            "place": project.config.shown(damage.place),
            "kind": damage.kind,
            "problem": damage.problem,
            "model": damage.model,
            "version": damage.version,
            "expected_sha256": damage.expected,
            "repair": damage.remedy.says if damage.remedy else None,
            "hint": damage.hint,
        }

    return {
        "damages": [entry(damage) for damage in found.damages],
        "repaired": [entry(damage) for damage in found.repaired],
        "failed": {place: str(error) for place, error in found.failed.items()},
        "notes": list(found.notes),
        "versions": found.versions,
        "files": found.files,
        "size_bytes": found.size_bytes,
    }


def _print(project: Project, found: Checkup, repair: bool) -> None:
    for damage in found.repaired:
        assert damage.remedy is not None
        say(f"{project.config.shown(damage.place)}: {damage.problem}")
        say(f"  repaired: {damage.remedy.says}")
    for damage in found.damages:
        place = project.config.shown(damage.place)
        say(f"{place}: {damage.problem}")
        if place in found.failed:
            say(f"  not repaired: {found.failed[place].message}")
        elif damage.remedy:
            say(f"  repair: {damage.remedy.says}")
        elif damage.hint:
            say(f"  hint: {typed(damage.hint)}")
        else:
            say("  no copy of it was found: restore it from a backup, or name a remote (--remote URL)")
    for note in found.notes:
        say(f"note: {note}")
    say(_summary(found, repair))


def _summary(found: Checkup, repair: bool) -> str:
    looked = f"{text.counted(found.versions, 'version')}, {found.files} files, {text.size(found.size_bytes)}"
    if not found.damages:
        done = f"; {len(found.repaired)} repaired" if found.repaired else ""
        return f"Nothing is wrong: {looked}{done}."
    wrong = f"{text.counted(len(found.damages), 'damage')} in {looked}"
    if repair:
        return f"{wrong}; {len(found.repaired)} repaired."
    fix = typed("modelwright fsck --repair")
    return f"{wrong}; {found.repairable} can be repaired: {fix}" if found.repairable else f"{wrong}."


@click.command("sign")
@click.argument("name", required=False)
@click.argument("version", required=False, type=click.IntRange(0), metavar="[N]")
@click.option("--again", is_flag=True, help="Sign also what has a signature, such as one of an older key.")
@why_option
@wait_option
@json_option
@command
def sign_command(
    project: Project, name: str | None, version: int | None, again: bool, as_data: bool, **options: Any
) -> None:
    """Sign the versions that have no signature: one, those of a model, or all. New versions are signed by the build.

    A server that polls loads a served version again when its signature appears; no request fails.
    """
    found = project.sign(name or (), version, again=again, say=progress, **options)
    if as_data:
        as_json([{"model": item.model, "version": item.version, "new": item.new} for item in found])
        return
    for item in found:
        say(f"{item.model}: version {item.version} {'is signed now' if item.new else 'was signed before'}")


@click.command("sbom")
@click.argument("name")
@click.argument("version", required=False, type=click.IntRange(0), metavar="[N]")
@command
def sbom_command(project: Project, name: str, version: int | None) -> None:
    """Print what a version is made of, as CycloneDX JSON: packages, licences, files, and the tools that built it.

    Default: the newest version.
    """
    say_data(project.sbom(name, version))
