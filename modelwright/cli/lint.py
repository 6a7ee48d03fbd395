"""`lint`: with a project around it, or on any folder."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import click

from modelwright import extras
from modelwright.api import Project, lint_repository
from modelwright.cli.command import errors_shown
from modelwright.cli.hints import typed
from modelwright.cli.terminal import say_data, say_lines
from modelwright.errors import REPORTS, ProjectNotFoundError

_COULD_NOT_RUN = 2  # 1 means that it found something
_FORMATS = ("text", "json", "github", "sarif")  # lint.formats.FORMATS, without importing it for --help


@click.command("lint")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option(
    "--target", metavar="RELEASE", help="Triton release, such as 26.07; default: the project's, else the newest."
)
@click.option(
    "--format", "format_name", type=click.Choice(_FORMATS), default="text", show_default=True, help="Output format."
)
@click.option("--explain", metavar="ID", help="Explain a rule, with an example, and do nothing else.")
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@click.option(
    "--disable-auto-complete-config", "complete", is_flag=True, help="Check for a server that runs with this flag."
)
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
    gc.disable()  # nearly all that is made is kept until the end
    with errors_shown(_COULD_NOT_RUN):
        if explain:
            from modelwright.lint.explain import explain as explained
            from modelwright.lint.registry import find_rule

            say_lines(explained(find_rule(explain)))
            return
        if path is None:
            report = _project(folder).lint(target=target, auto_complete=not complete)
        else:
            report = lint_repository(path, target=target, auto_complete=not complete)
        from modelwright.lint.formats import FORMATS

        shown = FORMATS[format_name](report)
        say_data(f"{shown}\n") if format_name in ("json", "sarif") else say_lines(shown)
    if report.unasked:
        files = ", ".join(str(path.relative_to(report.root)) for path in report.unasked)
        say_lines(f"Not checked: sizes that only onnxruntime infers, in {files}", err=True)
        say_lines(f"  hint: {typed(extras.install('build'))}", err=True)
    for crash in report.crashes:
        import traceback

        problem = "".join(traceback.format_exception(crash.error))
        hint = f"this is a bug in Modelwright; please report it at {REPORTS}, with the model's config.pbtxt"
        say_lines(f"Error: {crash.model}: rule {crash.rule} cannot look at it\n{problem}  hint: {hint}", err=True)
    if report.crashes:
        sys.exit(_COULD_NOT_RUN)
    if report.errors or (strict and report.warnings):
        sys.exit(1)


def _project(folder: Path) -> Project:
    try:
        return Project.find(folder)
    except ProjectNotFoundError as error:
        raise ProjectNotFoundError(error.message, "name the repository: modelwright lint PATH") from None
