"""`new`, `adopt` and `export-schema`: where builders come from."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright import text
from modelwright.api import Project
from modelwright.cli import tables
from modelwright.cli.command import as_json, command, errors_shown, json_option, names_argument, progress
from modelwright.cli.hints import path_from, program, typed
from modelwright.cli.kinds import CommandWithKinds, KindName
from modelwright.cli.terminal import say, say_data
from modelwright.errors import ModelwrightError, SpecError
from modelwright.project.project import ProjectConfig

if TYPE_CHECKING:
    from modelwright.operations.adopt import Adoption
    from modelwright.operations.scaffold import Scaffold


_REPLAY = "publish them, and load them on a real server"


@click.command("new", cls=CommandWithKinds)
@click.argument("name")
@click.option("--kind", type=KindName(), help="The kind of source.  [default: torch]")
@click.option(
    "--from", "given", type=click.Path(), metavar="FILE|FOLDER|URI", help="A model to make the builder around."
)
@click.option("--template", metavar="NAME", help="Another start for the kind: classifier, for torch.")
@command
def new_command(project: Project, name: str, kind: str | None, given: str | None, template: str | None) -> None:
    """Write a builder to start from; it builds as it is. --from recognises what a model is, and says what it saw."""
    if given is None:
        _print_new(project.config, project.new(name, kind or "torch", template))
    elif template is not None:
        raise SpecError("--template: --from makes a builder around a model", "leave one of the two out")
    else:
        _print_new(project.config, project.new_from(name, given, kind, say=progress))


def _print_new(project: ProjectConfig, scaffold: Scaffold) -> None:
    """The files that were written, and what to type next."""
    from modelwright.operations.scaffold import missing_requirement

    if scaffold.what:
        say(f"Saw {scaffold.what}")
    for folder in scaffold.folders:
        say(f"Wrote {project.shown(folder)}/")
        for path in sorted(folder.iterdir()):
            say(f"  {path.name}")
    for note in scaffold.notes:
        say(f"Note: {note}")
    for task in scaffold.written.left:
        say(f"Left to you: {task}")
    say()
    here, folder = Path.cwd(), scaffold.folders[-1]
    edit = f"edit {path_from(here, folder / scaffold.written.edit)}"
    steps = {} if scaffold.builds else {edit: "give it what is left to you"}
    steps[f"{program()} build {scaffold.name}"] = "build it, verify it, publish version 1"
    steps[f"{program()} infer {scaffold.name}"] = "send it a sample"
    steps.setdefault(f"edit {path_from(here, folder / 'model.yaml')}", "make it yours; build again")
    requirement = missing_requirement(scaffold.kind, scaffold.template)
    if requirement:
        steps = {typed(f"pip install '{requirement}'"): "what this kind needs"} | steps
    tables.print_next(steps)


@click.command("adopt")
@click.argument("path", type=click.Path(path_type=Path))
@names_argument
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="Default: the project's builders.")
@json_option
@command
def adopt_command(project: Project, path: Path, names: tuple[str, ...], into: Path | None, as_data: bool) -> None:
    """Turn an existing Triton repository into builders. It stays as it is."""
    adopted = project.adopt(path, names, into=into)
    as_json(_adopted_as_data(adopted)) if as_data else _print_adopted(project.config, adopted)
    if not adopted.any_adopted:
        sys.exit(1)


def _print_adopted(project: ProjectConfig, adopted: Adoption) -> None:
    """The builders that were written, all that was not carried over, and what to type next."""
    from modelwright.operations.scaffold import missing_requirement

    rows = [["model", "", "versions", "files", "size", "builder"]]
    for item in adopted.models:
        if item.status != "failed":
            versions = ", ".join(map(str, item.versions))
            place = project.shown(item.folder)
            rows.append([item.model, item.status, versions, str(item.files), text.size(item.size_bytes), place])
    if len(rows) > 1:
        tables.print_table(rows)
    if adopted.left:
        say()
        if len(rows) > 1:
            say("Not carried over:")
        tables.print_table(
            [["model", "what", "why"], *([item.model or "-", item.thing, item.why] for item in adopted.left)]
        )
    if not adopted.any_adopted:
        say("Error: nothing was adopted", err=True)
        return
    say()
    if requirement := missing_requirement("prebuilt"):
        install = typed(f"pip install '{requirement}'")
        tables.print_next({install: "what a build needs", f"{program()} build --replay": _REPLAY})
    else:
        say(f"Next: {program()} build --replay    {_REPLAY}")


def _adopted_as_data(adopted: Adoption) -> dict[str, Any]:
    models = [asdict(item) | {"folder": str(item.folder), "versions": list(item.versions)} for item in adopted.models]
    return {"models": models, "left": [asdict(item) for item in adopted.left]}


@click.command("export-schema")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; default: standard output.")
def export_schema_command(output: Path | None) -> None:
    """Write the JSON schema of model.yaml, for editors."""
    from modelwright.operations import schema

    if output is None:
        say_data(schema.schema_text())
        return
    with errors_shown():
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(schema.schema_text(), encoding="utf-8")
        except OSError as error:
            raise ModelwrightError(f"{output}: cannot be written: {error.strerror}") from None
