"""`digits` made smaller: pruned, distilled, rounded to INT8; and why channels are counted in sixteens."""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.project.project import load as load_project
from modelwright.project.spec import TensorSpec
from modelwright.repository.manifest import Manifest
from modelwright.repository.repository import Repository
from modelwright.steps.channels import Forward, channels_of, cost_of, prunable, scores, smallest_cut
from modelwright.steps.export import onnx_from_torch
from modelwright.tools import instruction_set
from modelwright.triton.releases import Release
from modelwright.verification.pace import interleaved

_PLAIN = "digits"
_NAMES = (_PLAIN, "digits_pruned", "digits_distilled", "digits_int8", "digits_qat")
# Beside the shipped variants: fine-tuned with fake quantisation, to compare with digits_int8.
_QAT: dict[str, Any] = {
    "name": "digits_qat",
    "steps": [{"qat": {"entry": "compress:finetune", "params": {"epochs": 2, "lr": 0.0005, "seed": 1}}}],
    "gates": {"accuracy": {"max_drop": 0.01}},
}
_BATCHES = (1, 8, 64)
_SHARES = (0.7, 0.5, 0.3)
_MULTIPLES = (1, 8, 16)
_SECONDS = 8.0  # of taking turns, for each batch
Times = Mapping[str, list[float]]


def measure(options: Options) -> list[Section]:
    seconds = 0.1 if options.quick else _SECONDS
    with tempfile.TemporaryDirectory(prefix="modelwright-compress-") as folder:
        project = projects.shipped_project(Path(folder) / "project", [_PLAIN])
        _add_qat(project / "builders" / _PLAIN / "model.yaml")
        timing.build(project, *_NAMES)
        config = load_project(project)
        repository = Repository(config.repository, config.staging)
        manifests = {name: repository.manifest(name, 1) for name in _NAMES}
        files = {name: config.repository / name / "1" / "model.onnx" for name in _NAMES}
        times = {batch: _times(files, batch, seconds) for batch in _BATCHES}
        models = _models({name: manifest for name, manifest in manifests.items() if manifest}, times)
        return [models, _multiples(files[_PLAIN], Path(folder), config.target, seconds)]


def _add_qat(model_yaml: Path) -> None:
    spec = yaml.safe_load(model_yaml.read_text())
    spec["variants"].append(_QAT)
    model_yaml.write_text(yaml.safe_dump(spec, sort_keys=False))


def _models(manifests: Mapping[str, Manifest], times: Mapping[int, Times]) -> Section:
    plain = manifests[_PLAIN]
    rows = []
    for name, manifest in manifests.items():
        accuracy = manifest.metrics["accuracy"]
        drop = plain.metrics["accuracy"] - accuracy
        size = _onnx_bytes(manifest)
        step = next((step for step in manifest.lineage if step.step in ("prune", "distil", "quantise", "qat")), None)
        rows.append(
            [
                f"`{name}`",
                f"{size / 1000:.0f} kB",
                f"{_onnx_bytes(plain) / size:.1f}",
                f"{accuracy:.4f}",
                f"{100 * drop:+.2f}",
                *(_faster(found, name, _PLAIN) for found in times.values()),
                timing.seconds(step.seconds) if step else "",
            ]
        )
    pruned = next(step.facts for step in manifests["digits_pruned"].lineage if step.step == "prune")
    distilled = next(step.facts for step in manifests["digits_distilled"].lineage if step.step == "distil")
    return Section(
        "compress: `digits` and what is made of it",
        "The versions that a build publishes, in onnxruntime on one thread, in turns; how many times as fast as"
        f" `{_PLAIN}`, the median of the rounds' ratios. {instruction_set()}. Load average {load()}.",
        ["", "graph", "times smaller", "accuracy", "points lost", *(f"batch {batch}" for batch in times), "made in"],
        rows,
        [
            f"`digits_pruned` has {_ratio(pruned, 'flops_before', 'flops')} times fewer FLOPs; the aim is ≥ 1.5, and a"
            " speed-up at the same gate.",
            f"`digits_distilled` has {_ratio(distilled, 'teacher_parameters', 'parameters')} times fewer weights than"
            " its teacher; the aims are ≥ 4, and at most 1 point lost.",
        ],
    )


def _multiples(plain: Path, folder: Path, target: Release, seconds: float) -> Section:
    """The network, cut and not fine-tuned: what time follows from the number of channels alone."""
    files = {"all": plain}
    kept: dict[str, tuple[float, list[int]]] = {}
    module, forward = _network()
    before = cost_of(module, forward).flops
    groups = prunable(module, forward).groups
    scored = scores(module, forward, groups, "l2")
    wanted = [(multiple, share) for multiple in _MULTIPLES for share in _SHARES]
    for multiple, share in wanted:
        name = f"{multiple} {share}"
        less = smallest_cut(
            module,
            forward,
            groups,
            scored,
            lambda cost, share=share: cost.flops <= share * before,  # type: ignore[misc]
            ranking="layer",
            multiple=multiple,
        )
        kept[name] = cost_of(less, forward).flops / before, list(channels_of(less).values())[:-1]
        files[name] = _exported(less, folder / f"cut-{multiple}-{share}.onnx", target)
    found = {batch: _times(files, batch, seconds) for batch in _BATCHES}
    rows = []
    for multiple, share in wanted:
        name = f"{multiple} {share}"
        flops, channels = kept[name]
        faster = [_faster(times, name, "all") for times in found.values()]
        rows.append([str(multiple), f"{share:g}", ", ".join(map(str, channels)), f"{flops:.2f}", *faster])
    return Section(
        "compress: channels that stay, and time",
        f"The network of `{_PLAIN}` (32, 64, 64 channels), pruned to at most a share of its FLOPs with channels in"
        f" multiples of 1, 8 and 16; not fine-tuned. As above. {instruction_set()}. Load average {load()}.",
        ["multiple of", "FLOPs at most", "channels", "FLOPs", *(f"batch {batch}" for batch in _BATCHES)],
        rows,
    )


def _network() -> tuple[Any, Forward]:
    """The untrained network of the shipped builder, and how it is called."""
    import torch

    sys.path.insert(0, str(projects.ROOT / "builders" / _PLAIN))
    module = importlib.import_module("train").DigitsNet().eval()
    image = torch.zeros(1, 1, 8, 8)
    return module, lambda network: (network(image),)


def _exported(module: Any, file: Path, target: Release) -> Path:
    import numpy as np

    image = TensorSpec(name="image", dtype="FP32", shape=(1, 8, 8))
    logits = TensorSpec(name="logits", dtype="FP32", shape=(10,))
    samples = {"image": np.zeros((2, 1, 8, 8), np.float32)}
    onnx_from_torch(module, samples, [image], [logits], file, target, batched=True)
    return file


def _times(files: Mapping[str, Path], batch: int, seconds: float) -> Times:
    """{model: seconds a request}, in turns."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: of INT8 graphs it warns that it drops what it does not need
    image = np.random.default_rng(0).random((batch, 1, 8, 8), dtype=np.float32)

    def call(file: Path) -> Callable[[], object]:
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"image": image})

    return interleaved({name: call(file) for name, file in files.items()}, seconds=seconds)


def _faster(times: Times, name: str, than: str) -> str:
    return f"{statistics.median(b / a for a, b in zip(times[name], times[than], strict=True)):.2f}"


def _onnx_bytes(manifest: Manifest) -> int:
    return manifest.files["model.onnx"].size_bytes


def _ratio(facts: Mapping[str, Any], before: str, after: str) -> str:
    return f"{facts[before] / facts[after]:.1f}"
