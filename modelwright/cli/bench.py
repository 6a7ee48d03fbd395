"""`bench` and `pick`: the variants of a model side by side, and the best of them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.api import Project
from modelwright.cli.command import Finite, as_json, command, json_option
from modelwright.cli.hints import program, typed
from modelwright.cli.load import Numbers
from modelwright.cli.terminal import say
from modelwright.errors import LoadError

if TYPE_CHECKING:
    from modelwright.bench.choice import Objective
    from modelwright.bench.document import BenchResult
    from modelwright.operations.pick import Picked


@click.command("bench")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--batch", "batches", type=Numbers(), help="Rows in a call. Default: 1, one in the middle, the largest.")
@click.option("--size", "sizes", multiple=True, metavar="DIM=N", help="Size of a dynamic dimension: sequence=64.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of each contender.")
@click.option("--rounds", type=click.IntRange(6), default=10, show_default=True, help="Turns of each contender.")
@click.option("--seconds", type=Finite(0.01), default=0.2, show_default=True, help="Of one turn.")
@click.option("--warmup", type=Finite(0), default=0.3, show_default=True, help="Seconds at each batch size.")
@click.option("--served/--no-served", default=True, show_default=True, help="Measure throughput in the server, too.")
@click.option("--concurrency", type=click.IntRange(1), help="In flight there. Default: 32, or 8 for slow models.")
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True, help="Try torch.compile, too.")
@click.option("--seed", type=int, default=7, show_default=True, help="Of the order of turns.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a report to this file.")
@json_option
@command
def bench_command(
    project: Project,
    names: tuple[str, ...],
    batches: tuple[int, ...] | None,
    sizes: tuple[str, ...],
    threads: int,
    rounds: int,
    seconds: float,
    warmup: float,
    served: bool,
    concurrency: int | None,
    compiled: bool,
    seed: int,
    html: Path | None,
    as_data: bool,
) -> None:
    """Compare a model's variants: latency, throughput, size, memory and accuracy.

    NAME is a model, or one of its variants. Compared are the source in PyTorch, the plain ONNX model, and every variant
    that is published, in turns.
    """
    from modelwright.bench.bench import Asked
    from modelwright.bench.rounds import BenchPlan
    from modelwright.bench.served import ServedPlan
    from modelwright.cli.load_display import ConsoleProgress
    from modelwright.cli.terminal import console
    from modelwright.loadtest.measure.progress import Progress
    from modelwright.operations.bench import write_report

    asked = Asked(
        plan=BenchPlan(rounds, seconds, warmup, threads, seed),
        served=ServedPlan(concurrency=concurrency, seed=seed) if served else None,
        batches=batches or (),
        sizes=dict(_size(text) for text in sizes),
        compiled=compiled,
        command=["modelwright", *sys.argv[1:]],
    )
    progress = Progress() if as_data else ConsoleProgress(console(stderr=True))
    results = project.bench(names, asked, progress=progress)
    if as_data:
        as_json([result.model_dump(mode="json") for result in results])
    else:
        for number, result in enumerate(results):
            _print(result, gap=number > 0)
    if html:
        write_report(results, html)
        say(f"Report: {html}", err=True)
    if not any(row.measured for result in results for row in result.contenders):
        sys.exit(1)


def _size(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not name or not size.isdigit() or not int(size):
        raise LoadError(f"--size {text}: a name and a number are needed", "such as --size sequence=64")
    return name, int(size)


def _print(result: BenchResult, *, gap: bool) -> None:
    from modelwright.bench import words
    from modelwright.cli.tables import print_table

    if gap:
        say()
    if result.batches:
        print_table([words.TIMES_HEAD, *words.times(result)])
        say()
    print_table([words.FACTS_HEAD, *words.facts(result)])
    for line in words.left_out(result):
        say(typed(line))
    say()
    for line in (*words.how(result), words.where(result)):
        say(line)
    for note in result.notes:
        say(f"Warning: {note}", err=True)


@click.command("pick")
@click.argument("name")
@click.option(
    "--objective",
    type=click.Choice(("throughput", "latency", "size")),
    required=True,
    help="throughput: in the server, if that was measured; latency: of one call; size: of the files.",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Rows in a call. Default: 1 for latency, the most for throughput."
)
@click.option("--write", is_flag=True, help="Let the alias of this model serve the best one.")
@click.option("--alias", default="", metavar="NAME", help="Which alias, where the model has several.")
@json_option
@command
def pick_command(
    project: Project, name: str, objective: Objective, batch: int | None, write: bool, alias: str, as_data: bool
) -> None:
    """Name the best published variant of a model, by the last `bench`."""
    picked = project.pick(name, objective, batch=batch, write=write, alias=alias)
    if as_data:
        as_json(_as_data(picked))
        return
    say(f"{picked.choice.best}")
    say(f"  {picked.choice.reason}")
    for line in picked.choice.left_out:
        say(f"  not compared: {typed(line)}")
    if picked.alias and picked.changed and picked.file:
        say(f"{project.config.shown(picked.file)}: {picked.alias} serves {picked.choice.best} now")
        say(f"Next: {program()} build {picked.alias}    publish it")
    elif picked.alias:
        say(f"{picked.alias} serves {picked.choice.best} already")


def _as_data(picked: Picked) -> dict[str, Any]:
    choice = picked.choice
    data = asdict(choice) | {"ratio": choice.ratio.model_dump() if choice.ratio else None, "reason": choice.reason}
    return data | {"alias": picked.alias or None, "changed": picked.changed}
