"""What a training learnt, epoch by epoch: `training.json` in the artifact of the step that trained.

It holds no times and no names of machines, so that the same training gives the same file.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from modelwright.facts.part import Facts, Integer, JsonObject, Number, Part
from modelwright.fsops import read_file

TRAINING_FILE = "training.json"
KIT = "modelwright.training"  # what a builder imports to train with the kit
KIT_REVISION = "1"  # in the keys of steps whose code imports the kit. Raised when it trains otherwise


class EpochMetrics(Part):
    epoch: Integer  # from 1
    metrics: dict[str, Number]  # loss, and of the validation data val_loss, val_accuracy, …


class TrainingRecord(Facts):
    """One training; and the metrics of a cross-validation, one number a fold."""

    params: JsonObject = Field(default_factory=dict)
    epochs: tuple[EpochMetrics, ...] = ()
    best_epoch: Integer | None = None  # the one whose weights the model has
    monitor: str = ""  # the metric that chose it; "" for the last epoch
    folds: dict[str, tuple[Number, ...]] = Field(default_factory=dict)

    def write(self, folder: Path) -> None:
        text = self.model_dump_json(indent=1)
        (folder / TRAINING_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> TrainingRecord | None:
        """The record in an artifact's folder; None where the step did not use the kit."""
        file = folder / TRAINING_FILE
        return cls.model_validate_json(read_file(file)) if file.is_file() else None


class FoldSpread(Part):
    """A metric over the folds of a cross-validation."""

    mean: Number
    spread: Number  # the standard deviation of a single fold
    folds: Integer

    @classmethod
    def of(cls, values: tuple[float, ...]) -> FoldSpread:
        import statistics

        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(mean=statistics.fmean(values), spread=spread, folds=len(values))

    def __str__(self) -> str:
        return f"{self.mean:.6g} ± {self.spread:.2g} over {self.folds} folds"


class TrainingSummary(Part):
    """A training in a few numbers."""

    epochs: Integer = 0  # that ran
    best_epoch: Integer | None = None
    metrics: dict[str, Number] = Field(default_factory=dict)  # of that epoch
    folds: dict[str, FoldSpread] = Field(default_factory=dict)

    @classmethod
    def of(cls, record: TrainingRecord) -> TrainingSummary:
        best = record.epochs[record.best_epoch - 1].metrics if record.best_epoch else {}
        spread = {name: FoldSpread.of(values) for name, values in record.folds.items()}
        return cls(epochs=len(record.epochs), best_epoch=record.best_epoch, metrics=best, folds=spread)
