"""What a verify step learnt: what a version's outputs were compared with, and how far they differ."""

from __future__ import annotations

from pydantic import Field, JsonValue

from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.part import Facts, Integer, Number, Part
from modelwright.facts.training import FoldSpread
from modelwright.project.spec import Tolerance

_SCHEMA_1_WORDS = {
    "its source": ComparedWith.SOURCE,
    "its golden samples": ComparedWith.GOLDEN_SAMPLES,
    "itself": ComparedWith.ITSELF,
    "nothing": ComparedWith.NOTHING,
}


class GoldenComparison(Part):
    """How a server's answers are compared with golden.npz."""

    batch: Integer  # rows a request; 0: requests have no batch dimension
    tolerance: dict[str, Tolerance]  # per output


class Verified(Facts):
    """Facts of one version that passed verification."""

    compared_with: ComparedWith
    reason: str = ""  # why a prebuilt version was compared with nothing, where it has samples
    max_abs_error: dict[str, Number] = Field(default_factory=dict)  # per output, in its units
    samples: Integer = 0
    metrics: dict[str, Number] = Field(default_factory=dict)  # what `evaluate` returned
    confusion: tuple[tuple[Integer, ...], ...] = ()  # what is true by what the model says, where `evaluate` counts it
    folds: dict[str, FoldSpread] = Field(default_factory=dict)  # of a cross-validation, where a gate is of its folds
    golden: GoldenComparison | None = None  # None: the version has no golden samples
    notes: tuple[str, ...] = ()  # what could not be tested, a sentence each
    # Of a variant
    precision: str = ""  # fp32, fp16, bf16, int8
    instruction_set: str = ""  # of the CPU that verified it: integer arithmetic differs
    plain_metrics: dict[str, Number] = Field(default_factory=dict)  # of the model that it is a variant of
    size_ratio: Number | None = None  # of its files, to the plain model's
    latency_ratio: Number | None = None  # to the plain model's, where a gate asks for it

    @property
    def largest_error(self) -> float | None:
        """Of all outputs; None where nothing is known. A model compared with itself differs by nothing, which says
        nothing."""
        errors = () if self.compared_with is ComparedWith.ITSELF else self.max_abs_error.values()
        return max(errors, default=None)

    @classmethod
    def from_schema_1(cls, data: JsonValue) -> JsonValue:
        if not isinstance(data, dict):
            return data
        words = data.get("compared_with")
        known = _SCHEMA_1_WORDS.get(words) if isinstance(words, str) else None
        return {**data, "compared_with": known.value} if known else data


class VerifiedVersions(Facts):
    """Facts of each version of a prebuilt model."""

    versions: dict[int, Verified]

    @classmethod
    def from_schema_1(cls, data: JsonValue) -> JsonValue:
        versions = data.get("versions") if isinstance(data, dict) else None
        if not isinstance(versions, dict):
            return data
        return {"versions": {number: Verified.from_schema_1(facts) for number, facts in versions.items()}}
