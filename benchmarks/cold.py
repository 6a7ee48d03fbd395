"""The first build of `digits`, against a script that makes the same library calls by hand."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import plain_digits, projects, timing
from benchmarks.options import Options
from benchmarks.table import Section, load

_AIM = 1.1
_MODEL = "digits"
# What a worker of the engine gets for a builder of `threads: 1`.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def measure(options: Options) -> list[Section]:
    rounds = options.rounds(5)
    with tempfile.TemporaryDirectory(prefix="modelwright-cold-") as folder:
        bench = _Cold(Path(folder))
        bench.engine()  # a first run of each reads libraries from disk and writes bytecode
        bench.plain()
        taken = timing.interleaved({"plain script": bench.plain, "modelwright build": bench.engine}, rounds)
        bench.check()
    rows = []
    plain_s = timing.best_and_median(taken["plain script"])
    for name, times_s in taken.items():
        best_s, median_s = timing.best_and_median(times_s)
        ratios = [f"{best_s / plain_s[0]:.3f}", f"{median_s / plain_s[1]:.3f}"]
        rows.append([name, timing.seconds(best_s), timing.seconds(median_s), *ratios])
    pairs = [own / plain for own, plain in zip(taken["modelwright build"], taken["plain script"], strict=True)]
    return [
        Section(
            f"cold: the first build of `{_MODEL}`",
            f"Whole processes, {rounds} rounds in alternating order after one of each to warm up. "
            f"Load average {load()}.",
            ["", "best", "median", "ratio of bests", "ratio of medians"],
            rows,
            [f"Median of the ratios of each round: {statistics.median(pairs):.3f}; the aim is ≤ {_AIM}."],
        )
    ]


class _Cold:
    """The two candidates, in folders that are new each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._builder = projects.ROOT / "builders" / _MODEL
        spec = yaml.safe_load((self._builder / "model.yaml").read_text())
        self._options = json.dumps({"params": spec["source"]["params"], "opset": _opset()})
        self._last: dict[str, Path] = {}

    def engine(self) -> float:
        project = self._last["engine"] = projects.shipped_project(self._next(), [_MODEL])
        return timing.build(project)

    def plain(self) -> float:
        out = self._last["plain"] = self._next()
        out.mkdir()
        arguments = [str(self._builder), str(out), self._options]
        return timing.run([timing.PYTHON, plain_digits.__file__, *arguments], out, _ONE_THREAD)

    def check(self) -> None:
        """Both did the same work: their golden outputs are equal."""
        import numpy as np

        golden = self._last["engine"] / "model_repository" / _MODEL / "1" / "golden.npz"
        with np.load(golden) as own, np.load(self._last["plain"] / "golden.npz") as plain:
            for name in plain.files:
                np.testing.assert_allclose(own[name], plain[name], atol=1e-5)

    def _next(self) -> Path:
        self._count += 1
        return self._folder / str(self._count)


def _opset() -> Any:
    from modelwright.steps.export import DEFAULT_OPSET

    return DEFAULT_OPSET
