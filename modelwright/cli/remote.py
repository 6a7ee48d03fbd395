"""`push`, `pull`, `diff-remote`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from modelwright import text
from modelwright.api import Project
from modelwright.cli import tables
from modelwright.cli.command import (
    as_json,
    command,
    dry_run_option,
    json_option,
    names_argument,
    progress,
    quiet,
    wait_option,
)
from modelwright.cli.hints import error_text, typed
from modelwright.cli.terminal import say, say_lines

if TYPE_CHECKING:
    from modelwright.operations.remote import RemoteDifference, RemoteModelDifference
    from modelwright.remotes.order import ModelChange
    from modelwright.remotes.pull import Pulled, PulledModel
    from modelwright.remotes.push import Pushed

_MOST_JOBS = 64
_LONGEST_SETTLE_S = 86_400

url_argument = click.argument("url")
endpoint_option = click.option(
    "--endpoint-url", metavar="URL", help="The S3 server; default: $AWS_ENDPOINT_URL, or AWS."
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1, _MOST_JOBS), default=4, show_default=True, help="Objects at the same time."
)


@click.command("push")
@url_argument
@names_argument
@dry_run_option
@jobs_option
@click.option("--delete", is_flag=True, help="Remove versions and models there that left this repository.")
@click.option("--share", is_flag=True, help="Push beside models of another repository.")
@click.option(
    "--settle",
    "settle_s",
    type=click.FloatRange(0, _LONGEST_SETTLE_S),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Where a pipeline moves, how long servers that poll get before its old models are not served.",
)
@endpoint_option
@wait_option
@json_option
@command
def push_command(project: Project, url: str, names: tuple[str, ...], as_data: bool, **options: Any) -> None:
    """Bring an object store or a folder to what the repository holds: s3://, gs://, az://, or a path."""
    pushed = project.push(url, names, say=quiet if as_data else progress, **options)
    as_json(_pushed_as_data(pushed)) if as_data else _print_pushed(pushed)
    if pushed.left_out:
        sys.exit(1)


@click.command("pull")
@url_argument
@names_argument
@dry_run_option
@jobs_option
@endpoint_option
@wait_option
@json_option
@command
def pull_command(project: Project, url: str, names: tuple[str, ...], as_data: bool, **options: Any) -> None:
    """Bring versions from an object store or a folder into the repository, each checked before it is published."""
    pulled = project.pull(url, names, say=quiet if as_data else progress, **options)
    as_json(pulled_as_data(pulled)) if as_data else print_pulled(pulled, project)


@click.command("diff-remote")
@url_argument
@names_argument
@jobs_option
@endpoint_option
@json_option
@command
def diff_remote_command(project: Project, url: str, names: tuple[str, ...], as_data: bool, **options: Any) -> None:
    """Show what push and pull would change. Exit code 0: nothing; 1: something."""
    found = project.diff_remote(url, names, say=quiet if as_data else progress, **options)
    as_json(_difference_as_data(found)) if as_data else _print_difference(found)
    if not found.is_same:
        sys.exit(1)


# --- for people -------------------------------------------------------------------------------------------------------


def _print_pushed(pushed: Pushed) -> None:
    from modelwright.remotes.place import served_as

    changes = [change for change in pushed.plan.models if change.changes_anything]
    if changes:
        rows = [["model", "uploads", "removes", "config", "serves", "size"]]
        tables.print_table(rows + [_push_row(change) for change in changes])
    _print_notes(pushed.plan.says)
    for model, why in pushed.left_out.items():
        say(f"Left out: {model}: {typed(why)}", err=True)
    if not changes:
        say(f"Nothing to push: {text.counted(len(pushed.plan.models), 'model')} up to date at {pushed.url}.")
    elif pushed.dry_run:
        say(f"{text.size(pushed.plan.size_bytes)} to {pushed.url}; nothing was changed (--dry-run).")
    else:
        say(f"{text.size(pushed.plan.size_bytes)} to {pushed.url} in {pushed.seconds:.1f} s.")
        say(f"Serve it: tritonserver --model-repository={served_as(pushed.url)}")


def _push_row(change: ModelChange) -> list[str]:
    if change.removed:
        return [change.model, "-", "all of it", "-", "-", "-"]
    row = [change.model, _numbers(change.add), _numbers(change.drop), "changes" if change.config else "-"]
    return [*row, _numbers(change.served), text.size(change.size_bytes) if change.size_bytes else "-"]


def print_pulled(pulled: Pulled, project: Project) -> None:
    changes = [change for change in pulled.models if change.changes_anything]
    if changes:
        rows = [["model", "downloads", "config", "serves", "size"]]
        tables.print_table(rows + [_pull_row(change) for change in changes])
    _print_notes(pulled.says)
    where = tables.shown(project.config)
    if not changes:
        say(f"Nothing to pull: {where} has what is at {pulled.url}.")
        return
    size = text.size(sum(change.size_bytes for change in changes))
    said = "nothing was changed (--dry-run)" if pulled.dry_run else f"into {where} in {pulled.seconds:.1f} s"
    say(f"{size} from {pulled.url}; {said}." if pulled.dry_run else f"{size} from {pulled.url} {said}.")


def _pull_row(change: PulledModel) -> list[str]:
    row = [change.model, _numbers(change.add), "changes" if change.config else "-", _numbers(change.served)]
    return [*row, text.size(change.size_bytes) if change.size_bytes else "-"]


def _print_difference(found: RemoteDifference) -> None:
    rows = [["model", "here", "there", "push", "pull"]]
    rows += [_difference_row(model) for model in found.models]
    if found.models:
        tables.print_table(rows)
    _print_notes(dict.fromkeys((*found.push_says, *found.pull_says)))
    for name, error in (("push", found.push_error), ("pull", found.pull_error)):
        if error is not None:
            say_lines(f"Error: {name}: {error_text(error)}", err=True)
    if found.is_same:
        say(f"No difference: {found.url} holds what is here.")


def _difference_row(model: RemoteModelDifference) -> list[str]:
    here, there = _served(model.here, model.served_here), _served(model.there, model.served_there)
    return [model.model, here, there, _change_text(model.push), _change_text(model.pull)]


def _served(versions: Mapping[int, str], served: Iterable[int]) -> str:
    """Versions, with a star at those that are served."""
    return ", ".join(f"{number}{'*' if number in served else ''}" for number in sorted(versions)) or "-"


def _change_text(change: ModelChange | PulledModel | None) -> str:
    if change is None or not change.changes_anything:
        return "-"
    parts = [f"version {_numbers(change.add)}"] if change.add else []
    return ", ".join([*parts, *(["config"] if change.config else [])])


def _print_notes(says: Iterable[str]) -> None:
    for line in says:
        say(typed(line))


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers)) or "-"


# --- for machines -----------------------------------------------------------------------------------------------------


def _pushed_as_data(pushed: Pushed) -> dict[str, Any]:
    return {
        "url": pushed.url,
        "dry_run": pushed.dry_run,
        "models": [_change_as_data(change) for change in pushed.plan.models],
        "stages": [
            {
                "stage": stage.title,
                "writes": [write.name for write in stage.writes],
                "deletes": list(stage.deletes),
            }
            for stage in pushed.plan.stages
        ],
        "says": list(pushed.plan.says),
        "left_out": dict(pushed.left_out),
        "seconds": round(pushed.seconds, 3),
    }


def pulled_as_data(pulled: Pulled) -> dict[str, Any]:
    return {
        "url": pulled.url,
        "dry_run": pulled.dry_run,
        "models": [_change_as_data(change) for change in pulled.models],
        "says": list(pulled.says),
        "seconds": round(pulled.seconds, 3),
    }


def _change_as_data(change: ModelChange | PulledModel | None) -> dict[str, Any] | None:
    return None if change is None else {**asdict(change), "changes": change.changes_anything}


def _difference_as_data(found: RemoteDifference) -> dict[str, Any]:
    return {
        "url": found.url,
        "same": found.is_same,
        "models": [
            {
                "model": model.model,
                "here": {"versions": dict(model.here), "served": list(model.served_here)},
                "there": {"versions": dict(model.there), "served": list(model.served_there)},
                "push": _change_as_data(model.push),
                "pull": _change_as_data(model.pull),
            }
            for model in found.models
        ],
        "says": list(dict.fromkeys((*found.push_says, *found.pull_says))),
        "push_error": str(found.push_error) if found.push_error else None,
        "pull_error": str(found.pull_error) if found.pull_error else None,
    }
