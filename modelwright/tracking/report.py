"""The short report that a run in MLflow has: Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelwright import text as fmt
from modelwright.facts.training import TrainingRecord
from modelwright.repository.manifest import Manifest


@dataclass(frozen=True)
class ReportedGate:
    name: str
    text: str  # what was measured, and the bounds
    verdict: str  # "passed", or "" where it is not known


def report(
    model: str,
    status: str,
    manifest: Manifest | None,
    gates: Sequence[ReportedGate],
    reason: str,
    training: TrainingRecord | None,
    has_picture: bool,
) -> str:
    lines = [f"# {model}: {status}", ""]
    if reason:
        lines += ["```", reason, "```", ""]
    if manifest:
        lines += _version(manifest)
    if metrics := manifest.metrics if manifest else {}:
        lines += _table("metric", "value", ((name, f"{value:.6g}") for name, value in metrics.items()))
    if gates:
        lines += _table(
            "gate", "", ((gate.name, f"{gate.verdict + ': ' if gate.verdict else ''}{gate.text}") for gate in gates)
        )
    if training and training.epochs:
        best = f", the best one: {training.best_epoch}" if training.best_epoch else ""
        lines += [f"Trained for {fmt.counted(len(training.epochs), 'epoch')}{best}.", ""]
    if manifest:
        lines += _table("step", "seconds", ((step.step, f"{step.seconds:.1f}") for step in manifest.lineage))
        lines += [f"- {note}" for note in manifest.verification.notes]
    if has_picture:
        lines += ["The confusion matrix is in confusion.svg.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _version(manifest: Manifest) -> list[str]:
    verified, commit = manifest.verification, manifest.source
    lines = [f"Version {manifest.version}, {fmt.size(manifest.size_bytes)}, digest `{manifest.version_digest}`."]
    if manifest.description:
        lines.insert(0, f"{manifest.description}\n")
    if commit.commit:
        lines.append(f"Built from `{commit.builder}` at {commit.commit}{' with changes' if commit.dirty else ''}.")
    if verified.largest_error is not None:
        lines.append(f"Its answers differ by {verified.largest_error:.2g} at most from {verified.compared_with.value}.")
    return [*lines, ""]


def _table(first: str, second: str, rows: Iterator[tuple[str, str]]) -> list[str]:
    cells = [f"| {name.replace('|', chr(92) + '|')} | {value.replace('|', chr(92) + '|')} |" for name, value in rows]
    return [f"| {first} | {second} |", "|---|---|", *cells, ""] if cells else []
