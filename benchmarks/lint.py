"""The offline linter: repositories of up to 1,700 models, one model alone, and one with a gigabyte of weights."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks import timing
from benchmarks.lint_models import write_models
from benchmarks.noop import fitted, growth
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.lint.examples import PYTHON_MODEL, base_text, onnx_bytes, write
from modelwright.lint.rule import Onnx

_PUBLIC_MODELS = 1700
_IMPORTS = "import click, yaml"  # what any command of this kind needs, as the unit of the aim
_AIM_ONE, _AIM_EACH_MS = 2.5, 1.0
_TARGET = "26.07"
_SIZES = (10, 100, 300, 1000)
_QUICK_SIZES = (3, 10)
_AIM_LARGEST_S, _AIM_WEIGHTS_S = 5.0, 1.0
_WEIGHTS_BYTES = 10**9
_CONFIG = (
    base_text("onnxruntime")
    + "dynamic_batching { preferred_batch_size: [ 4, 8 ], max_queue_delay_microseconds: 100 }\n"
)


def measure(options: Options) -> list[Section]:
    with tempfile.TemporaryDirectory(prefix="modelwright-lint-") as folder:
        root = Path(folder)
        return [
            _public(root / "public", options),
            _models(root / "models", options),
            _weights(root / "weights", options),
        ]


def _lint(root: Path) -> float:
    return timing.run([timing.MODELWRIGHT, "lint", str(root), "--target", _TARGET], root)


def _public(root: Path, options: Options) -> Section:
    """One model, and a repository such as people publish, against the imports that any command of this kind needs."""
    count, rounds = 100 if options.quick else _PUBLIC_MODELS, options.rounds(15)
    write({"m/config.pbtxt": base_text("python"), "m/1/model.py": PYTHON_MODEL}, root / "one")
    write_models(root / "many", count)
    imports = f'python -c "{_IMPORTS}"'
    commands = {
        imports: [timing.PYTHON, "-c", _IMPORTS],
        "modelwright lint, 1 model": [timing.MODELWRIGHT, "lint", str(root / "one"), "--target", _TARGET],
        f"modelwright lint, {count:,} models": [timing.MODELWRIGHT, "lint", str(root / "many"), "--target", _TARGET],
    }
    taken = timing.interleaved(
        {name: lambda command=command: timing.cost(command, root, (0, 1)) for name, command in commands.items()},  # type: ignore[misc]
        rounds + 1,
    )
    costs = {name: runs[1:] for name, runs in taken.items()}  # the first run reads files from the disk
    cpu_s = {name: statistics.median(run.cpu_s for run in runs) for name, runs in costs.items()}
    wall_s = {name: statistics.median(run.wall_s for run in runs) for name, runs in costs.items()}
    one, many = list(commands)[1:]
    rows = [
        [
            f"`{name}`",
            timing.milliseconds(cpu_s[name]),
            timing.milliseconds(wall_s[name]),
            f"{cpu_s[name] / cpu_s[imports]:.2f}",
            f"{wall_s[name] / wall_s[imports]:.2f}",
            f"≤ {_AIM_ONE}" if name == one else "",
        ]
        for name in commands
    ]
    each = [timing.milliseconds((times[many] - times[one]) / (count - 1)) for times in (cpu_s, wall_s)]
    return Section(
        f"lint: one model, and {count:,} such as people publish",
        f"Whole processes, medians of {rounds} rounds in alternating order, files in the cache. CPU time is the user's "
        f"and the system's. Load average {load()}.",
        ["command", "CPU time", "wall clock", "ratio of CPU times", "ratio of wall clocks", "aim"],
        rows,
        [f"Each further model: {each[0]} of CPU time, {each[1]} of wall clock; the aim is ≤ {_AIM_EACH_MS:.0f} ms."],
    )


def _models(root: Path, options: Options) -> Section:
    """Repositories of some sizes, of models with an ONNX file and a config each; runs take turns."""
    sizes, rounds = _QUICK_SIZES if options.quick else _SIZES, options.rounds(7)
    for size in sizes:
        _make(root / str(size), size)
    taken = timing.interleaved({str(size): lambda size=size: _lint(root / str(size)) for size in sizes}, rounds)  # type: ignore[misc]
    measured = [timing.best_and_median(times_s) for times_s in taken.values()]
    points = [(size, best_s) for size, (best_s, _) in zip(sizes, measured, strict=True)]
    fixed_s, _ = fitted(points)
    rows = [
        [f"{size:,}", timing.seconds(best_s), timing.seconds(median_s), timing.milliseconds((best_s - fixed_s) / size)]
        for size, (best_s, median_s) in zip(sizes, measured, strict=True)
    ]
    return Section(
        "lint: repositories of models with small ONNX files",
        f"Whole processes of `modelwright lint`, {rounds} rounds in alternating order. Load average {load()}.",
        ["models", "best", "median", "each model"],
        rows,
        growth(points, _AIM_LARGEST_S),
    )


def _make(root: Path, models: int) -> None:
    data = onnx_bytes(Onnx())
    for number in range(models):
        write({f"m{number:04}/config.pbtxt": _CONFIG, f"m{number:04}/1/model.onnx": data}, root)


def _weights(root: Path, options: Options) -> Section:
    """One model whose weights lie beside it. The file has no blocks on disk: nobody reads it, or this would show."""
    write({"m/config.pbtxt": _CONFIG, "m/1/model.onnx": onnx_bytes(Onnx(external="weights.bin"))}, root)
    with (root / "m/1/weights.bin").open("wb") as file:
        file.truncate(_WEIGHTS_BYTES)
    best_s, median_s = timing.best_and_median([_lint(root) for _ in range(options.rounds(7))])
    return Section(
        "lint: one model with 1 GB of external weights",
        f"{options.rounds(7)} runs. Load average {load()}.",
        ["best", "median", "aim"],
        [[timing.seconds(best_s), timing.seconds(median_s), f"≤ {_AIM_WEIGHTS_S:.0f} s"]],
    )
