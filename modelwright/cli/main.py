"""The command line: parse, call, print. What a command does is in the module it calls; errors become messages here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from modelwright import __version__
from modelwright.errors import ModelwrightError
from modelwright.project.project import ProjectConfig, find

if TYPE_CHECKING:
    from modelwright.build.outcome import Outcome

F = TypeVar("F", bound=Callable[..., Any])
_LOAD = "load"
_INTERRUPTED = 130  # 128 + SIGINT
_COULD_NOT_RUN = 2  # of `lint`, whose 1 means that it found something
_FORMATS = ("text", "json", "github", "sarif")  # lint.formats.FORMATS
_KINDS = ("torch", "onnx", "huggingface", "python", "ensemble")  # spec.KINDS, without importing pydantic for --help


class _Group(click.Group):
    """Commands in the order in which one meets them; a misspelt one gets a suggestion."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        self.get_command(ctx, _LOAD)
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == _LOAD and _LOAD not in self.commands:  # loads its own module, which imports this one
            from modelwright.cli.load import load

            self.add_command(load)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from modelwright.suggest import did_you_mean

        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            ctx.fail(f"no command '{args[0]}': {did_you_mean(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Group)
@click.version_option(__version__, prog_name="modelwright")
@click.option(
    "--project", "folder", type=click.Path(file_okay=False, path_type=Path), help="Its folder, if not this one."
)
@click.pass_context
def main(ctx: click.Context, folder: Path | None) -> None:
    """Build, verify and serve a Triton model repository."""
    ctx.obj = folder or Path.cwd()


def command(function: F) -> F:
    """A command that gets the project first, and whose errors become `Error: …`, a hint and exit code 1."""

    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return function(find(click.get_current_context().obj), *arguments, **options)
        except ModelwrightError as error:
            fail(error)
        except KeyboardInterrupt:
            click.echo("interrupted; nothing half done was published", err=True)
            sys.exit(_INTERRUPTED)

    return wrapped  # type: ignore[return-value]


def fail(error: ModelwrightError, code: int = 1) -> NoReturn:
    """Print an error the one way they are printed, and exit."""
    click.echo(f"Error: {error}", err=True)
    sys.exit(code)


def as_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, default=str))


names_argument = click.argument("names", nargs=-1, metavar="[NAME]...")
json_option = click.option("--json", "as_data", is_flag=True, help="For machines.")


@main.command("build")
@names_argument
@click.option("--jobs", type=click.IntRange(1), help="Threads for all steps together; default: the cores.")
@click.option("--wait", is_flag=True, help="When another build runs, wait for it.")
@click.option(
    "--replay", is_flag=True, help="Afterwards, replay all golden samples on the local server if anything changed."
)
@json_option
@command
def build_command(
    project: ProjectConfig, names: tuple[str, ...], jobs: int | None, wait: bool, replay: bool, as_data: bool
) -> None:
    """Build what is not up to date, verify it, publish it."""
    from modelwright.build.build import build
    from modelwright.cli import tables

    with tables.listener(as_data) as listener:
        outcomes = build(project, names, listener, jobs=jobs, wait=wait)
    results = None
    if replay and not _failed(outcomes):
        results = tables.replay_if_changed(project, as_data)
    if as_data:
        as_json(tables.outcomes_as_data(outcomes, results))
    else:
        tables.print_outcomes(project, outcomes, results)
    if _failed(outcomes) or any(result.verdict == "failed" for result in results or ()):
        sys.exit(1)


def _failed(outcomes: list[Outcome]) -> bool:
    return any(outcome.status in ("failed", "held") for outcome in outcomes)


@main.command("plan")
@names_argument
@json_option
@command
def plan_command(project: ProjectConfig, names: tuple[str, ...], as_data: bool) -> None:
    """Say what a build would run, and why."""
    from modelwright.build.workspace import open_workspace, plan_workspace
    from modelwright.cli import tables

    workspace = open_workspace(project, names)
    planned = plan_workspace(workspace)
    workspace.fingerprints.save()
    if as_data:
        as_json(
            [
                {"model": p.step.model, "step": p.step.name, "status": p.status, "reason": p.reason, "key": p.key}
                for p in planned
            ]
        )
    else:
        tables.print_plan(planned)


@main.command("status")
@json_option
@command
def status_command(project: ProjectConfig, as_data: bool) -> None:
    """Show what is published, and what has moved on."""
    from modelwright.cli import tables

    rows = tables.status_rows(project)
    as_json(rows) if as_data else tables.print_status(project, rows)


@main.command("serve")
@click.option("--http-port", default=8000, show_default=True)
@click.option("--grpc-port", default=8001, show_default=True)
@click.option("--metrics-port", default=8002, show_default=True)
@click.option("--poll", is_flag=True, help="Follow changes of the repository (default: models load once, or by API).")
@click.option("--environment", metavar="NAME", help="With configs/NAME.pbtxt, where a model has one.")
@command
def serve_command(
    project: ProjectConfig, http_port: int, grpc_port: int, metrics_port: int, poll: bool, environment: str | None
) -> None:
    """Serve the repository with a local tritonserver."""
    from modelwright.operations import serve as serving

    serving.serve(project, (http_port, grpc_port, metrics_port), poll, click.echo, environment)


@main.command("infer")
@click.argument("name")
@click.option(
    "--url", help="http://host:port or grpc://host:port; default: the server of `serve`, else one for this call."
)
@click.option("--version", "model_version", default="", help="Default: the newest that is served.")
@click.option("--sample", default=0, show_default=True, help="Which golden sample to send.")
@click.option("--input", "given", multiple=True, metavar="NAME=JSON", help="Send this instead of a sample.")
@click.option("--top", default=3, show_default=True, help="How many classes to show.")
@json_option
@command
def infer_command(
    project: ProjectConfig,
    name: str,
    url: str | None,
    model_version: str,
    sample: int,
    given: tuple[str, ...],
    top: int,
    as_data: bool,
) -> None:
    """Send a sample; print the answer, with labels."""
    from modelwright.operations import serve as serving

    request = serving.Request(name, model_version, sample, given, top)
    answer = serving.infer(project, url, request, lambda text: click.echo(text, err=True))
    as_json(answer) if as_data else click.echo(serving.answer_text(answer))


@main.command("verify")
@names_argument
@click.option(
    "--url", "urls", multiple=True, help="A server to check; may be repeated. Default: a local one, both protocols."
)
@json_option
@command
def verify_command(project: ProjectConfig, names: tuple[str, ...], urls: tuple[str, ...], as_data: bool) -> None:
    """Replay golden samples against any server."""
    from modelwright.cli import tables

    results = tables.replay_now(project, names, urls, as_data)
    if as_data:
        as_json(tables.replays_as_data(results))
    else:
        tables.print_replays(results)
    if any(result.verdict == "failed" for result in results):
        sys.exit(1)


@main.command("lint")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option(
    "--target", metavar="RELEASE", help="Triton release, such as 26.07; default: the project's, else the newest."
)
@click.option(
    "--format", "format_name", type=click.Choice(_FORMATS), default="text", show_default=True, help="For whom to print."
)
@click.option("--explain", metavar="ID", help="Say what a rule is about, with an example, and do nothing else.")
@click.option("--strict", is_flag=True, help="Let warnings count as errors do.")
@click.option("--disable-auto-complete-config", "complete", is_flag=True, help="The server runs with this flag.")
@click.pass_obj
def lint_command(
    folder: Path,
    path: Path | None,
    target: str | None,
    format_name: str,
    explain: str | None,
    strict: bool,
    complete: bool,
) -> None:
    """Check a model repository offline, also one that was not built here.

    Exit code 0: no errors; 1: errors (with --strict also: warnings); 2: the linter could not run.
    """
    from modelwright.lint.explain import explain as explained
    from modelwright.lint.formats import FORMATS
    from modelwright.lint.registry import find_rule
    from modelwright.operations import lint as linter

    try:
        if explain:
            click.echo(explained(find_rule(explain)))
            return
        report = linter.run(linter.Request(folder, path, target, auto_complete=not complete))
    except ModelwrightError as error:
        fail(error, _COULD_NOT_RUN)
    click.echo(FORMATS[format_name](report))
    if report.errors or (strict and report.warnings):
        sys.exit(1)


@main.command("new")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(_KINDS), default="torch", show_default=True, help="Where its model comes from."
)
@command
def new_command(project: ProjectConfig, name: str, kind: str) -> None:
    """Write a builder to start from; it builds as it is."""
    from modelwright.operations import scaffold

    click.echo(scaffold.report(project, scaffold.new_builder(project, name, kind)))


@main.command("adopt")
@click.argument("path", type=click.Path(path_type=Path))
@names_argument
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="Default: the project's builders.")
@json_option
@command
def adopt_command(project: ProjectConfig, path: Path, names: tuple[str, ...], into: Path | None, as_data: bool) -> None:
    """Turn an existing Triton repository into builders; nothing in it is touched."""
    from modelwright.cli import tables
    from modelwright.operations import adopt

    adopted = adopt.adopt(project, path, names, into)
    as_json(tables.adopted_as_data(adopted)) if as_data else tables.print_adopted(project, adopted)
    if not adopted.any_adopted:
        sys.exit(1)


@main.command("export-schema")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; default: standard output.")
def export_schema_command(output: Path | None) -> None:
    """Write the JSON schema of model.yaml, for editors."""
    from modelwright.operations import schema

    if output is None:
        click.echo(schema.schema_text(), nl=False)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(schema.schema_text(), encoding="utf-8")
    except OSError as error:
        fail(ModelwrightError(f"{output}: cannot be written: {error.strerror}"))


@main.command("doctor")
@json_option
@click.pass_obj
def doctor_command(folder: Path, as_data: bool) -> None:
    """Say what works here, what does not, and the fix."""
    from modelwright.operations import doctor

    rows = doctor.examine(doctor.Machine(folder))
    as_json(doctor.as_data(rows)) if as_data else click.echo(doctor.text(rows))
    if doctor.failing(rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
