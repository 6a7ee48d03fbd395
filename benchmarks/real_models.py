"""Real models of other packages: which are built at the first try, and how far the server is from onnxruntime.

`make test-models` runs the same as tests, and installs the packages.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import projects
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.project.project import load as load_project
from modelwright.server import environment
from modelwright.server.local import RunningServer, running
from modelwright.text import size
from tests.models import project as models
from tests.models.asking import largest_difference


def measure(options: Options) -> list[Section]:
    if not models.installed():
        raise RuntimeError("the packages of the models are not installed: make test-models")
    with tempfile.TemporaryDirectory(prefix="modelwright-models-") as folder:
        root = projects.empty_project(Path(folder) / "project")
        models.write_builders(root)
        outcomes = models.build(root)
        project = load_project(root)
        made = environment.ensure(project.server, project.target, lambda _: None)
        log = project.logs / "server.log"
        with running(made, project.repository, log=log, models=["*"], startup_timeout_s=600) as server:
            rows = [_row(root, server, name, outcomes[name]) for name in models.NAMES]
    built = sum(outcome["status"] == "new" for outcome in outcomes.values())
    return [
        Section(
            "real_models: built, served, and compared with plain onnxruntime",
            "Every sample over HTTP and gRPC; the difference is relative where a value is above 1."
            f" Load average {load()}.",
            ["model", "builder", "built at the first try", "largest batch", "size", "build", "difference"],
            rows,
            [f"{built} of {len(rows)} are built at the first try."],
        )
    ]


def _row(root: Path, server: RunningServer, name: str, outcome: Mapping[str, Any]) -> list[str]:
    row = [name, "`new --from`" if name in models.GENERATED else "written"]
    if outcome["status"] != "new":
        return [*row, outcome["error"].partition("\n")[0], "-", "-", "-", "-"]
    config = (root / "model_repository" / name / "config.pbtxt").read_text()
    batch = next((line.split()[1] for line in config.splitlines() if line.startswith("max_batch_size:")), "-")
    row += ["yes", batch, size(outcome["size_bytes"]), f"{outcome['build_s']:.1f} s"]
    reason = server.failures().get(name)
    if reason:
        return [*row, reason]
    try:
        return [*row, f"{largest_difference(root, server, name):.1e}"]
    except AssertionError as error:
        return [*row, f"other answers: {error}"]
