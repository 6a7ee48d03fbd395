"""`versions`, `diff` and `history`: what reads a model's past, and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from modelwright import text
from modelwright.api import Project
from modelwright.cli.command import as_json, command, json_option
from modelwright.cli.hints import typed
from modelwright.cli.tables import print_table
from modelwright.cli.terminal import say

if TYPE_CHECKING:
    from modelwright.operations.diff import DiffSide, VersionDiff
    from modelwright.operations.history import History
    from modelwright.operations.versions import ModelVersions, VersionStatus
    from modelwright.repository.differences import StepDifference
    from modelwright.repository.journal import Event

_DIGEST_CHARS = 12
_SAME = "the same"
_NOT_KNOWN = "not known"

version_type = click.IntRange(0)


# --- versions ---------------------------------------------------------------------------------------------------------


@click.command("versions")
@click.argument("name")
@json_option
@command
def versions_command(project: Project, name: str, as_data: bool) -> None:
    """List a model's versions: where each is, whether it is served and why, and how it did."""
    found = project.versions(name)
    if as_data:
        as_json(asdict(found))
        return
    _print_versions(found)


def _print_versions(found: ModelVersions) -> None:
    now = datetime.now(timezone.utc)
    pipeline = any(item.runs for item in found.versions)
    rows = [["version", "state", "digest", "age", "size", "accuracy", "gate", *(["runs"] if pipeline else [])]]
    for item in found.versions:
        age = text.age((now - item.created).total_seconds()) if item.created else "-"
        gate = f"{item.gate.verdict} against {item.gate.baseline}" if item.gate else "-"
        size = text.size(item.size_bytes) if item.size_bytes else "-"
        digest = item.digest[:_DIGEST_CHARS] or "-"
        row = [str(item.version), _state(item, found), digest, age, size, text.metrics(item.metrics), gate]
        runs = ", ".join(f"{name} {number}" for name, number in item.runs.items()) or "-"
        rows.append([*row, *([runs] if pipeline else [])])
    print_table(rows)
    if found.promoted is not None:
        say(
            f"Version {found.promoted} is promoted: newer ones are published, and not served. "
            + typed(f"End that: modelwright promote {found.model} latest")
        )
    for line in (found.problem, *(item.problem for item in found.versions)):
        if line:
            say(f"Warning: {line}", err=True)


def _state(item: VersionStatus, found: ModelVersions) -> str:
    """`served`, `promoted`, `served, needed by minilm_text`, `not served`, `retired`, `withdrawn`."""
    if item.place == "retired":
        words = ["withdrawn" if item.withdrawn else "retired"]
    else:
        words = ["promoted" if item.promoted else "served" if item.served else "not served"]
    if item.default and sum(other.served for other in found.versions) > 1:
        words.append("the default")
    if item.needed_by:
        words.append(f"needed by {' and '.join(item.needed_by)}")
    return ", ".join([*words, *(["cannot be read"] if item.problem else [])])


# --- diff -------------------------------------------------------------------------------------------------------------


@click.command("diff")
@click.argument("name")
@click.argument("before", type=version_type, required=False, metavar="[A]")
@click.argument("after", type=version_type, required=False, metavar="[B]")
@json_option
@command
def diff_command(project: Project, name: str, before: int | None, after: int | None, as_data: bool) -> None:
    """Show what differs between two versions of a model, live or retired.

    B is by default the newest version, and A the one below B.
    """
    found = project.diff(name, before, after)
    if as_data:
        as_json(asdict(found))
        return
    _print_diff(found)


def _print_diff(found: VersionDiff) -> None:
    one, other, parts = found.before, found.after, found.differences
    say(f"{found.model}: version {one.version} ({one.place}) and version {other.version} ({other.place})")
    say()
    rows: list[tuple[str, Sequence[str]]] = []
    if parts.note:
        rows.append(("manifest", [parts.note]))
    elif not (one.digest and other.digest):
        rows.append(("manifest", ["neither has one: how they were made is not known"]))
    else:
        rows += [
            ("signature", found.signature),
            ("config", [*parts.config, *([f"({found.config_note})"] if found.config_note else [])]),
            ("lineage", [line for step in parts.lineage for line in _step_lines(step)]),
            ("tools", parts.tools),
            ("target", parts.target),
            ("source", parts.source),
            ("metrics", parts.metrics),
        ]
    rows.append(("size", [_size(one, other)]))
    rows.append(("files", parts.files))
    width = len("signature")
    for name, lines in rows:
        for index, line in enumerate(lines or [_SAME]):
            say(f"{name if index == 0 else '':<{width}}  {line}")


def _step_lines(step: StepDifference) -> Iterator[str]:
    yield from (f"{step.step}: {line}" for line in step.lines)
    if step.inputs:
        yield f"{step.step}: made from another {' and '.join(step.inputs)}"
    elif not step.lines:
        yield f"{step.step}: other tools"


def _size(one: DiffSide, other: DiffSide) -> str:
    if one.size_bytes == other.size_bytes:
        return f"{text.size(one.size_bytes)}, {_SAME}"
    change = f" ({text.change(other.size_bytes / one.size_bytes)})" if one.size_bytes else ""
    return f"{text.size(one.size_bytes)} → {text.size(other.size_bytes)}{change}"


# --- history ----------------------------------------------------------------------------------------------------------


@click.command("history")
@click.argument("name", required=False, default="", metavar="[NAME]")
@click.option("--last", type=click.IntRange(1), metavar="N", help="The last N events only.")
@json_option
@command
def history_command(project: Project, name: str, last: int | None, as_data: bool) -> None:
    """Show who changed what, when and why; and check that the journal is as it was written.

    Exits with 1 where it is not.
    """
    found = project.history(name)
    events = found.events[-last:] if last else found.events
    file = project.config.shown(found.file)
    if as_data:
        breaks = [asdict(item) for item in found.breaks]
        as_json({"events": [event.as_json() for event in events], "breaks": breaks, "lines": found.lines})
    elif not found.lines and not found.breaks:
        say("Nothing has happened yet.")
    else:
        _print_events(events)
        say(f"{text.counted(found.lines, 'event')} in {file}" + _verdict(found))
    for item in found.breaks:
        say(f"Error: {file}: line {item.line} {item.problem}", err=True)
    if found.breaks:
        say("  hint: restore the journal from a backup; what it says from there on may not be so", err=True)
        sys.exit(1)


def _verdict(found: History) -> str:
    return "" if found.breaks else ": each follows from the one before"


def _print_events(events: Sequence[Event]) -> None:
    rows = [["time", "who", "what", "model", "version", "why"]]
    for event in events:
        version = str(event.version) if event.version is not None else "latest" if event.what == "promote" else "-"
        told = [event.who, event.what, event.model or "-", version, event.why]
        rows.append([event.time.isoformat()[:19], *map(text.printable, told)])
    if len(rows) > 1:
        print_table(rows)
