"""A build of a model, or a version that was published, as MLflow is told of it: parameters, metrics, tags, files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.charts.matrix import MOST_CLASSES, matrix_svg
from modelwright.digest import canonical, sha256
from modelwright.facts.key_content import KeyContent
from modelwright.facts.training import TRAINING_FILE, TrainingRecord
from modelwright.project.spec import Builder, Gates
from modelwright.repository.manifest import Manifest, SourceCommit
from modelwright.tracking.record import VERSION_FOLDER, Epoch, cut, finite, flat, key
from modelwright.tracking.report import ReportedGate, report
from modelwright.triton.layout import MANIFEST

_LONGEST_LOG = 200_000  # bytes, of its end
_PREFIX = "modelwright"


@dataclass(frozen=True)
class RanStep:
    """A step of the model: its key, and what the key covers."""

    name: str
    key: str
    content: KeyContent


@dataclass(frozen=True)
class BuiltModel:
    """What is known of a build of a model; any of it may be missing."""

    model: str
    status: str
    steps: Sequence[RanStep] = ()
    builder: Builder | None = None
    manifest: Manifest | None = None  # of the version that it came to
    training: TrainingRecord | None = None
    commit: SourceCommit | None = None
    reason: str = ""  # why it failed, is held or skipped
    log: Path | None = None  # of a failed step
    labels: Sequence[str] = ()  # class names
    measured: Mapping[str, float] = field(default_factory=dict)  # of a build that missed a gate
    missed: Sequence[str] = ()  # the gates that it missed
    seconds: float = 0.0
    more_tags: Mapping[str, str] = field(default_factory=dict)


def params(built: BuiltModel) -> dict[str, str]:
    """What was asked for: the source, how it is served, the steps of a variant, the bounds of gates, the training."""
    found: dict[str, str] = {}
    if builder := built.builder:
        spec = builder.spec
        found |= dict(flat("source", spec.source.model_dump(mode="json", exclude_defaults=True)))
        found |= dict(flat("serving", spec.serving))
        found |= dict(flat("gate", spec.gates.model_dump(mode="json", exclude_defaults=True)))
        if builder.variant:
            found["variant.of"] = builder.variant.of
            for index, step in enumerate(builder.variant.steps):
                found[key(f"variant.steps.{index}")] = step.name
                options = step.options.model_dump(mode="json", exclude_defaults=True) if step.options else {}
                found |= dict(flat(f"variant.{step.name}", options))
    else:
        for ran in built.steps:
            found |= dict(flat(ran.name, ran.content.config))
    return found | dict(flat("training", built.training.params if built.training else {}))


def metrics(built: BuiltModel) -> dict[str, float]:
    manifest = built.manifest
    found: dict[str, float] = {"build_s": round(built.seconds, 3)} if built.seconds else {}
    if manifest is None:
        return found | finite(built.measured)
    verified = manifest.verification
    found |= finite(verified.metrics) | {"size_bytes": float(manifest.size_bytes)}
    found |= finite({f"max_abs_error.{name}": value for name, value in verified.max_abs_error.items()})
    found |= finite({f"plain.{name}": value for name, value in verified.plain_metrics.items()})
    for name in ("size_ratio", "latency_ratio"):
        if (value := getattr(verified, name)) is not None:
            found[name] = value
    return found


def epochs(training: TrainingRecord | None) -> Iterator[Epoch]:
    """The curves of a training: one point an epoch, and one a fold."""
    if training is None:
        return
    for epoch in training.epochs:
        yield Epoch(step=epoch.epoch, metrics=finite(epoch.metrics))
    for name, values in training.folds.items():
        for fold, value in enumerate(values, start=1):
            yield Epoch(step=fold, metrics=finite({f"fold.{name}": value}))


def tags(built: BuiltModel) -> dict[str, str]:
    """Where it comes from, what its steps depended on, and what became of it."""
    found = {f"{_PREFIX}.model": built.model, f"{_PREFIX}.status": built.status, **built.more_tags}
    manifest, commit = built.manifest, built.commit or (built.manifest.source if built.manifest else None)
    if commit:
        found |= {f"{_PREFIX}.builder": commit.builder, "mlflow.source.name": commit.builder}
    if commit and commit.commit:
        found |= {"mlflow.source.git.commit": commit.commit, f"{_PREFIX}.git_dirty": str(bool(commit.dirty)).lower()}
    if manifest:
        found[f"{_PREFIX}.version"] = str(manifest.version)
        found[f"{_PREFIX}.version_digest"] = manifest.version_digest
        found[f"{_PREFIX}.triton"] = manifest.target.triton
    for step in built.steps:
        found[key(f"{_PREFIX}.step_key.{step.name}")] = step.key
    if built.steps:
        found |= {f"{_PREFIX}.{what}_digest": _covered(built.steps, what) for what in ("code", "data")}
    if built.reason:
        found[f"{_PREFIX}.reason"] = built.reason
        found["mlflow.note.content"] = built.reason
    for gate in gates(built):
        if gate.verdict:
            found[key(f"{_PREFIX}.gate.{gate.name}")] = f"{gate.verdict}: {gate.text}"
    return {name: cut(value) for name, value in found.items() if value}


def _covered(steps: Sequence[RanStep], what: str) -> str:
    """One digest of all the files that the keys of the steps cover: `code` or `data`."""
    return sha256(canonical({step.name: dict(getattr(step.content, what)) for step in steps}))


def gates(built: BuiltModel) -> list[ReportedGate]:
    """The bounds that model.yaml sets. Whether one passed is empty where it was not asked."""
    return [*_gates(built.builder.spec.gates, built)] if built.builder else []


def _gates(given: Gates, built: BuiltModel) -> Iterator[ReportedGate]:
    measured = built.manifest.metrics if built.manifest else built.measured
    for name, gate in given.metrics.items():
        bounds = gate.model_dump(mode="json", exclude_defaults=True)
        text = ", ".join(f"{bound} {value}" for bound, value in bounds.items())
        found = measured.get(name)
        verdict = "missed" if name in built.missed else "passed" if found is not None else ""
        yield ReportedGate(name, text if found is None else f"{found:.6g}, {text}", verdict)
    for name in ("tolerance", "size", "latency"):
        if (own := getattr(given, name)) is not None:
            bounds = own.model_dump(mode="json", exclude_defaults=True)
            text = ", ".join(f"{bound} {value}" for bound, value in bounds.items())
            yield ReportedGate(name, text, "passed" if built.manifest else "")


def files(built: BuiltModel, version_folder: Path | None) -> dict[str, bytes | Path]:
    """The artifacts of the run: name → content. `version_folder` is where the version's files lie."""
    found: dict[str, bytes | Path] = {}
    if built.manifest and version_folder:
        found[f"{VERSION_FOLDER}/{MANIFEST}"] = version_folder / MANIFEST
    if built.training:
        found[TRAINING_FILE] = f"{built.training.model_dump_json(indent=1)}\n".encode()
    confusion = built.manifest.verification.confusion if built.manifest else ()
    if confusion:
        found["confusion.json"] = json.dumps({"labels": list(built.labels), "counts": confusion}).encode()
        if len(confusion) <= MOST_CLASSES:
            title = f"{built.model}: {sum(map(sum, confusion))} samples"
            found["confusion.svg"] = matrix_svg(title, confusion, built.labels).encode()
    if built.log and built.log.is_file():
        found["log.txt"] = built.log.read_bytes()[-_LONGEST_LOG:]
    found["report.md"] = report(
        built.model, built.status, built.manifest, gates(built), built.reason, built.training, "confusion.svg" in found
    ).encode()
    return found
