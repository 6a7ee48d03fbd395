"""Name the best model of a bench, and let an alias serve it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelwright.bench.choice import Choice, Objective, choose
from modelwright.bench.contenders import Contest, contests
from modelwright.bench.document import BenchResult, place, read
from modelwright.errors import LoadError, SpecError
from modelwright.fsops import read_file, replace_file
from modelwright.loadtest.report.output import machine_facts
from modelwright.project.edit import with_value
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builders
from modelwright.project.spec import FILE, Builder
from modelwright.repository.manifest import Manifest
from modelwright.repository.repository import Repository
from modelwright.variants.registry import LOOKUPS


@dataclass(frozen=True)
class Picked:
    """`alias`: what now serves the best one; `changed` is whether it served another one before."""

    choice: Choice
    alias: str = ""
    changed: bool = False
    file: Path | None = None  # the alias's model.yaml


def pick(
    project: ProjectConfig,
    name: str,
    objective: Objective,
    *,
    batch: int | None = None,
    write: bool = False,
    alias: str = "",
) -> Picked:
    """The best published model by the last bench of this builder. Raises LoadError for a result that is missing,
    damaged, older than the versions, or of another machine; SpecError where `write` finds no alias to write to."""
    (contest,) = contests(project, [name])
    again = f"modelwright bench {contest.model}"
    result = read(place(project.state, contest.model), again)
    _check_current(contest, result, again)
    choice = choose(result, objective, batch)
    if not write:
        return Picked(choice)
    builder = _alias(project, contest, choice, alias)
    _check_tensors(project, contest, builder, choice.best)
    (serves,) = builder.composing
    file = builder.folder / FILE
    if serves != choice.best:
        text = read_file(file).decode()  # with its line ends
        replace_file(file, with_value(text, ("source", "serves"), choice.best).encode())
    return Picked(choice, builder.name, serves != choice.best, file)


def _check_current(contest: Contest, result: BenchResult, again: str) -> None:
    """Raises LoadError where the result is not about what is published, or of another machine."""
    measured = {row.model: row.version_digest for row in result.contenders if row.model}
    for item in contest.contenders:
        row = item.row
        if row.model and measured.get(row.model) != row.version_digest:
            what = (
                f"version {row.version} of {row.model}" if row.version else f"{row.model}, which is not published now"
            )
            raise LoadError(f"{contest.model}: the last bench did not measure {what}", f"measure again: {again}")
    here = machine_facts(is_local=True)
    for name in ("cpu", "cores"):
        then, now = getattr(result.machine, name), getattr(here, name)
        if then != now:
            found = f"{name} {then}, here {now}"
            raise LoadError(f"{contest.model}: the last bench is of another machine: {found}", f"measure here: {again}")


def _alias(project: ProjectConfig, contest: Contest, choice: Choice, wanted: str) -> Builder:
    """The alias of this builder. Raises SpecError where there is none, or where several could be meant."""
    builders = read_builders(project, LOOKUPS).valid
    found = {name: item for name, item in builders.items() if item.spec.source.alias_of() == contest.model}
    if wanted and wanted not in found:
        raise SpecError(
            f"--alias {wanted}: is no alias of {contest.model}", _known(found) or _make(project, contest, choice)
        )
    if not found:
        raise SpecError(f"{contest.model} has no alias that could serve {choice.best}", _make(project, contest, choice))
    if len(found) > 1 and not wanted:
        raise SpecError(f"{contest.model} has several aliases: {', '.join(found)}", "name one: --alias NAME")
    return found[wanted] if wanted else next(iter(found.values()))


def _known(found: Mapping[str, Builder]) -> str:
    return f"its aliases: {', '.join(found)}" if found else ""


def _make(project: ProjectConfig, contest: Contest, choice: Choice) -> str:
    name = f"{contest.model}_live"
    source = f"source: {{kind: alias, of: {contest.model}, serves: {choice.best}}}"
    return f"write {project.shown(project.builders / name / FILE)} with the line: {source}"


def _check_tensors(project: ProjectConfig, contest: Contest, alias: Builder, best: str) -> None:
    """Raises SpecError where clients of the alias would see other tensors."""
    repository = Repository.of(project)
    (serves,) = alias.composing
    now, then = repository.latest(serves), repository.latest(best)
    if now is None or then is None:
        return  # nothing of what it serves is published: there are no clients
    if now[1].tensors != then[1].tensors:
        raise SpecError(
            f"{alias.file}: {best} has other tensors than {serves}, which {alias.name} serves now: "
            f"{_tensors(then[1])}, not {_tensors(now[1])}",
            "clients of the alias would fail: make another alias for it",
        )


def _tensors(manifest: Manifest) -> str:
    tensors = (*manifest.tensors.inputs, *manifest.tensors.outputs)
    return ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.dims)}" for tensor in tensors)
