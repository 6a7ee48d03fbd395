"""`build`, `plan` and `status`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from modelwright.api import Project
from modelwright.cli import tables
from modelwright.cli.command import (
    as_json,
    command,
    json_option,
    names_argument,
    plan_builder_option,
    progress,
    quiet,
    startup_timeout_option,
)
from modelwright.errors import ModelwrightError

if TYPE_CHECKING:
    from modelwright.build.outcome import Outcome
    from modelwright.operations.replay import Replayed


everything_option = click.option(
    "--all", "everything", is_flag=True, help="Also models that are built on request: of the named builders, or of all."
)


@click.command("build")
@names_argument
@everything_option
@click.option(
    "--require-all", is_flag=True, help="Exit with 1 where a model cannot be made here, such as a TensorRT plan."
)
@click.option("--jobs", type=click.IntRange(1), help="Threads for all steps together; default: one a core.")
@click.option("--wait", is_flag=True, help="When another build runs, wait for it.")
@click.option(
    "--locked", is_flag=True, help="Fail a model whose requirements.lock is missing or does not fit; do not write it."
)
@click.option("--replay", is_flag=True, help="Afterwards, replay on the local server what has not passed there yet.")
@plan_builder_option
@startup_timeout_option
@json_option
@command
def build_command(
    project: Project,
    names: tuple[str, ...],
    everything: bool,
    require_all: bool,
    jobs: int | None,
    wait: bool,
    locked: bool,
    replay: bool,
    as_data: bool,
) -> None:
    """Build what is not up to date, verify it, publish it."""
    if not as_data and (models := project.nothing_to_do(names, replayed=replay, everything=everything)):
        tables.print_nothing_to_do(project.config, models)
        return
    from modelwright.cli.progress import listener_for

    with listener_for(as_data) as listener:
        outcomes = project.build(
            names, listener=listener, jobs=jobs, wait=wait, write_locks=not locked, everything=everything
        )
    results, problem = _replay(project, names, outcomes, quiet if as_data else progress) if replay else (None, None)
    if as_data:
        as_json(tables.outcomes_as_data(outcomes, results, problem))
    else:
        tables.print_outcomes(project.config, outcomes, results, problem)
    refused = ("failed", "held", "skipped") if require_all else ("failed", "held")
    failed = any(outcome.status in refused for outcome in outcomes)
    if problem or failed or any(result.verdict == "failed" for result in results or ()):
        sys.exit(1)


def _replay(
    project: Project, names: Sequence[str], outcomes: Sequence[Outcome], say: Callable[[str], None]
) -> tuple[list[Replayed] | None, ModelwrightError | None]:
    """Replay what was named and what this build changed; without names, all. The error, if there was no replay."""
    changed = [outcome.model for outcome in outcomes if outcome.status in ("new", "config")]
    try:
        return project.verify_if_changed([*names, *changed] if names else (), say=say), None
    except ModelwrightError as error:
        return None, error


@click.command("plan")
@names_argument
@everything_option
@plan_builder_option
@json_option
@command
def plan_command(project: Project, names: tuple[str, ...], everything: bool, as_data: bool) -> None:
    """Say what a build would run, and why."""
    plan = project.plan(names, everything=everything)
    as_json(tables.plan_as_data(plan)) if as_data else tables.print_plan(plan)
    if plan.errors:
        sys.exit(1)


@click.command("status")
@json_option
@command
def status_command(project: Project, as_data: bool) -> None:
    """Show what is published, and what a build would change."""
    models = project.status()
    as_json(tables.status_as_data(models)) if as_data else tables.print_status(project.config, models)
    if any(model.state == "faulty" for model in models):
        sys.exit(1)
