"""`rollout`: a version goes live on one server first."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from modelwright import extras
from modelwright.api import Project
from modelwright.cli.command import Finite, as_json, command, json_option, progress, wait_option, why_option
from modelwright.cli.servers import server_options, terms_of
from modelwright.cli.terminal import say
from modelwright.errors import FleetError
from modelwright.text import seconds

if TYPE_CHECKING:
    from modelwright.fleet.rollout import Canary, RolledOut
    from modelwright.operations.rollout import RolloutSettings

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
_SHORTEST_BAKE_S = 1.0


class Duration(click.ParamType):  # type: ignore[type-arg]
    """`60s`, `5m`, `1.5h`, or a number of seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"'{value}' is not a duration, such as 60s or 5m", param, ctx)
        found = float(match[1]) * _UNITS[match[2]]
        if found < _SHORTEST_BAKE_S:
            self.fail(f"'{value}' is shorter than a second", param, ctx)
        return found


@click.command("rollout")
@click.argument("name")
@click.argument("version", type=click.IntRange(0), metavar="N")
@click.option("--canary", required=True, metavar="URL", help="The server that tries the version first.")
@server_options
@click.option("--bake", "bake_s", type=Duration(), default="60s", show_default=True, help="How long it is under load.")
@click.option(
    "--rate",
    type=Finite(0, min_open=True),
    help="Requests a second. Default: what a p99 of both versions needs in that time.",
)
@click.option(
    "--max-error-rate",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Failed requests that are allowed, as a share.",
)
@click.option(
    "--max-p99-ratio",
    type=Finite(0, min_open=True),
    default=1.2,
    show_default=True,
    help="Its p99 at most, as a multiple of the p99 of the version that is served.",
)
@why_option
@wait_option
@click.option("--dry-run", is_flag=True, help="Ask the servers, print what would be done, and do nothing.")
@json_option
@command
def rollout_command(
    project: Project, name: str, version: int, canary: str, dry_run: bool, watch: bool, as_data: bool, **options: Any
) -> None:
    """Serve version N on one server, judge it under load, and then on the others.

    Golden samples go to version N and to the version that is served, in turn. Failed requests or a p99 above the limits
    put the canary back; then the exit code is 1, and the repository and the other servers were not touched.
    """
    from modelwright.cli.watch import watcher_for

    extras.require("a rollout", "load", FleetError)
    asked, settings = _asked(name, version, canary, options), _settings(canary, options)
    if dry_run:
        planned = project.plan_rollout(asked, settings)
        as_json(asdict(planned)) if as_data else _say_each(planned.says)
        return
    with watcher_for(watch=watch, as_data=as_data) as watcher:
        result = project.rollout(asked, settings, watcher=watcher)
    as_json(asdict(result) | {"passed": result.judged.passed}) if as_data else _print(result)
    if not result.judged.passed:
        sys.exit(1)


def _asked(name: str, version: int, canary: str, options: dict[str, Any]) -> Canary:
    from modelwright.fleet.bake import BakeLoad
    from modelwright.fleet.rollout import Canary
    from modelwright.fleet.verdict import Limits

    load = BakeLoad(options["bake_s"], options["rate"])
    limits = Limits(options["max_error_rate"], options["max_p99_ratio"])
    return Canary(name, version, canary, options["urls"], load, limits)


def _settings(canary: str, options: dict[str, Any]) -> RolloutSettings:
    from modelwright.operations.rollout import RolloutSettings

    return RolloutSettings(
        options["why"],
        options["wait"],
        terms_of(options | {"canary": canary}),
        lambda who: progress(f"waiting for {who}"),
    )


def _say_each(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _print(result: RolledOut) -> None:
    say(f"{result.model} version {result.version} on {result.canary}: {result.judged.text}")
    say(f"  compared with version {result.served}, {result.baseline}")
    for note in result.judged.notes:
        say(f"  {note}")
    for reason in result.judged.against:
        say(f"  against it: {reason}")
    for server in result.servers:
        say(f"{server.url} serves version {result.version}, after {seconds(server.seconds)}")
    if result.unrecorded:
        say(result.unrecorded)
    if not result.judged.passed:
        say(f"{result.model} version {result.version} does not go live; version {result.served} is served")
