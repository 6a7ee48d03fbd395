"""`modelwright load …`: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelwright import extras
from modelwright.api import Project
from modelwright.cli.command import Finite, command, stopped_code, tritonserver_options
from modelwright.cli.servers import access_of, access_options, needs_url
from modelwright.cli.terminal import say, say_data, say_lines
from modelwright.errors import LoadError, ModelwrightError
from modelwright.project.project import ProjectConfig

if TYPE_CHECKING:
    from modelwright.loadtest.document import Gate, Measurement, Result, SloResult
    from modelwright.loadtest.measure.lab import Setting
    from modelwright.loadtest.measure.run import Findings
    from modelwright.loadtest.report.output import Kind

F = TypeVar("F", bound=Callable[..., Any])
FAILED, INCONCLUSIVE = 1, 3


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """`1,4,16`: whole numbers from 1."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) <= 0:
            self.fail(f"'{value}' is not a list of numbers above 0, such as 1,4,16", param, ctx)
        return numbers


def measuring(function: F) -> F:
    """`command`, for what measures: all that a load test needs is looked for before any of it is imported."""

    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        extras.require("a load test", "load", LoadError)
        return function(*arguments, **options)

    return command(wrapped)  # type: ignore[return-value]


@click.group("load")
def load() -> None:
    """Measure throughput and latency; gate a version against the last one."""


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


names_argument = click.argument("names", nargs=-1, metavar="[NAME]...")
version_option = click.option("--version", "model_version", default="", metavar="N", help="Default: the newest.")
shape_options = _options(
    click.option("--duration", type=Finite(0.1), default=10.0, show_default=True, help="Measured seconds."),
    click.option("--warmup", type=Finite(0), default=2.0, show_default=True, help="Seconds before that, discarded."),
)
setting_options = _options(
    click.option("--url", help="A running server: http://host:port or grpc://host:port. Default: one is started."),
    click.option(
        "--protocol",
        type=click.Choice(("http", "grpc")),
        help="Protocol to a server that is started here; default: http.",
    ),
    click.option("--repository", type=click.Path(path_type=Path), help="Default: the project's."),
    click.option(
        "--payload",
        default="",
        help="golden, random, zero, or a file or folder. Default: golden samples if the version has them.",
    ),
    click.option(
        "--shape",
        "shapes",
        multiple=True,
        metavar="NAME:SIZES",
        help="Tensor shapes for variable dimensions: ids:128, image:3,224,224.",
    ),
    click.option(
        "--range",
        "ranges",
        multiple=True,
        metavar="NAME=LOW:HIGH",
        help="Range of random numbers: ids=0:20. Default: that of golden samples; else integers 0:99, floats 0:1.",
    ),
    click.option("--distinct", type=click.IntRange(1), default=64, show_default=True, help="Different payloads."),
    click.option(
        "--check-every",
        type=click.IntRange(0),
        default=100,
        show_default=True,
        help="Compare one answer in N with the golden one; 0: none.",
    ),
    click.option(
        "--api",
        type=click.Choice(("raw", "tritonclient")),
        default="raw",
        show_default=True,
        help="raw: prepared requests; tritonclient: its own infer(), to measure what it costs.",
    ),
    click.option("--shared-memory", is_flag=True, help="Pass tensors in system shared memory (same machine only)."),
    click.option(
        "--sequence-length", type=click.IntRange(1), default=10, show_default=True, help="Requests in a sequence."
    ),
    click.option("--timeout", type=Finite(0.1), default=30.0, show_default=True, help="Seconds for a request."),
    click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Generator processes."),
    click.option("--seed", type=int, default=7, show_default=True, help="Seed of arrivals, payloads and order."),
    click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Default: .modelwright/load/…"),
    access_options,
    tritonserver_options,
    click.option("--json", "as_data", is_flag=True, help="Print the result document instead of a table."),
)


@load.command("run")
@names_argument
@version_option
@click.option("--concurrency", type=click.IntRange(1), help="Closed loop: requests in flight. Default: 32.")
@click.option("--rate", type=Finite(0, min_open=True), help="Open loop: requests a second.")
@click.option(
    "--arrivals",
    type=click.Choice(("poisson", "constant")),
    default="poisson",
    show_default=True,
    help="Schedule of --rate.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Rows in a request.")
@shape_options
@setting_options
@measuring
def run_command(
    project: Project,
    names: tuple[str, ...],
    model_version: str,
    concurrency: int | None,
    rate: float | None,
    arrivals: Any,
    batch: int,
    duration: float,
    warmup: float,
    **options: Any,
) -> None:
    """Measure models under one load; without names, all models of the repository."""
    from modelwright.loadtest.measure import run
    from modelwright.loadtest.payloads.workload import LoadShape

    if concurrency and rate:
        raise LoadError(
            "--concurrency and --rate: give only one",
            "--concurrency: that many requests in flight (closed loop); --rate: that many a second (open loop)",
        )
    setting = _setting(project.config, options)
    given = run.subject(setting, names, model_version, [batch])
    shape = LoadShape(None if rate else concurrency or 32, rate, arrivals, warmup, duration)
    _record("run", setting, given.models, options, lambda findings: run.run(setting, given, [shape], findings))


@load.command("sweep")
@names_argument
@version_option
@click.option("--concurrency", type=Numbers(), default="1,2,4,8,16,32", show_default=True, help="Requests in flight.")
@click.option("--batch", type=Numbers(), default="1", show_default=True, help="Rows in a request.")
@shape_options
@setting_options
@measuring
def sweep_command(
    project: Project,
    names: tuple[str, ...],
    model_version: str,
    concurrency: tuple[int, ...],
    batch: tuple[int, ...],
    duration: float,
    warmup: float,
    **options: Any,
) -> None:
    """Measure every concurrency at every batch size."""
    from modelwright.loadtest.measure import run
    from modelwright.loadtest.payloads.workload import LoadShape

    setting = _setting(project.config, options)
    given = run.subject(setting, names, model_version, tuple(dict.fromkeys(batch)))
    shapes = [LoadShape(number, warmup_s=warmup, duration_s=duration) for number in dict.fromkeys(concurrency)]
    _record("sweep", setting, given.models, options, lambda findings: run.run(setting, given, shapes, findings))


@load.command("slo")
@click.argument("name")
@version_option
@click.option("--p50-ms", type=Finite(0, min_open=True), help="The median must be at most this.")
@click.option("--p99-ms", type=Finite(0, min_open=True), help="The 99th percentile must be at most this.")
@click.option("--max-rate", type=Finite(0, min_open=True), help="Highest rate to try; default: the model's capacity.")
@click.option(
    "--arrivals",
    type=click.Choice(("poisson", "constant")),
    default="poisson",
    show_default=True,
    help="Schedule of requests.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Rows in a request.")
@shape_options
@setting_options
@measuring
def slo_command(
    project: Project,
    name: str,
    model_version: str,
    p50_ms: float | None,
    p99_ms: float | None,
    max_rate: float | None,
    arrivals: Any,
    batch: int,
    duration: float,
    warmup: float,
    **options: Any,
) -> None:
    """Find the highest rate at which a latency objective holds.

    Exit code 1 if it holds at no rate.
    """
    from modelwright.loadtest.measure import run
    from modelwright.loadtest.payloads.workload import LoadShape

    if (p50_ms is None) == (p99_ms is None):
        raise LoadError("--p99-ms or --p50-ms: give exactly one", "such as --p99-ms 20")
    setting = _setting(project.config, options)
    given = run.subject(setting, [name], model_version, [batch])
    percentile, max_ms = ("p99", p99_ms) if p99_ms is not None else ("p50", p50_ms)
    assert max_ms is not None
    shape = LoadShape(rate=1.0, arrivals=arrivals, warmup_s=warmup, duration_s=duration)
    objective = run.Objective(percentile, max_ms, max_rate)
    result = _record(
        *("slo", setting, given.models, options),
        lambda findings: _Found(slo=run.slo(setting, given, shape, objective, findings)),
    )
    if result.slo is None or result.slo.rate is None:
        sys.exit(FAILED)


@load.command("ab")
@names_argument
@click.option("--versions", type=Numbers(), metavar="A,B", help="Baseline and candidate. Default: the newest two.")
@click.option(
    "--baseline-repository",
    type=click.Path(path_type=Path),
    help="The baseline is the newest version in that repository.",
)
@click.option(
    "--rounds",
    type=click.IntRange(7),
    help="Of the comparison; once as many again if undecided. Default: what this machine needs, within 3 minutes.",
)
@click.option(
    "--seconds",
    type=Finite(0.1),
    default=0.25,
    show_default=True,
    help="Of a measurement; longer if a percentile needs it.",
)
@click.option("--warmup", type=Finite(0), default=0.05, show_default=True, help="Seconds before each measurement.")
@click.option(
    "--margin", "margins", multiple=True, metavar="METRIC=SHARE", help="cpu=0.05, throughput=…, p50=…, p99=…, compute=…"
)
@click.option(
    "--metric",
    "metric_names",
    multiple=True,
    metavar="NAME",
    help="Measure only this metric; may be repeated. Default: all but p99, which needs a fixed load.",
)
@click.option("--concurrency", type=click.IntRange(1), help="Requests in flight at saturation. Default: 32.")
@click.option("--rate", type=Finite(0, min_open=True), help="Measure a fixed load, too, at so many requests a second.")
@setting_options
@measuring
def ab_command(
    project: Project,
    names: tuple[str, ...],
    versions: tuple[int, ...] | None,
    baseline_repository: Path | None,
    rounds: int | None,
    seconds: float,
    warmup: float,
    margins: tuple[str, ...],
    metric_names: tuple[str, ...],
    concurrency: int | None,
    rate: float | None,
    **options: Any,
) -> None:
    """Is a version slower than the one before? Without names, every model with two versions.

    Exit code 0: PASS; 1: FAIL, or an error; 3: INCONCLUSIVE.
    """
    from modelwright.loadtest.gate import ab
    from modelwright.loadtest.gate.objectives import metrics, objectives
    from modelwright.loadtest.gate.pairings import pairings
    from modelwright.loadtest.gate.verdict import EXIT_CODES, overall

    setting = _setting(project.config, options)
    slo_of = objectives(project.config, margins, concurrency, rate)
    root = baseline_repository.absolute() if baseline_repository else None
    found, left_out = pairings(setting, names, versions or (), root, slo_of)
    for reason in left_out:
        setting.progress.say(reason)
    if not found:
        say("Nothing to compare: no model has two versions.")
        return
    chosen, with_p99 = metrics(metric_names), "p99" in metric_names
    plan = ab.Plan(rounds, seconds, warmup, seed=options["seed"], metrics=chosen, fixed_load=with_p99)
    models = [pairing.model for pairing in found]
    result = _record(
        "ab", setting, models, options, lambda findings: _Found(gates=ab.gate(setting, found, plan, findings))
    )
    sys.exit(EXIT_CODES[overall(result.gates)])


@load.command("compare")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@command
def compare_command(project: Project, first: Path, second: Path) -> None:
    """Show two results side by side, without a verdict."""
    from modelwright.loadtest.gate.compare import compare, text
    from modelwright.loadtest.report import output

    say_lines(text(compare(output.read(first), output.read(second)), (str(first), str(second))))


def _setting(project: ProjectConfig, options: dict[str, Any]) -> Setting:
    from modelwright.cli.load_display import ConsoleProgress
    from modelwright.cli.terminal import console
    from modelwright.loadtest.locust.options import ranges, shapes
    from modelwright.loadtest.measure.lab import Setting
    from modelwright.loadtest.payloads.workload import Workload

    workload = Workload(
        url="",
        model="",
        payload=options["payload"],
        distinct=options["distinct"],
        shapes=shapes(options["shapes"]),
        ranges=ranges(options["ranges"]),
        seed=options["seed"],
        check_every=options["check_every"],
        api=options["api"],
        shared_memory=options["shared_memory"],
        sequence_length=options["sequence_length"],
        timeout_s=options["timeout"],
        access=access_of(options),
    )
    needs_url(workload.access, options["url"])
    repository = (options["repository"] or project.repository).absolute()
    progress = ConsoleProgress(console(stderr=True))
    return Setting(project, repository, workload, progress, options["url"], options["protocol"], options["processes"])


@dataclass(frozen=True)
class _Found:
    """What a command finds beside its measurements."""

    slo: SloResult | None = None
    gates: Sequence[Gate] = ()


def _record(
    kind: Kind,
    setting: Setting,
    models: Sequence[str],
    options: dict[str, Any],
    measure: Callable[[Findings], _Found | None],
) -> Result:
    """Measure, then write and print the result; also if measuring ends in an error, with the measurements so far.

    Exits with a code if a measurement is incomplete or no request succeeded. Errors are raised again.
    """
    from modelwright.cli import load_text
    from modelwright.loadtest.measure.run import Findings
    from modelwright.loadtest.measure.servers import is_on_this_machine
    from modelwright.loadtest.report import output
    from modelwright.triton.access import without_secrets

    folder = output.folder_for(setting.project.state / "load", options["output"], kind, models)
    # A gate shows its rounds instead of its sixty measurements.
    findings = Findings(_ignore if kind == "ab" else lambda measured: setting.progress.say(load_text.line(measured)))

    is_local = setting.url is None or is_on_this_machine(setting.url)

    def written(found: _Found | None) -> Result:
        slo, gates = found.slo if found else None, found.gates if found else ()
        command = ["modelwright", *without_secrets(sys.argv[1:])]
        result = output.result_of(kind, models, findings, command=command, is_local=is_local, slo=slo, gates=gates)
        if options["as_data"]:  # before it is written: the disk may be full
            say_data(result.model_dump_json(indent=1) + "\n")
        else:
            say_lines(load_text.text(result))
        report = output.write(result, folder)
        say(f"Report: {setting.project.shown(report)}", err=True)
        return result

    try:
        found = measure(findings)
    except BaseException as error:
        if findings.measurements:
            findings.stopped = _reason(error)
            written(None)
        else:
            output.remove_if_empty(folder)  # nothing was measured
        raise
    result = written(found)
    if not result.complete:
        sys.exit(stopped_code() if findings.interrupted else FAILED)
    if any(measured.requests.succeeded == 0 for measured in result.measurements):
        sys.exit(FAILED)
    return result


def _ignore(measured: Measurement) -> None:
    pass


def _reason(error: BaseException) -> str:
    if isinstance(error, ModelwrightError):
        return error.message
    return "stopped by Ctrl-C" if isinstance(error, KeyboardInterrupt) else type(error).__name__
