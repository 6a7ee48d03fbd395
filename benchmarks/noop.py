"""A build in which nothing changed: what everyone waits for, all day long."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.table import Section, load

_SIZES = (10, 100, 300, 1000)
_QUICK_SIZES = (10, 30)
_AIM_LARGEST_S = 3.0
_IMPORTS = "import click, yaml, pydantic"  # what any command of this kind needs, as the unit of the aim
_AIM_IMPORTS = 2.0


def measure(options: Options) -> list[Section]:
    with tempfile.TemporaryDirectory(prefix="modelwright-noop-") as folder:
        return [_shipped(Path(folder) / "shipped", options), _synthetic(Path(folder) / "synthetic", options)]


def _shipped(root: Path, options: Options) -> Section:
    project = projects.shipped_project(root)
    projects.take_store(project)
    _build_and_settle(project)
    make = ["make", "-s", "repo"]
    replayed = _made_once(project, make)
    taken = timing.interleaved(
        {
            "python -c pass": lambda: timing.run([timing.PYTHON, "-c", "pass"], project),
            f'python -c "{_IMPORTS}"': lambda: timing.run([timing.PYTHON, "-c", _IMPORTS], project),
            "modelwright --version": lambda: timing.run([timing.MODELWRIGHT, "--version"], project),
            "modelwright build": lambda: timing.build(project),
            "modelwright build --json": lambda: timing.build(project, "--json"),
            **({"make -s repo": lambda: timing.run(make, project)} if replayed else {}),
        },
        options.rounds(20),
    )
    aims = {"modelwright build": f"≤ {_AIM_IMPORTS} of the imports", "make -s repo": "< 1 s"}
    imports_s = timing.best_and_median(taken[f'python -c "{_IMPORTS}"'])
    rows = []
    for name, times_s in taken.items():
        best_s, median_s = timing.best_and_median(times_s)
        ratios = [f"{best_s / imports_s[0]:.2f}", f"{median_s / imports_s[1]:.2f}"]
        rows.append([f"`{name}`", timing.seconds(best_s), timing.seconds(median_s), *ratios, aims.get(name, "")])
    count = len(list((project / "builders").iterdir()))
    return Section(
        f"noop: the {count} shipped builders, nothing changed",
        f"Whole processes, {options.rounds(20)} rounds in alternating order. Load average {load()}.",
        ["command", "best", "median", "ratio of bests", "ratio of medians", "aim"],
        rows,
    )


def _synthetic(root: Path, options: Options) -> Section:
    """One project that grows, a copy of it at each size; builds of nothing in these take turns."""
    sizes, rounds = _QUICK_SIZES if options.quick else _SIZES, options.rounds(7)
    copies, first_s = _grown(root, sizes)
    candidates: dict[str, Callable[[], float]] = {}
    for size in sizes:
        candidates[f"{size} build"] = partial(timing.build, copies[size])
        candidates[f"{size} build --json"] = partial(timing.build, copies[size], "--json")
    taken = timing.interleaved(candidates, rounds)
    stamped = [timing.best_and_median(taken[f"{size} build"]) for size in sizes]
    measured = [timing.best_and_median(taken[f"{size} build --json"]) for size in sizes]
    points = [(size, best_s) for size, (best_s, _) in zip(sizes, measured, strict=True)]
    fixed_s, _ = fitted(points)
    rows = [
        [
            f"{size:,}",
            timing.seconds(stamped_s),
            timing.seconds(best_s),
            timing.seconds(median_s),
            timing.milliseconds((best_s - fixed_s) / size),
            f"{first_s[size] * 1000:.0f} ms",
        ]
        for size, (stamped_s, _), (best_s, median_s) in zip(sizes, stamped, measured, strict=True)
    ]
    return Section(
        "noop: synthetic builders, nothing changed",
        f"{rounds} builds of nothing at each size, in alternating order; and the first build, before that. "
        f"Load average {load()}.",
        ["models", "by timestamps", "looking closely", "median", "each model", "first build, each"],
        rows,
        growth(points, _AIM_LARGEST_S),
    )


def _grown(root: Path, sizes: Sequence[int]) -> tuple[dict[int, Path], dict[int, float]]:
    """For each size a project with so many builders, built; and seconds for each builder that the size added."""
    project = projects.empty_project(root / "growing")
    copies, first_s = {}, {}
    built = 0
    for size in sizes:
        for number in range(built, size):
            projects.add_onnx_builder(project, number)
        first_s[size] = timing.build(project) / (size - built)
        copies[size] = shutil.copytree(project, root / str(size), symlinks=True)
        built = size
    projects.settle()
    for copy in copies.values():
        timing.build(copy)  # it reads and remembers its files
    return copies, first_s


def growth(points: Sequence[tuple[int, float]], aim_s: float) -> list[str]:
    """What is said of (size, seconds): the fit, how well it fits, and the largest size against the aim for 1,000."""
    fixed_s, each_s = fitted(points)
    size, largest_s = points[-1]
    worst = max(abs(fixed_s + each_s * count - time_s) / time_s for count, time_s in points)
    fit = f"Fit: {timing.milliseconds(fixed_s)} + {timing.milliseconds(each_s)} a model; no size is further off than"
    return [
        f"{fit} {worst:.0%}.",
        f"{size:,} models: {timing.seconds(largest_s)}; the aim for 1,000 is ≤ {aim_s:.0f} s.",
    ]


def fitted(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """(fixed, each) of time = fixed + each · size, with relative errors made least: small sizes count as much."""
    weights = [1 / time**2 for _, time in points]
    total = sum(weights)
    mean_x = sum(weight * x for weight, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(weight * y for weight, (_, y) in zip(weights, points, strict=True)) / total
    products = sum(weight * (x - mean_x) * (y - mean_y) for weight, (x, y) in zip(weights, points, strict=True))
    squares = sum(weight * (x - mean_x) ** 2 for weight, (x, _) in zip(weights, points, strict=True))
    each = products / squares
    return mean_y - each * mean_x, each


def _build_and_settle(project: Path) -> None:
    """Build, and once more when the files are old enough for their digests to be remembered."""
    timing.build(project)
    projects.settle()
    timing.build(project)


def _made_once(project: Path, make: Sequence[str]) -> bool:
    """Let `make repo` do its work once, in the copy, with this checkout's environment. False where that cannot run."""
    (project / "Makefile").write_text((projects.ROOT / "Makefile").read_text())
    for name in ("pyproject.toml", "constraints.txt"):
        (project / name).write_text((projects.ROOT / name).read_text())
    stamp = projects.ROOT / ".venv" / ".built"
    if not stamp.is_file():
        return False
    (project / ".venv").symlink_to(stamp.parent)
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(project / name, (0, 0))  # older than the stamp: nothing is to be installed
    timing.run(make, project)
    return True
