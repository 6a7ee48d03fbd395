"""Measure the variants of models side by side, and keep the result for `pick`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelwright.bench.bench import Asked, bench
from modelwright.bench.contenders import contests
from modelwright.bench.document import BenchResult, place, write
from modelwright.errors import LoadError, StoreError
from modelwright.fsops import disk_errors
from modelwright.loadtest.measure.lab import Setting
from modelwright.loadtest.measure.progress import Progress
from modelwright.loadtest.payloads.workload import Workload
from modelwright.project.project import ProjectConfig


def bench_models(project: ProjectConfig, names: Sequence[str], asked: Asked, progress: Progress) -> list[BenchResult]:
    """One result a builder, in the order of the names. Where one cannot be kept, a note of it says so."""
    setting = Setting(project, project.repository, Workload(url="", model=""), progress)
    results = []
    for contest in contests(project, names):
        result = bench(project, contest, asked, setting)
        try:
            with disk_errors(project.state):
                write(result, place(project.state, result.model))
        except StoreError as error:
            lost = f"not kept for `pick`: {error.message}"
            result = result.model_copy(update={"notes": [*result.notes, lost]})
        results.append(result)
    return results


def write_report(results: Sequence[BenchResult], path: Path) -> None:
    """One HTML page of all results. Raises LoadError where it cannot be written."""
    from modelwright.bench.page import render

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(results), encoding="utf-8")
    except OSError as error:
        raise LoadError(f"--html {path}: cannot be written: {error.strerror}") from None
