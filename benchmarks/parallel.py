"""Two builders that have nothing to do with each other, on two cores."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.table import Section, load

_AIM = 1.6
_MODEL = "digits"
_EPOCHS = 24  # about ten seconds of training on one core
_QUICK_EPOCHS = 2


def measure(options: Options) -> list[Section]:
    rounds = options.rounds(3)
    epochs = _QUICK_EPOCHS if options.quick else _EPOCHS
    with tempfile.TemporaryDirectory(prefix="modelwright-parallel-") as folder:
        root = Path(folder)
        taken = timing.interleaved(
            {f"--jobs {jobs}": lambda jobs=jobs: _build(root, jobs, epochs) for jobs in (1, 2)},  # type: ignore[misc]
            rounds,
        )
    one_s, two_s = (timing.best_and_median(times_s) for times_s in taken.values())
    rows = [
        ["`modelwright build --jobs 1`", timing.seconds(one_s[0]), timing.seconds(one_s[1]), "1.00"],
        [
            "`modelwright build --jobs 2`",
            timing.seconds(two_s[0]),
            timing.seconds(two_s[1]),
            f"{one_s[1] / two_s[1]:.2f}",
        ],
    ]
    return [
        Section(
            "parallel: two independent builders",
            f"The `{_MODEL}` builder twice, with two seeds and {epochs} epochs. Whole processes, {rounds} rounds in "
            f"alternating order. Load average {load()}.",
            ["command", "best", "median", "speed-up (medians)"],
            rows,
            [f"The aim is ≥ {_AIM} on two free cores; best against best: {one_s[0] / two_s[0]:.2f}."],
        )
    ]


def _build(root: Path, jobs: int, epochs: int) -> float:
    with tempfile.TemporaryDirectory(dir=root) as folder:
        project = projects.empty_project(Path(folder) / "project")
        for seed in (1, 2):
            _add_seeded(project, seed, epochs)
        return timing.build(project, "--jobs", str(jobs))


def _add_seeded(project: Path, seed: int, epochs: int) -> None:
    """The shipped builder under another name, without its accuracy gate, which a quick run would not pass."""
    folder = projects.copy_builder(_MODEL, project / "builders" / f"{_MODEL}_{seed}")
    file = folder / "model.yaml"
    spec = yaml.safe_load(file.read_text())
    spec["name"] = folder.name
    spec["source"]["params"] |= {"seed": seed, "epochs": epochs}
    spec.pop("gates", None)
    file.write_text(yaml.safe_dump(spec))
