"""The offline linter: a repository of a thousand models, and one model with a gigabyte of weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import timing
from benchmarks.noop import fitted, growth
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.lint.examples import base_text, onnx_bytes, write
from modelwright.lint.rule import Onnx

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
        return [_models(Path(folder) / "models", options), _weights(Path(folder) / "weights", options)]


def _lint(root: Path) -> float:
    return timing.run([timing.MODELWRIGHT, "lint", str(root), "--target", "26.07"], root)


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
