"""What INT8 gains and loses on the shipped models, by instruction set: each against its FP32 model, in turns."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import projects, timing
from benchmarks.instruction_sets import without_avx512
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright import tools
from modelwright.text import TIMES

_AVX2 = "AVX2"
_ROUNDS = 31
_CALIBRATED = 'calibration: "sentences:calibration"'
# What else is tried on MiniLM: options of quantise. Their gate lets everything pass: they are measured here.
_TRIED = {
    "per_tensor": ("dynamic, one scale for all of a weight", "{mode: dynamic, per_channel: false}"),
    "dynamic": ("dynamic", "{mode: dynamic}"),
    "eight_bits": ("dynamic, weights of 8 bits", "{mode: dynamic, reduce_range: false}"),
    "smooth": ("dynamic, SmoothQuant", f"{{mode: dynamic, smooth_quant: true, {_CALIBRATED}}}"),
    "smooth_eight": (
        "dynamic, SmoothQuant, weights of 8 bits",
        f"{{mode: dynamic, smooth_quant: true, reduce_range: false, {_CALIBRATED}}}",
    ),
    "static": ("static, min-max", f"{{mode: static, {_CALIBRATED}}}"),
    "percentile": ("static, percentile", f"{{mode: static, method: percentile, {_CALIBRATED}}}"),
}
_VARIANT = """\
  - name: {name}
    on_request: true
    steps: [{{quantise: {options}}}]
    gates: {{tolerance: {{atol: 10}}}}
"""
_SHIPPED = "minilm_int8, as shipped: fused attention, dynamic, SmoothQuant"


def measure(options: Options) -> list[Section]:
    tried = {name: _TRIED[name] for name in ("dynamic",)} if options.quick else _TRIED
    with tempfile.TemporaryDirectory(prefix="modelwright-quantise-") as folder:
        root = projects.shipped_project(Path(folder) / "project", ["minilm", "digits"])
        projects.take_store(root)
        yaml = root / "builders" / "minilm" / "model.yaml"
        yaml.write_text(
            yaml.read_text()
            + "".join(_VARIANT.format(name=f"minilm_{name}", options=given) for name, (_, given) in tried.items())
        )
        built = ["minilm", "digits", "minilm_int8", "digits_int8", *(f"minilm_{name}" for name in tried)]
        timing.build(root, *built)
        here = {tools.instruction_set(): ""}
        if platform.machine() == "x86_64" and tools.instruction_set() != _AVX2:
            here[_AVX2] = str(without_avx512(Path(folder) / "avx2"))
        minilm = {
            "minilm": "FP32",
            **{f"minilm_{name}": label for name, (label, _) in tried.items()},
            "minilm_int8": _SHIPPED,
        }
        rounds = options.rounds(_ROUNDS)
        return [
            _section(root, "minilm", minilm, here, rounds, "8", ("similarity_spearman",)),
            _section(
                root,
                "digits",
                {"digits": "FP32", "digits_int8": "digits_int8, as shipped: static"},
                here,
                rounds,
                "64",
                ("accuracy",),
            ),
        ]


def _section(
    root: Path,
    builder: str,
    models: Mapping[str, str],
    instruction_sets: Mapping[str, str],
    rounds: int,
    batch: str,
    metrics: Sequence[str],
) -> Section:
    """A row for each model: its size, and for each instruction set its metrics and how many times as fast it is."""
    files = {name: root / "model_repository" / name / "1" / "model.onnx" for name in models}
    found = {
        name: _measured(root / "builders" / builder, files, path, rounds) for name, path in instruction_sets.items()
    }
    (plain, *_), batches = models, list(next(iter(found.values()))[builder]["times_s"])
    header = ["", "MB", *(f"{metric}, {name}" for name in found for metric in metrics)]
    header += [f"{TIMES} FP32 at {count}, {name}" for name in found for count in batches]
    rows = []
    for model, label in models.items():
        row = [label, f"{files[model].stat().st_size / 1e6:.2f}"]
        row += [f"{result[model]['metrics'][metric]:.4f}" for result in found.values() for metric in metrics]
        row += [_speed(result[plain], result[model], count) for result in found.values() for count in batches]
        rows.append(row)
    slowest = {name: statistics.median(result[plain]["times_s"][batch]) for name, result in found.items()}
    times = ", ".join(f"{timing.milliseconds(value)} with {name}" for name, value in slowest.items())
    what = "sentences of 64 tokens" if builder == "minilm" else "images"
    return Section(
        f"quantise: {builder} in INT8 on one core",
        "CPU time of onnxruntime, one thread, all models in turns; the median of the rounds' ratios."
        f" FP32 takes {times} for {batch} {what}. AVX2: the same CPU without the kernels for AVX-512 and VNNI."
        f" Load average {load()}.",
        header,
        rows,
    )


def _measured(builder: Path, files: Mapping[str, Path], path: str, rounds: int) -> dict[str, Any]:
    command = [timing.PYTHON, "-m", "benchmarks.quantise_run", str(builder), str(rounds)]
    command += [f"{name}={file}" for name, file in files.items()]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(projects.ROOT))))}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _speed(plain: Mapping[str, Any], other: Mapping[str, Any], batch: str) -> str:
    pairs = zip(plain["times_s"][batch], other["times_s"][batch], strict=True)
    return f"{statistics.median(first / second for first, second in pairs):.2f}"
