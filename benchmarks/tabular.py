"""A tabular pipeline as ONNX against the same one in the Python backend: `python -m benchmarks tabular`.

The other side is tsbk's route for a scikit-learn model: MLflow's pyfunc, run by mlflow-backend's own model file, which
tsbk depends on. Both lie in one repository, on one server, and get the same requests.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.loadtest.generator.processes import GeneratorProcesses, Phase, Watch
from modelwright.loadtest.measure.latency import latency
from modelwright.loadtest.measure.servers import local
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.project.project import ProjectConfig, find

_MODEL, _OTHER = "wine", "wine_pyfunc"
_BACKEND = "mlflow-backend==1.1.0"  # what tsbk 1.12.0 runs these models with
_PACKAGES = (_BACKEND, "mlflow-skinny>=2.12,<3", "pandas>=2.3.1,<3", "scikit-learn", "numpy<2")
_CASES = ((1, 1), (1, 16), (64, 1), (64, 16))  # rows a request, requests in flight
# The Python backend as the stock container has it, of which tsbk's backend "mlflow" is a copy with a model.py in it.
_CONFIG = """\
backend: "python"
max_batch_size: 1000
input [ { name: "measurements", data_type: TYPE_FP32, dims: [ 13 ] } ]
output [ { name: "output", data_type: TYPE_STRING, dims: [ 1 ] } ]
instance_group [ { count: 1, kind: KIND_CPU } ]
"""
_SAVE = """
import sys, numpy as np, mlflow.sklearn
from mlflow.models import infer_signature
from train import train
from data import split
pipeline = train(1.0)
rows = split()[1].astype(np.float32)
mlflow.sklearn.save_model(pipeline, sys.argv[1], signature=infer_signature(rows, pipeline.predict(rows)))
"""


@dataclass(frozen=True)
class _Run:
    throughput: float
    times_ns: NDArray[Any]


def measure(options: Options) -> list[Section]:
    with tempfile.TemporaryDirectory(prefix="modelwright-tabular-") as folder:
        root = projects.shipped_project(Path(folder), [_MODEL])
        timing.build(root)
        project = find(root)
        assert project is not None
        _add_pyfunc(project, root / "packages")
        with _served(project) as url:
            rows = [_compared(project, url, *case, options) for case in _CASES]
    return [
        Section(
            "tabular: ONNX against pyfunc in the Python backend",
            f"The shipped `wine`, a scikit-learn pipeline, as the ONNX graph that is published, and as tsbk serves it: "
            f"an MLflow model, by the model file of {_BACKEND}, in an environment of its own. One server, the same "
            f"requests over gRPC, in turns, {_rounds(options)} rounds of {_seconds(options):g} s, one client process; "
            "client and server share the cores. The pyfunc answers with labels, the graph with probabilities, too. "
            f"Load average {load()}.",
            ["rows, in flight", "ONNX", "its p99", "pyfunc", "its p99", "throughput", "p99"],
            rows,
        )
    ]


def _add_pyfunc(project: ProjectConfig, packages: Path) -> None:
    """The model beside the ONNX one, with the packages that it imports."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    subprocess.run([*command, "--target", str(packages), *_PACKAGES], check=True)
    version = project.repository / _OTHER / "1"
    builder = projects.ROOT / "builders" / _MODEL
    script = f"import sys; sys.path[:0] = [{str(packages)!r}, {str(builder)!r}]\n{_SAVE}"
    subprocess.run([sys.executable, "-I", "-c", script, str(version)], check=True, capture_output=True)
    theirs = (packages / "mlflow_backend" / "models" / "mlflow_python_model.py").read_text()
    (version / "model.py").write_text(f"import sys; sys.path.insert(0, {str(packages)!r})\n{theirs}")
    (version.parent / "config.pbtxt").write_text(_CONFIG)


@contextmanager
def _served(project: ProjectConfig) -> Iterator[str]:
    """The URL of a server with both models."""
    log = project.logs / "benchmark.log"
    with local(project, project.repository, {_MODEL: [], _OTHER: []}, "grpc", log, lambda _: None) as server:
        assert server.local
        yield server.local.grpc


def _compared(project: ProjectConfig, url: str, rows: int, in_flight: int, options: Options) -> list[str]:
    shape = LoadShape(in_flight, warmup_s=0.5, duration_s=_seconds(options))
    with tempfile.TemporaryDirectory() as folder:
        payload = str(_payload(project, Path(folder) / "rows.npz", rows))
        workloads = {name: Workload(url, name, payload=payload, batch=rows, check_every=0) for name in (_MODEL, _OTHER)}
        with GeneratorProcesses(workloads, 1, Path(folder)) as generators:
            runs: dict[str, list[_Run]] = {name: [] for name in workloads}
            for number in range(_rounds(options)):
                for name in list(workloads)[:: 1 if number % 2 == 0 else -1]:
                    runs[name].append(_run(lambda name=name: generators.run(name, shape, Watch())))  # type: ignore[misc]
    return _cells(f"{rows}, {in_flight}", runs[_MODEL], runs[_OTHER])


def _payload(project: ProjectConfig, file: Path, rows: int) -> Path:
    """The rows of a request, drawn from the golden samples."""
    from modelwright.steps.estimator_rows import filled
    from modelwright.verification.golden import load_golden

    samples, _ = load_golden(project.repository / _MODEL / "1" / "golden.npz")
    measured = np.stack([sample["measurements"] for sample in samples])
    drawn = filled({"measurements": measured}, max(rows, len(measured)))["measurements"][:rows]
    np.savez(file, measurements=drawn)
    return file


def _run(ask: Callable[[], Phase]) -> _Run:
    phase = ask()
    rows, good = phase.record.rows(), phase.measured()
    if len(good) == 0 or (rows["code"] != 0).any():
        raise RuntimeError(f"{(rows['code'] != 0).sum()} of {len(rows)} requests failed: {phase.record.failures}")
    seconds = (phase.until_ns - phase.start_ns) * 1e-9
    return _Run(len(good) / seconds, good["end_ns"] - good["start_ns"])


def _cells(label: str, ours: list[_Run], theirs: list[_Run]) -> list[str]:
    rates = [statistics.median(run.throughput for run in runs) for runs in (ours, theirs)]
    ratio = statistics.median(one.throughput / other.throughput for one, other in zip(ours, theirs, strict=True))
    tails = [latency(np.concatenate([run.times_ns for run in runs])).percentiles_ms["p99"] for runs in (ours, theirs)]
    shown = [f"{tail:.2f} ms" if tail else "-" for tail in tails]
    times = f"{tails[1] / tails[0]:.1f} times shorter" if tails[0] and tails[1] else "-"
    return [label, f"{rates[0]:,.0f} /s", shown[0], f"{rates[1]:,.0f} /s", shown[1], f"{ratio:.1f} times", times]


def _rounds(options: Options) -> int:
    return 2 if options.quick else 5


def _seconds(options: Options) -> float:
    return 1.0 if options.quick else 2.0
