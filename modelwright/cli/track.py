"""`track`: MLflow."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from modelwright import text
from modelwright.api import Project
from modelwright.cli.command import as_json, command, dry_run_option, json_option, progress, quiet, wait_option
from modelwright.cli.terminal import say

if TYPE_CHECKING:
    from modelwright.tracking.recorder import Sent


@click.group("track", invoke_without_command=True)
@json_option
@click.pass_context
def track_command(context: click.Context, as_data: bool) -> None:
    """Record in MLflow what is not there yet: builds, published versions, and which one is live."""
    if context.invoked_subcommand is None:
        _track(as_data=as_data)  # type: ignore[call-arg]


@command
def _track(project: Project, as_data: bool) -> None:
    sent = project.track()
    as_json(asdict(sent)) if as_data else _print(sent)
    if sent.problem:
        sys.exit(1)


@track_command.command("push")
@click.argument("name")
@wait_option
@json_option
@command
def track_push_command(project: Project, name: str, wait: bool, as_data: bool) -> None:
    """Log the whole folder of a model to MLflow's registry, with the models that it runs."""
    done = project.track_push(name, wait=wait, say=quiet if as_data else progress)
    if as_data:
        as_json(asdict(done))
        return
    say(f"{', '.join(done.models)}: {text.size(done.size_bytes)} to runs:/{done.run} in {done.seconds:.1f} s.")


@track_command.command("pull")
@click.argument("name")
@dry_run_option
@wait_option
@json_option
@command
def track_pull_command(project: Project, name: str, dry_run: bool, wait: bool, as_data: bool) -> None:
    """Bring a model into the repository that `track push` logged: its name, or runs:/ID."""
    from modelwright.cli.remote import print_pulled, pulled_as_data

    pulled = project.track_pull(name, dry_run=dry_run, wait=wait, say=quiet if as_data else progress)
    as_json(pulled_as_data(pulled)) if as_data else print_pulled(pulled, project)


def _print(sent: Sent) -> None:
    for model, numbers in sent.registered.items():
        for own, theirs in sorted(numbers.items()):
            also = "" if own == theirs else f", as version {theirs} of MLflow"
            say(f"{model} version {own} is registered{also}")
    for model, version in sent.live.items():
        say(f"{model}: live is {f'version {version}' if version is not None else 'nothing'}")
    if sent.recorded or sent.live or not sent.problem:
        done = f"{text.counted(sent.recorded, 'run')} recorded." if sent.recorded or sent.live else "Nothing to record."
        say(done)
    if sent.problem:
        say(f"Error: {sent.problem}; still waiting: {', '.join(sent.waiting) or 'nothing'}", err=True)
