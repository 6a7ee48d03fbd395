"""Two builders that have nothing to do with each other, on two cores."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import yaml

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.table import Section

_AIM = 1.6
_ATTEMPTS = 3
_MODEL = "digits"
_EPOCHS = 24  # about ten seconds of training on one core
_QUICK_EPOCHS = 2


def measure(options: Options) -> list[Section]:
    rounds, attempts = options.rounds(3), 1 if options.quick else _ATTEMPTS
    epochs = _QUICK_EPOCHS if options.quick else _EPOCHS
    runs: dict[int, list[timing.Run]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="modelwright-parallel-") as folder:
        for _ in range(rounds):
            for jobs, found in runs.items():
                build = partial(_build, Path(folder), jobs, epochs)
                found.append(timing.undisturbed(build, attempts))
    one_s, two_s = (min(run.time_s for run in found) for found in runs.values())
    rows = [_row(jobs, found, one_s) for jobs, found in runs.items()]
    return [
        Section(
            "parallel: two independent builders",
            f"The `{_MODEL}` builder twice, two seeds, {epochs} epochs. Whole processes, {rounds} rounds in turns. "
            f"A run during which others kept more than a tenth of a core busy was repeated, up to {attempts} times.",
            ["command", "best", "median", "cores taken by others", "speed-up (bests)"],
            rows,
            [f"{one_s / two_s:.2f}; the aim is ≥ {_AIM}."],
        )
    ]


def _row(jobs: int, runs: list[timing.Run], one_s: float) -> list[str]:
    best_s, median_s = timing.best_and_median([run.time_s for run in runs])
    others = ", ".join(f"{run.others_cores:.1f}" for run in runs)
    command = f"`modelwright build --jobs {jobs}`"
    return [command, timing.seconds(best_s), timing.seconds(median_s), others, f"{one_s / best_s:.2f}"]


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
